"""The commands of `kvloop cache`, one module each."""
