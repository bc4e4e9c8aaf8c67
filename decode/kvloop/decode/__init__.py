"""The decode node: owns a request, receives its KV, generates, offloads every page it fills."""
