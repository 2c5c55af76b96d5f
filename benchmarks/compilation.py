"""Speedup of `torch.compile` for a training step of the whole network.

The first compiled step includes compilation; the last column is the number of steps that amortize it.

    python benchmarks/compilation.py
    python benchmarks/compilation.py --backbones resnet18 --image-size 64 --steps 2      # smoke test
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness import Row, parser, report

if TYPE_CHECKING:
    from torch import Tensor


def main() -> None:
    """Measures all networks in this process."""
    options = _options()
    rows = [measure(backbone, options) for backbone in options.backbones]
    notes = [
        f"seconds per step: fastest of {options.steps}, float32, batch size {options.batch_size}, "
        f"{options.image_size} pixels, no stage frozen, random weights"
    ]
    report(options, rows, notes)


def _options() -> Namespace:
    arguments = parser(__doc__, photos=False)
    arguments.add_argument("--backbones", nargs="+", default=["resnet18", "efficientnet_lite0"])
    arguments.add_argument("--batch-size", type=int, default=32)
    arguments.add_argument("--image-size", type=int, default=224)
    arguments.add_argument("--steps", type=int, default=6)
    return arguments.parse_args()


def measure(backbone: str, options: Namespace) -> Row:
    """Returns a row of the table."""
    import torch
    from torch.nn import functional

    from transfer_model.network import NetworkSpec, build_network

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    network = build_network(NetworkSpec(backbone, 2, 0.0, options.image_size), None).to(device).train()
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    images = torch.randn(options.batch_size, 3, options.image_size, options.image_size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(2, (options.batch_size,), device=device)

    def step(forward: Callable[[Tensor], Tensor]) -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(forward(images), labels).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    compiled = torch.compile(network)
    step(network)
    eager = min(step(network) for _ in range(options.steps))
    first = step(compiled)
    faster = min(step(compiled) for _ in range(options.steps))
    return {
        "backbone": backbone,
        "eager step, s": eager,
        "compiled step, s": faster,
        "speedup": eager / faster,
        "first compiled step, s": first,
        "steps to amortize": (first - eager) / (eager - faster) if faster < eager else None,
    }


if __name__ == "__main__":
    main()
