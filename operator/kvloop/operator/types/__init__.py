"""The custom resources of `kvloop.dev/v1alpha1`; the CRDs are generated from these types."""
