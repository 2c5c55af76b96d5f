"""Entry point of `python -m transfer_platform`."""

import os
import sys

# `python -m` puts the current folder first, where a script of the user may be called `json.py` or `torch.py`.
if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109 - importing pathlib is not safe yet
    del sys.path[0]

from transfer_platform.cli import main

if __name__ == "__main__":
    main(prog_name="python -m transfer_platform")
