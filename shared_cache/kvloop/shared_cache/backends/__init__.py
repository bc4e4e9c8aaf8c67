"""One folder for each kind of shared store; the factory imports the one that is asked for."""
