"""A trace of real requests against the real tree and pools, without a model."""
