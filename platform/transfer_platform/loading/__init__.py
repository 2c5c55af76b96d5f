"""Loads images as tensors on a device."""
