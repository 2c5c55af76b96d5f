"""Finds a network's tensors in a checkpoint, even if they are nested or prefixed."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from .checkpoint import StateDict

_AVERAGED = re.compile(r"(?:^|[._])(?:ema|teacher)(?:[._]|$)")
"""Matches the name of an averaged copy of the weights, which is preferred over the latest weights."""

_COMPLETE = 0.5
"""If the best candidate has more than this share of a network's tensor names, no other candidates are returned."""


@dataclass(frozen=True)
class WeightCandidate:
    """Tensors that may belong to a network.

    Attributes:
        path: Path of the state dict in the checkpoint, such as `model_ema`; empty for the file itself.
        prefix: Prefix that was removed from the names, such as `module.backbone.`; may be empty.
        tensors: Tensors with that prefix, keyed by the rest of their names.
        unused: Names of the other tensors in the state dict.
        versions: Format version of each module, as in `StateDict`.
    """

    path: str
    prefix: str
    tensors: OrderedDict[str, Tensor]
    unused: tuple[str, ...]
    versions: Mapping[str, int] | None = None


def find_candidates(state_dicts: Iterable[StateDict], expected: Mapping[str, tuple[int, ...]]) -> list[WeightCandidate]:
    """Returns sets of tensors that may belong to a network, best match first.

    The best match has the largest number of expected names. Ties are resolved by the number of expected shapes, then
    in favor of averaged copies (EMA, teacher), then by position in the file. If the best match has too few names (an
    older version of the library may use other names), large parts of the largest state dicts are also returned.

    Args:
        state_dicts: All state dicts of a file.
        expected: Shapes of the network's tensors, excluding those of its heads, keyed by name.
    """
    ranked = []
    for state_dict in state_dicts:
        for prefix, matches in _matches(state_dict.tensors, expected).items():
            shapes = sum(tuple(state_dict.tensors[prefix + name].shape) == expected[name] for name in matches)
            averaged = bool(_AVERAGED.search(f"{state_dict.path}.{prefix}"))
            ranked.append(((len(matches), shapes, averaged), state_dict, prefix))
    ranked.sort(key=lambda entry: entry[0], reverse=True)
    best = [_candidate(state_dict, prefix) for _, state_dict, prefix in ranked[:1]]
    if ranked and ranked[0][0][0] > _COMPLETE * len(expected):
        return best
    return best + [_candidate(each, prefix) for each in _largest_first(state_dicts) for prefix in _large_parts(each)]


def _matches(tensors: Iterable[str], expected: Mapping[str, object]) -> dict[str, list[str]]:
    """Returns the expected names that were found after each prefix, keyed by prefix."""
    found: dict[str, list[str]] = {}
    for full in tensors:
        for prefix in _prefixes(full):
            if full[len(prefix) :] in expected:
                found.setdefault(prefix, []).append(full[len(prefix) :])
    return found


def _prefixes(name: str) -> Iterator[str]:
    """Yields the empty prefix and all dotted prefixes of a name, shortest first: "", "a." and "a.b." for `a.b.c`."""
    yield ""
    yield from accumulate(f"{part}." for part in name.split(".")[:-1])


def _candidate(state_dict: StateDict, prefix: str) -> WeightCandidate:
    inside = OrderedDict(
        (name[len(prefix) :], tensor) for name, tensor in state_dict.tensors.items() if name.startswith(prefix)
    )
    unused = tuple(name for name in state_dict.tensors if not name.startswith(prefix))
    versions = state_dict.versions
    if versions is not None:
        versions = {
            _module_below(name, prefix): version for name, version in versions.items() if _is_below(name, prefix)
        }
    return WeightCandidate(state_dict.path, prefix, inside, unused, versions)


def _is_below(module: str, prefix: str) -> bool:
    return f"{module}.".startswith(prefix)


def _module_below(module: str, prefix: str) -> str:
    return f"{module}."[len(prefix) :].removesuffix(".")


def _largest_first(state_dicts: Iterable[StateDict]) -> list[StateDict]:
    return sorted(state_dicts, key=lambda each: (len(each.tensors), bool(_AVERAGED.search(each.path))), reverse=True)[
        :2
    ]


def _large_parts(state_dict: StateDict) -> Iterator[str]:
    """Yields the longest prefix that all names share, and the longest one that most names share."""
    counts = Counter(prefix for name in state_dict.tensors for prefix in _prefixes(name))
    total = len(state_dict.tensors)
    yield from dict.fromkeys(
        max((prefix for prefix, count in counts.items() if count >= least), key=len)
        for least in (total, total // 2 + 1)
    )
