"""Rule that distinguishes a weights file from the name of published weights."""

import os

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def is_weights_file(weights: str) -> bool:
    """Returns whether `weights` is a path rather than the name of published weights, such as `IMAGENET1K_V2`."""
    return "/" in weights or os.sep in weights or weights.endswith(_SUFFIXES)
