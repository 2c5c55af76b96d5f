"""Transfer learning from a recipe to a served model."""
