"""Recipes: schema, loading, validation and search space."""
