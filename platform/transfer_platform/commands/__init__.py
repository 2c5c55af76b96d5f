"""Commands of the platform, one module each, free of command-line parsing."""
