"""The operator's own look at the loop, for servers that have no canary: two turns of a chat."""
