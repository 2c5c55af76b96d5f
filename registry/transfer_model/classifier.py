"""The served form of a model: pictures in, class probabilities out.

Evaluation, the gate, `platform predict` and the scoring server all use this one class.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .description import WEIGHTS_FILE, ModelDescription
from .errors import WeightsError
from .network import build
from .preprocessing import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from .network import Network

BATCH = 8
"""Images in every forward pass of an accelerator, the last one filled up.

float32 results change in their last bits with the size of the batch, and an image's probabilities must not
depend on who else is in the request. A CPU takes one image at a time for the same reason: it is as fast per
image there, and one picture does not wait for seven
empty places.
"""

_DECODED_AHEAD = 8
_DECODERS = min(4, os.cpu_count() or 1)
"""Threads; each may hold one picture of `MAX_PIXELS` pixels, about 0.5 GB while it is being converted."""


class Classifier:
    """A network with its classes and its preprocessing, ready to predict.

    Args:
        description: What the network is and how pictures are prepared for it.
        network: Images (B, 3, S, S) -> logits (B, C). Moved to `device` and set to eval mode, in place.
        device: A torch device, `cpu`, `cuda`, `cuda:1`, `mps`.
    """

    def __init__(self, description: ModelDescription, network: Network, device: str = "cpu") -> None:
        self.description = description
        self.device = torch.device(device)
        self._batch = 1 if self.device.type == "cpu" else BATCH
        self._network = network.to(self.device).to(memory_format=torch.channels_last).eval()

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Classifier:
        """Reads what `save` wrote.

        Raises:
            ModelError: The description cannot be read.
            WeightsError: The weights cannot be read, or belong to another network.
        """
        description = ModelDescription.read(folder)
        network = build(description.network)
        _fill(network, folder / WEIGHTS_FILE)
        return cls(description, network, device)

    def save(self, folder: Path) -> None:
        """Writes `model.json` and `weights.safetensors` into an existing folder."""
        self.description.write(folder)
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self._network.state_dict().items()}
        save_file(tensors, folder / WEIGHTS_FILE)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the columns of `probabilities`."""
        return self.description.classes

    def probabilities(self, images: Sequence[bytes | Path]) -> NDArray[np.float32]:
        """Predicts; an image gets the same bits alone, in any batch and at any place of it.

        Args:
            images: File contents or paths.

        Returns:
            (N, C), each row summing to 1.

        Raises:
            UnreadableImageError: The first image that cannot be decoded, by its path or as `row 3`
                (counted from 0).
        """
        rows = [self._forward(tensors) for tensors in self._batches(images)]
        return np.concatenate(rows) if rows else np.empty((0, len(self.classes)), dtype=np.float32)

    def _batches(self, images: Sequence[bytes | Path]) -> Iterator[list[torch.Tensor]]:
        for tensors in self._decoded(images):
            for start in range(0, len(tensors), self._batch):
                yield tensors[start : start + self._batch]

    def _decoded(self, images: Sequence[bytes | Path]) -> Iterator[list[torch.Tensor]]:
        """Decodes a few at once; the next few are under way while the caller works on these."""
        with ThreadPoolExecutor(_DECODERS) as pool:

            def begin(start: int) -> list[Future[torch.Tensor]]:
                indices = range(start, min(start + _DECODED_AHEAD, len(images)))
                return [pool.submit(self._tensor, images[index], index) for index in indices]

            upcoming = begin(0)
            for start in range(_DECODED_AHEAD, len(images) + _DECODED_AHEAD, _DECODED_AHEAD):
                current, upcoming = upcoming, begin(start)
                yield [future.result() for future in current]

    def _tensor(self, image: bytes | Path, index: int) -> torch.Tensor:
        return self.description.preprocessing(decode(image, name=f"row {index}"))

    def _forward(self, tensors: list[torch.Tensor]) -> NDArray[np.float32]:
        """A full batch of tensors (3, S, S), or the last ones, -> probabilities (N, C)."""
        batch = torch.zeros(self._batch, *tensors[0].shape).contiguous(memory_format=torch.channels_last)
        batch[: len(tensors)] = torch.stack(tensors)
        with torch.inference_mode(), self._autocast():
            logits = self._network(batch.to(self.device))
        probabilities: NDArray[np.float32] = logits.float().softmax(dim=1).cpu().numpy()
        return probabilities[: len(tensors)]

    def _autocast(self) -> AbstractContextManager[object]:
        if self.description.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.description.precision))


def _fill(network: Network, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as a safetensors file: {error}") from error
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = "; ".join(line.strip()[:300] for line in str(error).splitlines()[1:3])
        raise WeightsError(f"{path} holds the weights of another network: {first}") from error
