"""Training and evaluation of the trials of a study."""
