"""`kvloop bench`: one file for each kind of load."""
