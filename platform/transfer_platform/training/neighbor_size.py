"""Size of the features that a nearest-neighbor head stores."""

from rich.filesize import decimal

from transfer_platform.errors import TrainingError

MAX_BYTES = 1_000_000_000
"""Maximum size of the stored features: each prediction compares an image with all of them."""


def neighbor_bytes(images: int, features: int) -> int:
    """Returns the size of the stored features in bytes (float32)."""
    return 4 * images * features


def require_storable(images: int, features: int, backbone: object) -> None:
    """Checks the size of the stored features.

    Raises:
        TrainingError: The features need more than `MAX_BYTES`.
    """
    size = neighbor_bytes(images, features)
    if size > MAX_BYTES:
        raise TrainingError(
            f"head.kind: knn would store {features:,} features of {backbone} for each of {images:,} training images: "
            f"{decimal(size)}, but at most {decimal(MAX_BYTES)} are allowed; use head.kind: logistic or ridge, or a "
            "backbone with fewer features"
        )
