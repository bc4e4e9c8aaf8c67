"""What is seen of a PDCluster, and what follows from it."""
