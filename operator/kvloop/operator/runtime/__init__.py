"""What runs the controllers: the API, a queue of looks, watching, election, health."""
