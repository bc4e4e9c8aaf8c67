"""The canary: a two-turn chat that shows whether KV goes round, and if not, where it stops."""
