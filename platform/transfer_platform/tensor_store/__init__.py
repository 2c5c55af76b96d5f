"""Disk cache of tensor rows: computed once, shared by processes, evicted by age."""
