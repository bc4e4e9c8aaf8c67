"""What a benchmark's Job, pod and report say of its run: pure."""
