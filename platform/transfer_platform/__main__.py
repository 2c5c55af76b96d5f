"""Entry point of `python -m transfer_platform`."""

from transfer_platform.cli import main

if __name__ == "__main__":
    main(prog_name="python -m transfer_platform")
