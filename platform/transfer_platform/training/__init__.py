"""Trains and evaluates the networks of a study's trials."""
