"""Datasets: scanned once, then split into training, validation and test images."""
