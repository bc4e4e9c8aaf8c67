"""The page's plots, each a pure function of the report."""
