"""Trains and evaluates the trials of a study."""
