"""Loading of images as tensors on a device."""
