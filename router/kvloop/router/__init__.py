"""The OpenAI front: tokenizes, routes by cached prefix, load and zone, and streams answers."""
