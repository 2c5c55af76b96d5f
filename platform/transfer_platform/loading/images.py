"""Images as tensors on a device: the exact square that is served, or augmented views of it.

    file --threads--> bytes of a square or a canvas --store--> batch on the device --> (B, 3, S, S) float32

What is kept is uint8, as small as it can be without a loss: normalization and augmentation run on the device.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import PIL
import torch
import torchvision
from rich.filesize import decimal
from torch import Tensor

import transfer_model.preprocessing
from transfer_model.preprocessing import Preprocessing, decode
from transfer_platform.data.catalog import ImageRecord
from transfer_platform.errors import DataError
from transfer_platform.loading import augmentation, canvas
from transfer_platform.loading.augmentation import BatchAugmentation, normalize_images
from transfer_platform.progress import Progress, Say, Step, silent
from transfer_platform.tensor_store.errors import StoreError
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store

CHUNK = 64
"""Images that are decoded before the next ones are begun; bounds the memory."""


class Rows(Protocol):
    """Rows of one shape; `store.Rows`, or decoded when they are asked for."""

    def take(self, indices: Sequence[int]) -> Tensor:
        """(B, ...), on the CPU, of the rows at these places."""


class ImageLoader:
    """The images of a study as one network sees them.

    Args:
        images: An image's place is its position.
        preprocessing: Of the network.
        policy: How training images vary, see `augmentation`; `none` allows no `views`.
        device: Where batches are made.
        store: Keeps the decoded bytes; None: each is decoded when it is asked for.
        progress: Told while many are decoded.
        say: Told where they cannot be kept, or where another process is decoding the same.

    Attributes:
        digests: SHA-256 of every image.
    """

    def __init__(
        self,
        images: Sequence[ImageRecord],
        preprocessing: Preprocessing,
        policy: str,
        device: torch.device,
        store: Store | None = None,
        progress: Progress = silent,
        say: Say = silent,
    ) -> None:
        self.records, self.preprocessing, self.policy = images, preprocessing, policy
        self.digests = [image.sha256 for image in images]
        self.device, self._store, self._progress, self._say = device, store, progress, say
        self._threads = min(8, os.cpu_count() or 1)

    def load(self, positions: Sequence[int]) -> Tensor:
        """The exact squares that are served: (B, 3, S, S) float32, normalized, on the device."""
        size = self.preprocessing.image_size
        pixels = self._squares.take(positions).view(-1, 3, size, size)
        return normalize_images(pixels.to(self.device), self.preprocessing)

    def load_views(self, positions: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """One augmented view of each image: (B, 3, S, S) float32, normalized, on the device."""
        canvases, aspects = canvas.unpack(self._canvases.take(positions))
        return self._augmentation(canvases.to(self.device), aspects, seeds)

    @cached_property
    def view_digest(self) -> str:
        """What a view depends on besides its image and its seed: policy, size of the canvas, code."""
        return _code_digest(f"{self.policy}\0{self._canvas_side}", canvas, augmentation)[:16]

    @cached_property
    def _augmentation(self) -> BatchAugmentation:
        return BatchAugmentation(self.policy, self.preprocessing)

    @cached_property
    def _squares(self) -> Rows:
        size = 3 * self.preprocessing.image_size**2
        return self._rows("square", size, self._square)

    @cached_property
    def _canvases(self) -> Rows:
        side = self._canvas_side
        return self._rows(
            f"canvas {side}",
            canvas.row_bytes(side),
            lambda content, name: canvas.pack(*canvas.canvas(content, side, name)),
        )

    @cached_property
    def _canvas_side(self) -> int:
        longest = max(map(canvas.longest_side, (image.path for image in self.records)))
        return canvas.canvas_side(self.preprocessing.image_size, longest)

    def _square(self, content: bytes, name: str) -> Tensor:
        pixels = np.array(self.preprocessing.crop_and_resize(decode(content, name)))
        return torch.from_numpy(pixels).permute(2, 0, 1).flatten()

    def _rows(self, kind: str, size: int, decoded: Callable[[bytes, str], Tensor]) -> Rows:
        """Kept where there is a store with room for them."""
        fresh = _Decoded(self.records, decoded, self._threads)
        layout = RowSpec((size,), "uint8")
        if self._store is None:
            return fresh
        if not self._store.fits(layout, len(self.records)):
            needed = decimal(layout.row_bytes * len(self.records))
            self._say(f"the images are decoded in every epoch: the cache has no room for them ({needed})")
            return fresh
        address = preprocessing_digest(kind, self.preprocessing)
        try:
            return self._store.get_or_compute(address, layout, self.digests, self._told(fresh), self._waiting)
        except StoreError as error:
            self._say(f"the images are decoded in every epoch: {error}")
            return fresh

    def _waiting(self) -> None:
        self._say("another process is decoding the same images; waiting for it")

    def _told(self, fresh: _Decoded) -> Callable[[Sequence[int]], Iterator[Tensor]]:
        def compute(missing: Sequence[int]) -> Iterator[Tensor]:
            for start in range(0, len(missing), CHUNK):
                chunk = missing[start : start + CHUNK]
                yield fresh.take(chunk)
                self._progress(Step("decoding", start + len(chunk), len(missing), "images"))

        return compute


class _Decoded:
    """Images decoded by threads each time they are asked for; Pillow lets them run side by side.

    Args:
        images: By position.
        decoded: What becomes of a file's content; the name is for errors.
        threads: That decode at once.
    """

    def __init__(
        self, images: Sequence[ImageRecord], decoded: Callable[[bytes, str], Tensor], threads: int
    ) -> None:
        self._images, self._decoded = images, decoded
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decoding")

    def take(self, indices: Sequence[int]) -> Tensor:
        """(B, bytes), uint8; each distinct image is decoded once.

        Raises:
            DataError: A file is not any more what it was when the data set was read.
        """
        distinct = list(dict.fromkeys(indices))
        rows = dict(zip(distinct, self._pool.map(self._row, distinct), strict=True))
        return torch.stack([rows[index] for index in indices])

    def _row(self, index: int) -> Tensor:
        image = self._images[index]
        try:
            content = image.path.read_bytes()
        except OSError as error:
            raise DataError(f"{image.path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != image.sha256:
            # What is stored is known by its content, and would be wrong for whoever has the former one.
            raise DataError(f"{image.path} was changed while it was in use; run the command again")
        return self._decoded(content, str(image.path))


def preprocessing_digest(kind: str, preprocessing: Preprocessing) -> str:
    """SHA-256 of all that an image's tensor depends on besides its own bytes: settings, code, libraries."""
    return _code_digest(f"{kind}\0{preprocessing}", transfer_model.preprocessing, canvas)


def _code_digest(settings: str, *modules: ModuleType) -> str:
    versions = f"{PIL.__version__}\0{torch.__version__}\0{torchvision.__version__}"
    digest = hashlib.sha256(f"{settings}\0{versions}\0".encode())
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
