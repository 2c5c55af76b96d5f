"""Implementations of the commands, one module each; `cli` parses the arguments."""
