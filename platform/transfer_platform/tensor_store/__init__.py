"""Disk cache of tensor rows, shared between processes, with LRU eviction."""
