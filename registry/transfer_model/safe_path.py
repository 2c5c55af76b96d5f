"""Prevents Python child processes from importing modules from the current folder.

By default, `python -m`, `python -c` and uvicorn import a script called `json.py` or `torch.py` from the current
folder instead of the library with the same name.
"""

import os
import sysconfig
from pathlib import Path


def safe_environment(*folders: Path) -> dict[str, str]:
    """Returns this process's environment variables, changed so that no child process imports from its current folder.

    The changes also apply to the processes that a child process starts.

    Args:
        folders: Folders to search for modules before those in the user's `PYTHONPATH`.
    """
    # an empty entry of PYTHONPATH is the current folder
    configured = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {
        **os.environ,
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join([*map(str, folders), *configured]),
        # uvicorn adds this folder to the search path; its default is the current folder
        "UVICORN_APP_DIR": sysconfig.get_path("stdlib"),
    }
