"""The search benchmark on CUDA: floor, tutorial loop and platform, all on the first GPU.

Where there is none it says so and ends well. Takes the arguments of search.py.

    python benchmarks/gpu.py --photos hymenoptera_data
"""

from __future__ import annotations

import subprocess
import sys

import search

QUESTION = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"


def main() -> None:
    """Runs search.py on CUDA."""
    # Asked in a process of its own: importing torch here would count as memory of every child.
    answer = subprocess.run([sys.executable, "-c", QUESTION], check=True, capture_output=True, text=True)
    gpu = answer.stdout.strip()
    if not gpu:
        print("there is no CUDA GPU here: nothing was measured")
        return
    print(f"on {gpu}")
    search.main([*sys.argv[1:], "--device", "cuda"])


if __name__ == "__main__":
    main()
