"""Holds the conversations of a workload against an OpenAI-compatible server, and times them."""
