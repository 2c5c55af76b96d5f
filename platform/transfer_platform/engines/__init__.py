"""Engines, which run the trials of a study."""
