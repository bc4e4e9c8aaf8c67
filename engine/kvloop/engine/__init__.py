"""Model, paged KV, sampling, KV transfer and the process frame that prefill and decode nodes share."""
