"""How many nodes each role needs, from what nodes and routers count."""
