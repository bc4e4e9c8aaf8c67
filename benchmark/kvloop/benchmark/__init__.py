"""Multi-turn workloads and reports."""
