"""Catalog of all backbones with their stages and weights; does not import torch.

Importing torch and timm takes seconds, so names, stages and parameter counts are stored in `catalog.json`.
`python -m transfer_model.build_catalog` generates this file for the installed versions of timm and torchvision. If the
file was generated for other versions, the libraries are queried instead.
"""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .architecture import Architecture
from .backbones import BUNDLED, LIBRARIES, TIMM, Backbone, installed_backbones, preprocessings
from .errors import UnknownBackboneError
from .preprocessing import Preprocessing

FILE = Path(__file__).with_name("catalog.json")


@dataclass(frozen=True)
class Stage:
    """Stage of a backbone; parameters that belong to no stage are counted in the first stage."""

    name: str
    parameters: int


@dataclass(frozen=True)
class BackboneInfo:
    """Description of a backbone at its default image size.

    Attributes:
        architecture: Architecture as passed to `backbone_info`.
        library: `torchvision`, `timm`, `bundled` or `builtin`.
        features: Number of inputs of a new head; the head has (features + 1) x classes parameters.
        stages: Stages from input to output.
        preprocessings: Preprocessing for each weights name, default first; the only key is "" if there are no weights.
    """

    architecture: Architecture
    library: str
    features: int
    stages: tuple[Stage, ...]
    preprocessings: Mapping[str, Preprocessing]

    @property
    def name(self) -> str:
        """Name and options, as shown to users."""
        return str(self.architecture)

    @property
    def parameters(self) -> int:
        """Total number of parameters in all stages, excluding the head."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the pretrained weights, default first; empty if there are none."""
        return tuple(filter(None, self.preprocessings))

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing for the default weights."""
        return next(iter(self.preprocessings.values()))

    def preprocessing_for(self, weights: str) -> Preprocessing:
        """Returns the preprocessing for the given weights, or the default preprocessing if `weights` is unknown."""
        return self.preprocessings.get(weights, self.preprocessing)


def resolve(architecture: Architecture | str) -> Backbone:
    """Finds the backbone with the given name and validates its options.

    Args:
        architecture: Names are, for example, `resnet18` (torchvision takes precedence over timm), `timm/resnet18`,
            `torchvision/resnet18`, `resnet50.a1_in1k` (with a timm weights tag), or `efficientnet_lite0`.

    Raises:
        UnknownBackboneError: No library provides this backbone; the message suggests similar names.
        BackboneOptionError: An option is unknown or has an invalid value; the message lists valid options or values.
    """
    wanted = Architecture.of(architecture)
    backbone = _find(wanted.name)
    return backbone.with_options(wanted.options)


def _find(name: str) -> Backbone:
    library, _, rest = name.rpartition("/")
    architecture, _, tag = rest.partition(".")
    for candidate in (library,) if library else LIBRARIES:
        backbone = Backbone(candidate, architecture, tag)
        if backbone.key in _keys() and (not tag or (candidate == TIMM and tag in _tags(backbone))):
            return backbone
    raise UnknownBackboneError(_unknown_backbone(name, library, architecture, tag))


def names(pattern: str = "*") -> tuple[str, ...]:
    """Returns the sorted names of all matching backbones, each in its shortest unambiguous form.

    `pattern` is a shell-style pattern, such as `*b0` or `timm/vit*`, or a substring of the name.
    """
    glob = pattern if any(wildcard in pattern for wildcard in "*?[") else f"*{pattern}*"
    shortest = {key: _shortest_name(key) for key in _keys()}
    return tuple(sorted(name for key, name in shortest.items() if fnmatchcase(name, glob) or fnmatchcase(key, glob)))


def similar_names(name: str) -> str:
    """Returns a hint that lists up to 5 architectures with similar names, or "" if there are none."""
    nearest = difflib.get_close_matches(name.rpartition("/")[2], {key.rpartition("/")[2] for key in _keys()}, n=5)
    return f"; similar names: {', '.join(nearest)}" if nearest else ""


@lru_cache(maxsize=64)
def backbone_info(architecture: Architecture | str) -> BackboneInfo:
    """Describes a backbone; reads `catalog.json` if it was generated for the installed library versions.

    Raises:
        UnknownBackboneError: No library provides this backbone.
        BackboneOptionError: An option is unknown or invalid.
        ModelError: The library cannot build the backbone.
    """
    wanted, backbone = Architecture.of(architecture), resolve(architecture)
    return _read_entry(wanted, backbone, _matching_content()) or describe_backbone(backbone, wanted)


def describe_backbone(backbone: Backbone, architecture: Architecture | str) -> BackboneInfo:
    """Describes a backbone by querying its library.

    Raises:
        ModelError: The library cannot build the backbone.
    """
    from .structure import find_structure

    prepared = preprocessings(backbone)
    structure = find_structure(backbone, next(iter(prepared.values())).image_size)
    stages = tuple(map(Stage, structure.stages, structure.sizes))
    return BackboneInfo(Architecture.of(architecture), backbone.library, structure.features, stages, prepared)


def shipped_info(name: str) -> BackboneInfo | None:
    """Describes a backbone from `catalog.json`, ignoring library versions; returns None if the file has no entry."""
    return _read_entry(Architecture(name), resolve(name), _content())


def shipped_versions() -> dict[str, str]:
    """Returns the library versions for which `catalog.json` was generated; empty if the file does not exist."""
    return dict((_content() or {}).get("made with", {}))


def library_versions() -> dict[str, str]:
    """Returns the installed versions of timm and torchvision, without local suffixes such as `+cpu`."""
    return {library: version(library).partition("+")[0] for library in ("timm", "torchvision")}


def expand_stages(stages: Mapping[str, int | list[int]]) -> tuple[Stage, ...]:
    """Expands ranges of numbered stages: `blocks.0..6` becomes seven stages."""
    expanded: list[Stage] = []
    for name, parameters in stages.items():
        numbered = re.fullmatch(r"(.*?)(\d+)\.\.(\d+)", name)
        numbers = range(int(numbered[2]), int(numbered[3]) + 1) if numbered else range(1)
        sizes = parameters if isinstance(parameters, list) else [parameters] * len(numbers)
        expanded += [
            Stage(f"{numbered[1]}{number}" if numbered else name, size)
            for number, size in zip(numbers, sizes, strict=True)
        ]
    return tuple(expanded)


@lru_cache(maxsize=1)
def _content() -> dict[str, Any] | None:
    if not FILE.is_file():
        return None
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def _matching_content() -> dict[str, Any] | None:
    content = _content()
    return content if content and content["made with"] == library_versions() else None


@lru_cache(maxsize=1)
def _keys() -> frozenset[str]:
    content = _matching_content()
    if content is not None:
        return frozenset([*content["networks"], *content["left out"]])
    return frozenset(backbone.key for backbone in installed_backbones())


def _tags(backbone: Backbone) -> tuple[str, ...]:
    content = _matching_content()
    if content is not None:
        return tuple(content["networks"].get(backbone.key, {}).get("weights", ()))
    return tuple(preprocessings(Backbone(backbone.library, backbone.architecture)))


def _shortest_name(key: str) -> str:
    library, _, architecture = key.rpartition("/")
    earlier = LIBRARIES[: LIBRARIES.index(library or BUNDLED)]
    shadowed = any(Backbone(other, architecture).key in _keys() for other in earlier)
    return key if shadowed else architecture


def _unknown_backbone(name: str, library: str, architecture: str, tag: str) -> str:
    if library and library not in LIBRARIES:
        return f"unknown library {library!r} in the backbone name {name!r}; expected builtin/, torchvision/ or timm/"
    tagged = Backbone(TIMM, architecture)
    if tag and library in ("", TIMM) and tagged.key in _keys():
        return f"{tagged.key} has no weights {tag!r}; available weights: {', '.join(_tags(tagged)) or 'none'}"
    return f"unknown backbone {name!r}{similar_names(architecture)}; run `platform backbones` to list all backbones"


def _read_entry(architecture: Architecture, backbone: Backbone, content: dict[str, Any] | None) -> BackboneInfo | None:
    if content is None or backbone.options or backbone.key not in content["networks"]:
        return None
    entry = content["networks"][backbone.key]
    prepared = {
        weights: Preprocessing(size, crop, interpolation, *map(tuple, content["normalizations"][label]))
        for weights, (size, crop, interpolation, label) in entry["weights"].items()
    }
    if backbone.tag:
        prepared = {backbone.tag: prepared[backbone.tag]}
    return BackboneInfo(architecture, backbone.library, entry["features"], expand_stages(entry["stages"]), prepared)
