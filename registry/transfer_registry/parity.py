"""Parity rule: served predictions must match the candidate's own predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from transfer_registry.errors import RegistryError
from transfer_registry.verdict import Figure, RuleResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_registry.candidate import ServedOutput

PARITY_RULE = "serving parity"
TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 0.02, "float16": 0.02}
"""Largest allowed difference in any probability or out-of-distribution score, by precision of the served model."""
CLEAR_MARGIN = 0.04
"""A label must not change if the top two probabilities differ by more than this (twice the largest tolerance)."""


def parity(own: ServedOutput, served: ServedOutput, precision: str = "float32") -> RuleResult:
    """Compares the candidate's predictions with those returned by the registered model over HTTP.

    Args:
        own: Predictions of the candidate for N >= 1 test images and C >= 1 classes.
        served: Predictions of the registered model for the same images.
        precision: Precision of the registered model: float32, bfloat16 or float16.

    Returns:
        Result of the rule. It fails if the shapes differ, if a probability or out-of-distribution score differs by
        more than `TOLERANCE`, or if the `unknown` flags are not consistent with a single threshold. In bfloat16 and
        float16, it also fails if a label changes although the top two probabilities differ by more than `CLEAR_MARGIN`.

    Raises:
        RegistryError: The precision is not supported.
    """
    if precision not in TOLERANCE:
        raise RegistryError(f"no parity tolerance for {precision}; supported: {', '.join(TOLERANCE)}")
    expected, actual = own.probabilities.shape, served.probabilities.shape
    if expected != actual:
        reason = f"the registered model returned probabilities of shape {actual}, expected {expected}"
        return RuleResult(PARITY_RULE, False, True, reason)
    differences = _differences(own, served)
    changed = 0 if precision == "float32" else _clear_labels_changed(own.probabilities, served.probabilities)
    same_threshold = _same_threshold(own, served)
    # NaN differences fail this check
    close = all((values <= TOLERANCE[precision]).all() for values in differences.values())
    figures: dict[str, Figure] = {
        **{name: _finite(float(values.max())) for name, values in differences.items()},
        "tolerance": TOLERANCE[precision],
        "clear_labels_changed": changed,
        "images": len(own.probabilities),
        "precision": precision,
    }
    identical = np.array([one == other for one, other in zip(own.unknown, served.unknown, strict=True)])
    for values in differences.values():
        identical &= values == 0
    reason = f"{identical.sum()} of {len(identical)} images identical{_largest(differences, precision)}"
    if changed:
        reason += f"; labels that changed despite a clear margin: {changed}"
    if not same_threshold:
        reason += "; the `unknown` flags are not consistent with a single threshold"
    return RuleResult(PARITY_RULE, close and changed == 0 and same_threshold, True, reason, figures)


def _differences(own: ServedOutput, served: ServedOutput) -> dict[str, NDArray[np.float64]]:
    """Returns arrays (N,) with each image's largest difference in probability and, if available, in score."""
    differences = {"difference": _absolute(own.probabilities, served.probabilities).max(axis=1)}
    if not np.isnan(own.ood_scores).all():
        differences["difference_of_ood_score"] = _absolute(own.ood_scores, served.ood_scores)
    return differences


def _absolute(own: NDArray[np.float32], served: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.abs(own.astype(np.float64) - served.astype(np.float64))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _largest(differences: Mapping[str, NDArray[np.float64]], precision: str) -> str:
    if all((values == 0).all() for values in differences.values()):
        return ""
    names = {"difference": "probability", "difference_of_ood_score": "out-of-distribution score"}
    largest = ", ".join(f"{names[name]} {values.max():.2g}" for name, values in differences.items())
    return f"; largest differences: {largest} (allowed in {precision}: {TOLERANCE[precision]:g})"


def _same_threshold(own: ServedOutput, served: ServedOutput) -> bool:
    """Returns True if the `unknown` flags of both outputs are consistent with a single threshold."""
    if all(flag is None for flag in own.unknown):
        return True
    if None in served.unknown:
        return False
    scores = np.concatenate([own.ood_scores, served.ood_scores])
    unknown = np.array([*own.unknown, *served.unknown], dtype=bool)
    if unknown.all() or not unknown.any():
        return True
    return float(scores[~unknown].max()) < float(scores[unknown].min())


def _clear_labels_changed(own: NDArray[np.float32], served: NDArray[np.float32]) -> int:
    changed = own.argmax(axis=1) != served.argmax(axis=1)
    if own.shape[1] < 2:
        return 0
    top_two = np.sort(own, axis=1)[:, -2:]
    return int((changed & (top_two[:, 1] - top_two[:, 0] > CLEAR_MARGIN)).sum())
