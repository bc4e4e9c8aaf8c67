"""A cluster simulated: the real tree and policies, modelled times."""
