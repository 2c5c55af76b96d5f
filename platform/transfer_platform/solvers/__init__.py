"""Classifiers that are solved exactly on fixed features."""
