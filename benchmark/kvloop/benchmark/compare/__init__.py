"""Two reports side by side: how much changed, and whether that is more than chance."""
