"""Platform commands, one module per command, without command-line parsing."""
