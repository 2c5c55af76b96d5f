"""Engines that run the trials of a study."""
