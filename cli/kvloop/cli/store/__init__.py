"""`kvloop store` in a pod: its health over HTTP, and masters that elect one of them by a Lease."""
