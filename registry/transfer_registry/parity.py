"""Parity: the registered model, as it is served to strangers, must answer what the candidate answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from transfer_registry.errors import RegistryError
from transfer_registry.verdict import Figure, RuleResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from transfer_registry.candidate import ServedOutput

PARITY_RULE = "parity"
TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 0.02, "float16": 0.02}
"""Largest difference of any probability or novelty, by the precision that the model is served in."""
CLEAR_MARGIN = 0.04
"""Twice the tolerance of half precision: top two classes further apart than this must not change places."""


def parity(own: ServedOutput, served: ServedOutput, precision: str = "float32") -> RuleResult:
    """Compares what the candidate answers with what its registered form does.

    Args:
        own: The candidate's, on N test images and C classes, N and C at least 1.
        served: The registered model's, over HTTP, on the same images.
        precision: What the model computes in: float32, bfloat16 or float16.

    Returns:
        Failed where the shapes differ, a probability or a novelty differs by more than `TOLERANCE`, no
        threshold of novelty explains what both call unknown, or, in half precision, a label differs although
        its probability was more than `CLEAR_MARGIN` above the next.

    Raises:
        RegistryError: The precision is none of these.
    """
    if precision not in TOLERANCE:
        raise RegistryError(f"no parity is defined for {precision}; there is {', '.join(TOLERANCE)}")
    shapes = own.probabilities.shape, served.probabilities.shape
    if shapes[0] != shapes[1]:
        reason = f"the registered model answers {shapes[1]} probabilities where {shapes[0]} were expected"
        return RuleResult(PARITY_RULE, False, True, reason)
    differences = {"probability": _difference(own.probabilities, served.probabilities)}
    if not np.isnan(own.ood_scores).all():
        differences["ood_score"] = _difference(own.ood_scores, served.ood_scores)
    swapped = 0 if precision == "float32" else _clear_labels_changed(own.probabilities, served.probabilities)
    agreed = _one_threshold(own, served)
    # written so that a NaN difference fails
    close = all(difference <= TOLERANCE[precision] for difference in differences.values())
    figures: dict[str, Figure] = {
        **{
            "difference" if what == "probability" else f"difference_of_{what}": value
            if np.isfinite(value)
            else None
            for what, value in differences.items()
        },
        "tolerance": TOLERANCE[precision],
        "clear_labels_changed": swapped,
        "images": len(own.probabilities),
        "precision": precision,
    }
    said = " and ".join(f"{value:.2g} in any {what}" for what, value in differences.items())
    reason = (
        f"served by `mlflow models serve` without the project, it differs by at most {said} "
        f"of {len(own.probabilities)} images ({TOLERANCE[precision]:g} allowed in {precision})"
    )
    changed = f"; {swapped} labels changed that were not close" if swapped else ""
    strange = "" if agreed else "; it calls other images unknown"
    return RuleResult(
        PARITY_RULE, close and swapped == 0 and agreed, True, reason + changed + strange, figures
    )


def _difference(own: NDArray[np.float32], served: NDArray[np.float32]) -> float:
    return float(np.abs(own.astype(np.float64) - served.astype(np.float64)).max())


def _one_threshold(own: ServedOutput, served: ServedOutput) -> bool:
    """Whether one threshold of novelty explains what both call unknown."""
    told = [flag for flag in own.unknown if flag is not None]
    if not told:
        return True
    if None in served.unknown:
        return False
    novelty = np.concatenate([own.ood_scores, served.ood_scores])
    unknown = np.array([*own.unknown, *served.unknown], dtype=bool)
    if unknown.all() or not unknown.any():
        return True
    return float(novelty[~unknown].max()) < float(novelty[unknown].min())


def _clear_labels_changed(own: NDArray[np.float32], served: NDArray[np.float32]) -> int:
    changed = own.argmax(axis=1) != served.argmax(axis=1)
    if own.shape[1] < 2:
        return 0
    top_two = np.sort(own, axis=1)[:, -2:]
    return int((changed & (top_two[:, 1] - top_two[:, 0] > CLEAR_MARGIN)).sum())
