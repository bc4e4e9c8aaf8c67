"""Model, paged KV, sampling, KV transfer and process frame: what prefill and decode share."""
