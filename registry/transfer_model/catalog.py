"""Every backbone by name, with its stages and weights, known before any deep-learning library is imported.

Importing torch and timm takes seconds, and a plan needs only names and numbers. They stand in
`catalog.json`, made by `python -m transfer_model.build_catalog` from the versions that it names; with other
versions installed the same facts are asked of the libraries themselves.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .backbones import BUNDLED, LIBRARIES, TIMM, Backbone
from .errors import UnknownBackboneError
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = Path(__file__).with_name("catalog.json")


@dataclass(frozen=True)
class Stage:
    """One stage of a backbone.

    Attributes:
        name: As `freeze_through` takes it.
        parameters: How many it has; the first stage counts those that belong to none.
    """

    name: str
    parameters: int


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone without building it, at the image size that it was made for.

    Attributes:
        name: As it was asked for.
        library: `torchvision`, `timm`, or `bundled` for the one whose weights are installed.
        parameters: Of all stages; heads are not counted, a new one replaces them.
        features: How wide the input of a new head is: it will have (features + 1) x classes parameters.
        stages: From input to output.
        preprocessing: How images were prepared for the default weights.
        weights: Names of its pretrained weights, the default ones first; empty where there are none.
        preprocessings: By the names of the weights.
    """

    name: str
    library: str
    parameters: int
    features: int
    stages: tuple[Stage, ...]
    preprocessing: Preprocessing
    weights: tuple[str, ...]
    preprocessings: Mapping[str, Preprocessing] = field(default_factory=dict, repr=False)

    def preprocessing_for(self, weights: str) -> Preprocessing:
        """How images were prepared for the weights of this name; the default for any other name."""
        return self.preprocessings.get(weights, self.preprocessing)


def resolve(name: str) -> Backbone:
    """Finds the network that a name means.

    Args:
        name: `resnet18` (torchvision's before timm's), `timm/resnet18`, `torchvision/resnet18`, with timm's
            tag of its weights `resnet50.a1_in1k`, or `efficientnet_lite0`.

    Raises:
        UnknownBackboneError: No library knows it; the message lists the nearest names.
    """
    library, _, rest = name.rpartition("/")
    architecture, _, tag = rest.partition(".")
    for candidate in (library,) if library else LIBRARIES:
        backbone = Backbone(candidate, architecture, tag)
        if backbone.key in _keys() and (not tag or (candidate == TIMM and tag in _tags(backbone))):
            return backbone
    raise UnknownBackboneError(_unknown(name, library, architecture, tag))


def names(pattern: str = "*") -> tuple[str, ...]:
    """Lists backbones by the shortest names that mean them, sorted.

    Args:
        pattern: With the wildcards of a shell, `*b0` or `timm/vit*`; without one, a part of the name.
    """
    wanted = pattern if any(wildcard in pattern for wildcard in "*?[") else f"*{pattern}*"
    keys = _keys()
    return tuple(
        sorted(
            short
            for key, short in ((key, _shortest(key, keys)) for key in keys)
            if fnmatchcase(short, wanted) or fnmatchcase(key, wanted)
        )
    )


@lru_cache(maxsize=64)
def backbone_info(name: str) -> BackboneInfo:
    """Describes a backbone; from the shipped file where it fits the installed libraries, else from them.

    Raises:
        UnknownBackboneError: No library knows it.
        ModelError: Its library cannot build it.
    """
    backbone = resolve(name)
    shipped = _shipped()
    if shipped is not None and backbone.key in shipped["networks"]:
        return _read(name, backbone, shipped["networks"][backbone.key], shipped["normalisations"])
    from .build_catalog import describe_backbone

    return describe_backbone(backbone, name)


def shipped_info(name: str) -> BackboneInfo | None:
    """What the shipped file says of a backbone, whichever versions are installed; None if nothing."""
    backbone, content = resolve(name), _content()
    entry = content["networks"].get(backbone.key) if content else None
    return _read(name, backbone, entry, content["normalisations"]) if content and entry else None


def shipped_versions() -> dict[str, str]:
    """The versions of the libraries that the shipped file was made from; empty without one."""
    return dict((_content() or {}).get("made with", {}))


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that a catalogue depends on, without local parts such as `+cpu`."""
    return {library: version(library).partition("+")[0] for library in ("timm", "torchvision")}


def expand_stages(stages: Mapping[str, int | list[int]]) -> tuple[Stage, ...]:
    """Writes out numbered stages that a catalogue holds together: `blocks.0..6` is seven of them."""
    found: list[Stage] = []
    for name, parameters in stages.items():
        numbered = re.fullmatch(r"(.*?)(\d+)\.\.(\d+)", name)
        numbers = range(int(numbered[2]), int(numbered[3]) + 1) if numbered else range(1)
        sizes = parameters if isinstance(parameters, list) else [parameters] * len(numbers)
        found += [
            Stage(f"{numbered[1]}{number}" if numbered else name, size)
            for number, size in zip(numbers, sizes, strict=True)
        ]
    return tuple(found)


@lru_cache(maxsize=1)
def _content() -> dict[str, Any] | None:
    if not FILE.is_file():
        return None
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def _shipped() -> dict[str, Any] | None:
    """The file's content where it fits the installed libraries."""
    content = _content()
    return content if content and content["made with"] == library_versions() else None


@lru_cache(maxsize=1)
def _keys() -> frozenset[str]:
    shipped = _shipped()
    if shipped is not None:
        return frozenset([*shipped["networks"], *shipped["left out"]])
    from .backbones import installed

    return frozenset(backbone.key for backbone in installed())


def _tags(backbone: Backbone) -> tuple[str, ...]:
    shipped = _shipped()
    if shipped is not None:
        return tuple(shipped["networks"].get(backbone.key, {}).get("weights", ()))
    from .backbones import preprocessings

    return tuple(preprocessings(Backbone(backbone.library, backbone.architecture)))


def _shortest(key: str, keys: frozenset[str]) -> str:
    library, _, architecture = key.rpartition("/")
    earlier = LIBRARIES[: LIBRARIES.index(library or BUNDLED)]
    shadowed = any(Backbone(other, architecture).key in keys for other in earlier)
    return key if shadowed else architecture


def _unknown(name: str, library: str, architecture: str, tag: str) -> str:
    if library and library not in LIBRARIES:
        return f"no library {library!r} is known, of the backbone {name!r}; there are torchvision/ and timm/"
    tagged = Backbone(TIMM, architecture)
    if tag and library in ("", TIMM) and tagged.key in _keys():
        return f"{tagged.key} has no weights {tag!r}; it has {', '.join(_tags(tagged)) or 'none'}"
    nearest = difflib.get_close_matches(architecture, {key.rpartition("/")[2] for key in _keys()}, n=5)
    hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
    return f"no library knows a backbone {name!r}{hint}; `platform backbones` lists them all"


def _read(
    name: str, backbone: Backbone, entry: dict[str, Any], normalisations: dict[str, Any]
) -> BackboneInfo:
    stages = expand_stages(entry["stages"])
    prepared = {
        weights: Preprocessing(size, crop, interpolation, *map(tuple, normalisations[normalisation]))
        for weights, (size, crop, interpolation, normalisation) in entry["weights"].items()
    }
    if backbone.tag:
        prepared = {backbone.tag: prepared[backbone.tag]}
    return BackboneInfo(
        name=name,
        library=backbone.library,
        parameters=sum(stage.parameters for stage in stages),
        features=entry["features"],
        stages=stages,
        preprocessing=next(iter(prepared.values())),
        weights=tuple(weights for weights in prepared if weights),
        preprocessings=prepared,
    )
