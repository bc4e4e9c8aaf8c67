"""From samples to what is claimed of them."""
