"""`platform classify`: classifies photos with a backbone or a registered model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont
from torch import nn

from transfer_model import catalog
from transfer_model.decode import decode
from transfer_model.network import build_pretrained_classifier
from transfer_model.preprocessing import Preprocessing
from transfer_platform.errors import DataError, SourceError
from transfer_platform.progress import silent
from transfer_platform.sources.checksums import Checksum
from transfer_platform.sources.download import DownloadError, download, redact_url
from transfer_platform.sources.weights import fetch_weights
from transfer_registry.files import atomic_write, require_writable
from transfer_registry.serving.loaded_model import load_model


@dataclass(frozen=True)
class Classification:
    """The most probable classes of a photo.

    Attributes:
        photo: Path or URL.
        classes: Class names, most probable first.
        probabilities: Probability of each class, in the same order as `classes`.
    """

    photo: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def __str__(self) -> str:
        pairs = zip(self.classes, self.probabilities, strict=True)
        return f"{self.photo}: " + ", ".join(f"{name} {probability:.3f}" for name, probability in pairs)


def classify(
    photos: Sequence[str],
    *,
    backbone: str | None = None,
    model: str | None = None,
    top: int = 5,
    annotate: Path | None = None,
) -> Iterator[Classification]:
    """Classifies photos.

    Args:
        photos: Paths or http(s) URLs.
        backbone: Pretrained backbone, which predicts the classes it was pretrained on; mutually exclusive with `model`.
        model: Registered model.
        top: Number of classes to return per photo, most probable first.
        annotate: PNG file in which to save a copy of the photo with its classes drawn on it; requires a single photo.

    Yields:
        One classification per photo, in order.

    Raises:
        ModelError: The backbone is unknown, or a photo cannot be decoded.
        RegistryError: The model does not exist.
        SourceError: A photo or the weights cannot be downloaded.
    """
    if annotate:
        require_writable(annotate)
    if missing := [photo for photo in photos if "://" not in photo and not Path(photo).is_file()]:
        raise DataError(f"photo not found: {', '.join(missing)}")
    classifier = load_model(model) if model else PretrainedClassifier.load(str(backbone))
    for photo in photos:
        with _file(photo) as path:
            probabilities = classifier.predict_proba([path])[0]
            best = probabilities.argsort()[::-1][:top]
            names = tuple(classifier.classes[index] for index in best)
            result = Classification(photo, names, tuple(map(float, probabilities[best])))
            if annotate:
                annotate_image(result, path, annotate)
        yield result


@contextmanager
def _file(photo: str) -> Iterator[Path]:
    """Yields the local path of a photo. URLs are downloaded on every call, because their content may change."""
    if "://" not in photo:
        yield Path(photo)
        return
    if not photo.lower().startswith(("http://", "https://")):
        raise SourceError(
            f"{redact_url(photo)!r} cannot be downloaded: expected a URL that starts with http:// or https://"
        )
    with TemporaryDirectory() as folder:
        try:
            path = download(photo, Path(folder, "photo"), Checksum(""), silent)
        except DownloadError as error:
            raise SourceError(f"{redact_url(photo)} could not be downloaded: {error}") from error
        yield path


@dataclass(frozen=True)
class PretrainedClassifier:
    """A pretrained backbone with its original classification head."""

    classes: tuple[str, ...]
    network: nn.Module
    preprocessing: Preprocessing

    @classmethod
    def load(cls, backbone: str) -> Self:
        """Builds the backbone with its default weights, downloading them if needed."""
        weights = fetch_weights(backbone, "default", Path())
        if weights.path is None:
            raise DataError(f"backbone {backbone} has no pretrained weights and therefore no classes")
        network, classes = build_pretrained_classifier(backbone, weights.path)
        return cls(classes, network, catalog.backbone_info(backbone).preprocessing)

    @torch.inference_mode()
    def predict_proba(self, images: Sequence[Path]) -> NDArray[np.float32]:
        """Returns class probabilities (N, C)."""
        batch = torch.stack([self.preprocessing(decode(path)) for path in images])
        probabilities: NDArray[np.float32] = self.network(batch).softmax(dim=1).numpy()
        return probabilities


def annotate_image(result: Classification, photo: Path, out: Path) -> None:
    """Saves a PNG copy of a photo with its classification drawn on it."""
    from transfer_platform.evaluation.drawn_names import in_one_font  # imports Matplotlib

    image = decode(photo)
    height = max(12, image.height // 28)
    pairs = zip(result.classes, result.probabilities, strict=True)
    text, font_file = in_one_font([f"{name}  {probability:.1%}" for name, probability in pairs])
    pen = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.truetype(font_file, height)
    box = pen.multiline_textbbox((height, height), text, font=font)
    pen.rectangle(
        (box[0] - height // 2, box[1] - height // 2, box[2] + height // 2, box[3] + height // 2), (0, 0, 0, 160)
    )
    pen.multiline_text((height, height), text, "white", font=font)
    with atomic_write(out) as unfinished:
        image.save(unfinished, "PNG")
