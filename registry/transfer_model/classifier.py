"""Image classifier: class probabilities and out-of-distribution scores."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional

from .errors import ModelError, WeightsError, cause
from .fuse_bn import fuse_batch_norms
from .model_json import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from .network import build_network
from .ood import REFERENCE_FILE, OodScorer
from .thread_pool import FairThreadPool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .network import Network

FILES = (CONFIG_FILE, WEIGHTS_FILE, REFERENCE_FILE)
"""Files written by `save` and read by `Classifier.load`."""

ACCELERATOR_BATCH = 8
"""Batch size on an accelerator; the last batch is padded.

The batch size is fixed because it affects the least significant bits of float32 results, and the result for an image
must not depend on the other images in the request. On a CPU, larger batches are no faster, so the batch size is 1.
"""

THREADS_VARIABLE = "PLATFORM_THREADS"
"""Environment variable that sets the number of threads per image on a CPU; defaults to 1.

More threads reduce the latency of large networks if cores are idle, but they also reduce throughput.
"""

_DECODING_THREADS = 4
"""Number of threads that decode images for an accelerator; each thread holds at most one batch in memory."""


@dataclass(frozen=True)
class ClassifierOutput:
    """Predictions for N images.

    Attributes:
        probabilities: Calibrated class probabilities (N, C); each row sums to 1.
        ood_scores: Out-of-distribution scores (N,), from 0 to 2.
    """

    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32]


def save(folder: Path, config: ModelConfig, network: Network, ood_scorer: OodScorer) -> None:
    """Writes the model's files (`FILES`) to an existing folder.

    If a network uses the same tensor under several names, a copy is written for each name.
    """
    config.write(folder)
    ood_scorer.save(folder)
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)


class Classifier:
    """Network with class names, preprocessing and an out-of-distribution scorer, ready for inference.

    The network and the scorer are moved to `device` (`cpu`, `cuda`, `cuda:1`, `mps`) in place, and the network is set
    to evaluation mode. The scorer expects the features that `Network.register_feature_hook` passes to the hook.
    """

    def __init__(self, config: ModelConfig, network: Network, ood_scorer: OodScorer, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self._batch_size = 1 if self.device.type == "cpu" else ACCELERATOR_BATCH
        self.network = network.to_device(self.device).eval()
        self.ood_scorer = ood_scorer.to(self.device)
        self._local = threading.local()
        self.network.register_feature_hook(lambda features: setattr(self._local, "features", features))
        self._pool = self._make_pool()

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Classifier:
        """Loads a model written by `save` and fuses its batch norm layers into convolutions.

        Raises:
            ModelError: The config is invalid, or `PLATFORM_THREADS` is not a positive integer.
            WeightsError: The weights or reference features are unreadable or belong to another network.
        """
        config = ModelConfig.read(folder)
        size = config.preprocessing.image_size
        network = build_network(config.network)
        _load_weights(network, folder / WEIGHTS_FILE)
        noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        fuse_batch_norms(network.eval(), noise)
        return cls(config, network, OodScorer.load(folder), device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the column order of `probabilities`."""
        return self.config.classes

    def predict(self, images: Sequence[bytes | Path]) -> ClassifierOutput:
        """Classifies images from file contents or paths; an image's results do not depend on the other images.

        Raises:
            UnreadableImageError: An image cannot be decoded; the message identifies the first such image by its path,
                or by its zero-based row index, such as `row 3`.
        """
        count, starts = len(images), range(0, len(images), self._batch_size)
        result = ClassifierOutput(np.empty((count, len(self.classes)), np.float32), np.empty(count, np.float32))
        batches = self._pool.map(lambda start: self._predict_batch(images, start), starts)
        for start, batch in zip(starts, batches, strict=True):
            rows = slice(start, start + len(batch.ood_scores))
            result.probabilities[rows], result.ood_scores[rows] = batch.probabilities, batch.ood_scores
        return result

    def predict_proba(self, images: Sequence[bytes | Path]) -> NDArray[np.float32]:
        """Returns only the `probabilities` (N, C) computed by `predict`."""
        return self.predict(images).probabilities

    def _make_pool(self) -> FairThreadPool:
        if self.device.type != "cpu":
            return FairThreadPool(_DECODING_THREADS, threads=1)
        threads = _threads_per_image()
        return FairThreadPool(max(1, torch.get_num_threads() // threads), threads)

    def _predict_batch(self, images: Sequence[bytes | Path], start: int) -> ClassifierOutput:
        preprocessing = self.config.preprocessing
        tensors = [
            preprocessing.normalize(preprocessing.load(image, f"row {index}"))
            for index, image in enumerate(images[start : start + self._batch_size], start)
        ]
        return self._forward(torch.stack(tensors))

    def _forward(self, images: torch.Tensor) -> ClassifierOutput:
        """Classifies images (B, 3, S, S), padding the batch to its fixed size."""
        padding = self._batch_size - len(images)
        batch = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, padding)).to(self.device)
        with torch.inference_mode():
            with self._autocast():
                logits = self.network(batch.contiguous(memory_format=torch.channels_last))
            probabilities = (logits.float() / self.config.temperature).softmax(dim=1)
            ood_scores = self.ood_scorer(self._local.features)
        count = len(images)
        return ClassifierOutput(probabilities[:count].cpu().numpy(), ood_scores[:count].cpu().numpy())

    def _autocast(self) -> AbstractContextManager[object]:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.config.precision))


def _threads_per_image() -> int:
    setting = os.environ.get(THREADS_VARIABLE, "1")
    if not setting.isdecimal() or not int(setting):
        raise ModelError(f"{THREADS_VARIABLE} must be a whole number of at least 1, but is {setting!r}")
    return int(setting)


def _load_weights(network: Network, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as a safetensors file: {cause(error)}") from error
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = "; ".join(line.strip()[:300] for line in str(error).splitlines()[1:3])
        raise WeightsError(f"{path} contains the weights of another network: {first}") from error
