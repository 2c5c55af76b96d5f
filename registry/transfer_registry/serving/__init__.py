"""Serving, loading and exporting registered models."""
