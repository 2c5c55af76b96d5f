"""The served form of a model: images in, class probabilities and novelty out.

Evaluation, the gate, `platform predict` and the scoring server all use this one class.
"""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional

from .config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from .errors import ModelError, WeightsError
from .fuse_bn import fuse_batch_norms
from .network import build_network
from .ood import REFERENCE_FILE, OodScorer
from .preprocessing import decode
from .thread_pool import FairThreadPool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from .network import Network

FILES = (CONFIG_FILE, WEIGHTS_FILE, REFERENCE_FILE)
"""What `save` writes and `Classifier.load` reads."""

ACCELERATOR_BATCH = 8
"""Images in every forward pass of an accelerator, the last one filled up.

float32 results change in their last bits with the size of the batch, and an image's probabilities must not
depend on who else is in the request. A CPU takes one image at a time for the same reason: it is as fast per
image there, and one image does not wait for seven empty places.
"""

THREADS_VARIABLE = "PLATFORM_THREADS"
"""Environment variable: threads that share one image on a CPU, 1 by default. More give a large network's
answer earlier where cores are idle, and fewer answers a second.
"""

_FEEDING = 4
"""Threads that decode for an accelerator; each may hold a batch of images."""


@dataclass(frozen=True)
class ClassifierOutput:
    """What a model says of some images.

    Attributes:
        probabilities: (N, C), calibrated, each row summing to 1.
        novelty: How far each image is from those that the model learned from (N,), 0 to 2.
    """

    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32]


def save(folder: Path, description: ModelConfig, network: Network, novelty: OodScorer) -> None:
    """Writes `FILES` into an existing folder."""
    description.write(folder)
    novelty.save(folder)
    tensors = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)


class Classifier:
    """A network with its classes and its preprocessing, ready to predict.

    Args:
        description: What the network is and how images are prepared for it.
        network: Images (B, 3, S, S) -> logits (B, C). Moved to `device` and set to eval mode, in place.
        novelty: Of images, by what the network's head is given; moved to `device`, in place.
        device: A torch device, `cpu`, `cuda`, `cuda:1`, `mps`.
    """

    def __init__(
        self, description: ModelConfig, network: Network, novelty: OodScorer, device: str = "cpu"
    ) -> None:
        self.config = description
        self.device = torch.device(device)
        self._batch = 1 if self.device.type == "cpu" else ACCELERATOR_BATCH
        self._network = network.to_device(self.device).eval()
        self._novelty = novelty.to(self.device)
        self._heard = threading.local()
        self._network.register_feature_hook(lambda features: setattr(self._heard, "features", features))
        self._workers = self._employed()

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Classifier:
        """Reads what `save` wrote, to predict with: batch norms are folded into convolutions.

        Raises:
            ModelError: The description cannot be read, or `PLATFORM_THREADS` is no number of threads.
            WeightsError: Weights or reference cannot be read, or belong to another network.
        """
        description = ModelConfig.read(folder)
        network = build_network(description.network)
        _fill(network, folder / WEIGHTS_FILE)
        fuse_batch_norms(network.eval(), _noise(description.preprocessing.image_size))
        return cls(description, network, OodScorer.load(folder), device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the columns of `probabilities`."""
        return self.config.classes

    @property
    def network(self) -> Network:
        """Images (B, 3, S, S), prepared and on the device, -> logits (B, C), in eval mode; not a copy."""
        return self._network

    @property
    def ood_scorer(self) -> OodScorer:
        """What measures images by the features that `network.listen` tells; not a copy."""
        return self._novelty

    def predict(self, images: Sequence[bytes | Path]) -> ClassifierOutput:
        """Predicts; an image gets the same bits alone, in any batch and at any place of it.

        Args:
            images: File contents or paths.

        Raises:
            UnreadableImageError: The first image that cannot be decoded, by its path or as `row 3`
                (counted from 0).
        """
        count, starts = len(images), range(0, len(images), self._batch)
        answers = ClassifierOutput(
            np.empty((count, len(self.classes)), np.float32), np.empty(count, np.float32)
        )
        batches = self._workers.map(lambda start: self._classified(images, start), starts)
        for start, batch in zip(starts, batches, strict=True):
            part = slice(start, start + len(batch.ood_scores))
            answers.probabilities[part], answers.ood_scores[part] = batch.probabilities, batch.ood_scores
        return answers

    def predict_proba(self, images: Sequence[bytes | Path]) -> NDArray[np.float32]:
        """Those of `answers`, (N, C)."""
        return self.predict(images).probabilities

    def _employed(self) -> FairThreadPool:
        if self.device.type != "cpu":
            return FairThreadPool(_FEEDING, threads=1)
        threads = _threads()
        return FairThreadPool(max(1, torch.get_num_threads() // threads), threads)

    def _classified(self, images: Sequence[bytes | Path], start: int) -> ClassifierOutput:
        """Decodes the images of one batch, and classifies them."""
        tensors = [
            self.config.preprocessing(decode(image, name=f"row {index}"))
            for index, image in enumerate(images[start : start + self._batch], start)
        ]
        return self._forward(torch.stack(tensors))

    def _forward(self, images: torch.Tensor) -> ClassifierOutput:
        """A full batch of images (B, 3, S, S), or the last ones."""
        empty = self._batch - len(images)
        batch = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, empty)).to(self.device)
        with torch.inference_mode():
            with self._autocast():
                logits = self._network(batch.contiguous(memory_format=torch.channels_last))
            probabilities = (logits.float() / self.config.temperature).softmax(dim=1)
            novelty = self._novelty(self._heard.features)
        count = len(images)
        return ClassifierOutput(probabilities[:count].cpu().numpy(), novelty[:count].cpu().numpy())

    def _autocast(self) -> AbstractContextManager[object]:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.config.precision))


def _threads() -> int:
    setting = os.environ.get(THREADS_VARIABLE, "1")
    if not setting.isdecimal() or not int(setting):
        raise ModelError(f"{THREADS_VARIABLE} must be a whole number of at least 1, but is {setting!r}")
    return int(setting)


def _noise(size: int) -> torch.Tensor:
    """One image (1, 3, S, S), always the same."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


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
