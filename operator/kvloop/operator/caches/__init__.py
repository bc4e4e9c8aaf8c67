"""What is seen of a SharedCache, and what follows from it."""
