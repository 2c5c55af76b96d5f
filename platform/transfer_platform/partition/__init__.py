"""Partitions a network into a frozen prefix and a trainable suffix."""
