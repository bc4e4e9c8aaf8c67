"""Manifests from resources: pure functions, tested without a cluster."""
