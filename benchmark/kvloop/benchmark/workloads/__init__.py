"""Loads: conversations of several kinds, all of them a `Workload`."""
