"""Loads images as normalized tensors on a device, with or without augmentation.

    file --threads--> bytes of a square or canvas --store--> batch on the device --> (B, 3, S, S) float32

Stored rows are uint8; normalization and augmentation run on the device.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torchvision
from rich.filesize import decimal
from torch import Tensor

from transfer_model import decode, formats, intensity, preprocessing
from transfer_model.errors import cause
from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.catalog import ImageRecord
from transfer_platform.errors import DataError
from transfer_platform.loading import augmentation, canvas
from transfer_platform.loading.augmentation import BatchAugmentation, normalize_images
from transfer_platform.progress import Progress, Say, Step, silent
from transfer_platform.tensor_store.errors import StoreError
from transfer_platform.tensor_store.rows import Rows
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store

CHUNK = 64
"""Number of images decoded at a time; limits memory use."""


class ImageLoader:
    """Loads a study's images by index and preprocesses them for one network.

    Args:
        images: Images of the study.
        preprocessing: Preprocessing of the network.
        policy: Augmentation policy for `load_views`, or `none` if `load_views` is not called.
        device: Device on which batches are returned.
        store: Store for decoded images; if None, images are decoded on every use.
        say: Function called with a message if images cannot be stored, and before waiting for another process.
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

    def load(self, positions: Sequence[int]) -> Tensor:
        """Returns images preprocessed as in serving: normalized float32 (B, 3, S, S) on the device."""
        size = self.preprocessing.image_size
        pixels = self._squares.take(positions).view(-1, 3, size, size)
        return normalize_images(pixels.to(self.device), self.preprocessing)

    def load_views(self, positions: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """Returns one augmented view per image: normalized float32 (B, 3, S, S) on the device."""
        canvases, aspects = canvas.unpack(self._canvases.take(positions))
        return self._augmentation(canvases.to(self.device), aspects, seeds)

    @cached_property
    def view_digest(self) -> str:
        """Digest of the policy, canvas side, code and library versions, all of which affect the views."""
        return _code_digest(f"{self.policy}\0{self._canvas_side}", canvas, augmentation)[:16]

    @cached_property
    def _augmentation(self) -> BatchAugmentation:
        return BatchAugmentation(self.policy, self.preprocessing)

    @cached_property
    def _squares(self) -> Rows:
        return self._rows("square", 3 * self.preprocessing.image_size**2, self._decode_square)

    @cached_property
    def _canvases(self) -> Rows:
        side = self._canvas_side

        def decode_canvas(content: bytes, name: str) -> Tensor:
            return canvas.pack(*canvas.make_canvas(content, side, name, self.preprocessing.intensity))

        return self._rows(f"canvas {side}", canvas.row_bytes(side), decode_canvas)

    @cached_property
    def _canvas_side(self) -> int:
        longest = max(map(canvas.longest_side, (image.path for image in self.records)))
        return canvas.canvas_side(self.preprocessing.image_size, longest)

    def _decode_square(self, content: bytes, name: str) -> Tensor:
        pixels = np.array(self.preprocessing.load(content, name))
        return torch.from_numpy(pixels).permute(2, 0, 1).flatten()

    def _rows(self, kind: str, size: int, decode_row: Callable[[bytes, str], Tensor]) -> Rows:
        """Returns rows from the store, or rows that are decoded on each access if there is no usable store."""
        spec = RowSpec((size,), "uint8")
        decoding = _DecodingRows(self.records, spec, decode_row)
        if self._store is None:
            return decoding
        if not self._store.fits(spec, len(self.records)):
            needed = decimal(spec.row_bytes * len(self.records))
            self._say(
                f"images are decoded in every epoch: the cache has no room for {needed}; "
                "raise PLATFORM_CACHE_LIMIT or run `platform cache clear`"
            )
            return decoding
        address = preprocessing_digest(kind, self.preprocessing)
        waiting = partial(self._say, "waiting for another process that is decoding the same images")
        try:
            return self._store.get_or_compute(address, spec, self.digests, partial(self._decode, decoding), waiting)
        except StoreError as error:
            self._say(f"images are decoded in every epoch: {error}")
            return decoding

    def _decode(self, decoding: Rows, missing: Sequence[int]) -> Iterator[Tensor]:
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            yield decoding.take(chunk)
            self._progress(Step("decoding", start + len(chunk), len(missing), "images"))


class _DecodingRows:
    """Decodes rows on every use; uses threads, because Pillow releases the GIL while decoding.

    `decode_row` maps a file's content and its name (for error messages) to a row.
    """

    def __init__(
        self, images: Sequence[ImageRecord], spec: RowSpec, decode_row: Callable[[bytes, str], Tensor]
    ) -> None:
        self._images, self.spec, self._decode_row = images, spec, decode_row
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decoding")

    def __len__(self) -> int:
        return len(self._images)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns uint8 rows (B, bytes); each distinct image is decoded once.

        Raises:
            DataError: A file was modified or removed after the dataset was read.
        """
        positions = torch.as_tensor(indices).tolist()
        distinct = list(dict.fromkeys(positions))
        rows = dict(zip(distinct, self._pool.map(self._row, distinct), strict=True))
        return torch.stack([rows[position] for position in positions])

    def _row(self, position: int) -> Tensor:
        image = self._images[position]
        try:
            content = image.path.read_bytes()
        except OSError as error:
            raise DataError(f"{image.path} cannot be read: {cause(error)}") from error
        # Rows are stored under the digest of the original content.
        if hashlib.sha256(content).hexdigest() != image.sha256:
            raise DataError(f"{image.path} was modified while in use; run the command again")
        return self._decode_row(content, str(image.path))


def preprocessing_digest(kind: str, settings: Preprocessing) -> str:
    """Returns the SHA-256 of the settings, code and library versions that determine how images are decoded."""
    return _code_digest(f"{kind}\0{settings}", decode, formats, intensity, preprocessing, canvas)


def _code_digest(settings: str, *modules: ModuleType) -> str:
    versions = f"{formats.decoder_versions()}\0{torch.__version__}\0{torchvision.__version__}"
    digest = hashlib.sha256(f"{settings}\0{versions}\0".encode())
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
