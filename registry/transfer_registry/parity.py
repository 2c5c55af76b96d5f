"""Parity: the registered model, as it is served to strangers, must answer what the candidate answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.errors import RegistryError
from transfer_registry.verdict import Figure, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

RULE = "parity"
TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 0.02, "float16": 0.02}
"""Largest difference of any probability, by the precision that the model is served in."""
CLEAR_MARGIN = 0.04
"""Twice the tolerance of half precision: top two classes further apart than this must not change places."""


def parity(own: NDArray[np.float32], served: NDArray[np.float32], precision: str = "float32") -> Finding:
    """Compares the candidate's probabilities with those that its registered form gives.

    Args:
        own: The candidate's, on the test images (N, C), N and C at least 1.
        served: The registered model's, over HTTP, on the same images (N, C).
        precision: What the model computes in: float32, bfloat16 or float16.

    Returns:
        Failed where the shapes differ, a probability differs by more than `TOLERANCE`, or, in half
        precision, a label differs although its probability was more than `CLEAR_MARGIN` above the next.

    Raises:
        RegistryError: The precision is none of these.
    """
    if precision not in TOLERANCE:
        raise RegistryError(f"no parity is defined for {precision}; there is {', '.join(TOLERANCE)}")
    if own.shape != served.shape:
        reason = f"the registered model answers {served.shape} probabilities where {own.shape} were expected"
        return Finding(RULE, False, True, reason)
    difference = float(np.abs(own.astype(np.float64) - served.astype(np.float64)).max())
    swapped = 0 if precision == "float32" else _clear_labels_changed(own, served)
    # written so that a NaN difference fails
    passed = difference <= TOLERANCE[precision] and swapped == 0
    figures: dict[str, Figure] = {
        "difference": difference if np.isfinite(difference) else None,
        "tolerance": TOLERANCE[precision],
        "clear_labels_changed": swapped,
        "images": len(own),
        "precision": precision,
    }
    reason = (
        f"served by `mlflow models serve` without the project, it differs by at most {difference:.2g} in any "
        f"probability of {len(own)} images ({TOLERANCE[precision]:g} allowed in {precision})"
    )
    changed = f"; {swapped} labels changed that were not close" if swapped else ""
    return Finding(RULE, passed, True, reason + changed, figures)


def _clear_labels_changed(own: NDArray[np.float32], served: NDArray[np.float32]) -> int:
    changed = own.argmax(axis=1) != served.argmax(axis=1)
    if own.shape[1] < 2:
        return 0
    top_two = np.sort(own, axis=1)[:, -2:]
    return int((changed & (top_two[:, 1] - top_two[:, 0] > CLEAR_MARGIN)).sum())
