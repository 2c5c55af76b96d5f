"""The search benchmark on CUDA: lower bound, tutorial loop and platform on the first GPU.

Takes the arguments of search.py. Exits successfully if there is no GPU.

    python benchmarks/gpu.py --photos hymenoptera_data
"""

from __future__ import annotations

import subprocess
import sys

import search

PRINT_GPU = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"


def main() -> None:
    """Runs search.py on CUDA."""
    # In a separate process: torch imported here would count as memory of every child.
    process = subprocess.run([sys.executable, "-c", PRINT_GPU], check=True, capture_output=True, text=True)
    gpu = process.stdout.strip()
    if not gpu:
        print("no CUDA GPU found: nothing was measured")
        return
    print(f"on {gpu}")
    search.main([*sys.argv[1:], "--device", "cuda"])


if __name__ == "__main__":
    main()
