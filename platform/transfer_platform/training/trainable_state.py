"""The part of a network that training modifies."""

from collections.abc import Mapping

import torch
from torch import Tensor

from transfer_model.network import Network


class TrainableState:
    """Unfrozen tensors and modules of a network; creating this object sets the network to train mode.

    The modules are collected only once: iterating over a network's hundreds of modules on every mode switch would take
    longer than a trial on stored features.

    Attributes:
        tensors: Trainable parameters and running statistics, keyed by their names in `network.state_dict()`; they share
            memory with the network.
    """

    def __init__(self, network: Network) -> None:
        network.train()
        self._modules = [module for module in network.modules() if module.training]
        parameters = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
        buffers = {id(buffer) for module in self._modules for buffer in module.buffers(recurse=False)}
        self.tensors: dict[str, Tensor] = {
            name: tensor
            for name, tensor in network.state_dict(keep_vars=True).items()
            if id(tensor) in parameters | buffers
        }

    def train(self, mode: bool = True) -> None:
        """Sets the network to train or eval mode, like `network.train`."""
        for module in self._modules:
            module.training = mode

    def copy(self) -> dict[str, Tensor]:
        """Returns copies of all tensors."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors.items()}

    @torch.no_grad()
    def restore(self, copies: Mapping[str, Tensor]) -> None:
        """Overwrites the network's tensors with the given copies, which may be on a different device."""
        for name, tensor in self.tensors.items():
            tensor.copy_(copies[name])
