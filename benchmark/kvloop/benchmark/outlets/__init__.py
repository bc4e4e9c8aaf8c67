"""Where a finished run's report goes."""
