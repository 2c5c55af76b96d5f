"""What happens inside a network during one forward pass."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn


class ForwardTrace:
    """Runs a network without memory once, and notes which modules are called and what classifiers give.

    Args:
        network: On the meta device, in train or eval mode.
        classifiers: Names of the modules whose outputs are kept.

    Attributes:
        order: Names of the modules that were called, with the number of their first call.
        outputs: What each classifier gave, call by call.
    """

    def __init__(self, network: nn.Module, classifiers: tuple[str, ...]) -> None:
        self._network = network
        self._classifiers = classifiers
        self.order: dict[str, int] = {}
        self.outputs: dict[str, list[Tensor]] = {}

    def run(self, images: Tensor) -> Any:  # noqa: ANN401 - a tensor, or a tuple in training
        """Sends images (B, 3, S, S) on the meta device through the network and returns what it returns."""
        with ExitStack() as hooks, torch.no_grad(), torch.device("meta"):
            for name, module in self._network.named_modules():
                hooks.callback(module.register_forward_pre_hook(self._note_call(name)).remove)
            for name in self._classifiers:
                module = self._network.get_submodule(name)
                hooks.callback(module.register_forward_hook(self._note_output(name)).remove)
            return self._network(images)

    def _note_call(self, name: str) -> Any:  # noqa: ANN401 - a hook, of torch's signature
        def note(_module: nn.Module, _inputs: object) -> None:
            self.order.setdefault(name, len(self.order))

        return note

    def _note_output(self, name: str) -> Any:  # noqa: ANN401 - a hook, of torch's signature
        def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self.outputs.setdefault(name, []).append(output)

        return note
