"""Fitting one network to one set of images: the loop, its optimizer, its arithmetic."""
