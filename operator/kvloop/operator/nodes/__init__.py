"""What the operator says to running nodes and routers, and what it reads of their answers."""
