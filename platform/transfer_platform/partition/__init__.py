"""How much of a network learns."""
