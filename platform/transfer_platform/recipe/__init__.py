"""Recipes: what may stand in them, how they are read, and what a search may vary."""
