"""The prefill node: computes prompts, reuses what the shared cache holds, pushes KV to decode."""
