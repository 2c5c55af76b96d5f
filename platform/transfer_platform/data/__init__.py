"""Scans datasets and splits them into training, validation and test images."""
