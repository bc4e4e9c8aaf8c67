"""The Kubernetes operator: custom resources in, nodes that share one KV cache out."""
