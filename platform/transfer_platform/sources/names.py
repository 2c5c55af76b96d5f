"""Data sets that others publish and a recipe names: `torchvision:CIFAR10`, `huggingface:uoft-cs/cifar100`.

Only what can be said without their libraries; anybody may import this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from transfer_platform.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EMBEDDED, TORCHVISION, HUGGINGFACE = "embedded:", "torchvision:", "huggingface:"
NAMED_PREFIXES = (EMBEDDED, TORCHVISION, HUGGINGFACE)
"""How a `dataset.source` begins that is neither a path nor a URL."""

TORCHVISION_DATASETS = (
    "CIFAR10",
    "CIFAR100",
    "Caltech101",
    "Caltech256",
    "Country211",
    "DTD",
    "EMNIST/balanced",
    "EMNIST/byclass",
    "EMNIST/bymerge",
    "EMNIST/digits",
    "EMNIST/letters",
    "EMNIST/mnist",
    "EuroSAT",
    "FGVCAircraft",
    "FGVCAircraft/family",
    "FGVCAircraft/manufacturer",
    "FashionMNIST",
    "Flowers102",
    "Food101",
    "GTSRB",
    "Imagenette",
    "Imagenette/160px",
    "Imagenette/320px",
    "KMNIST",
    "MNIST",
    "OxfordIIITPet",
    "QMNIST",
    "RenderedSST2",
    "SEMEION",
    "STL10",
    "SUN397",
    "SVHN",
    "USPS",
)
"""Those that `data/torchvision_table.py` has: torchvision's class, and behind a slash its variant."""

_LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "CLEVRClassification": "its test images have no labels",
        "EMNIST": "say which: EMNIST/balanced, byclass, bymerge, digits, letters or mnist",
        "FER2013": "it lies behind a login; unpack its images and name their folder",
        "INaturalist": "it has hundreds of gigabytes; unpack a part of it and name the folder",
        "ImageNet": "it lies behind a login; unpack it and name the folder",
        "LFWPeople": "it is not published any more",
        "Omniglot": "its two parts have no class in common",
        "PCAM": "it needs h5py and lies on Google Drive; huggingface: has copies of it",
        "Places365": "it has hundreds of gigabytes; unpack a part of it and name the folder",
        "StanfordCars": "it is not published any more; huggingface: has copies of it",
    }
)
_LOCAL = re.compile(r"(\.{1,2}$|\.{1,2}/|/|~)")
_ON_HUB = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@:]+))?(@(?P<revision>[^@:]+))?")
_FORM = "huggingface:OWNER/NAME, with :CONFIG, @REVISION and ?image=COLUMN&label=COLUMN&splits=A,B as needed"


@dataclass(frozen=True, slots=True)
class HuggingFaceSource:
    """What stands behind `huggingface:`.

    Attributes:
        name: Of a data set on the Hub, or a local folder.
        local: Which of the two.
        config: One of its configurations; empty: its only one.
        revision: A branch, tag or commit; empty: the newest.
        image: The column with the images; empty: the only one of that kind.
        label: The column with the classes; likewise.
        splits: Those to read; empty: all.
    """

    name: str
    local: bool
    config: str = ""
    revision: str = ""
    image: str = ""
    label: str = ""
    splits: tuple[str, ...] = ()


def torchvision_problem(name: str) -> str:
    """Why there is no `torchvision:NAME`, or nothing."""
    if name in TORCHVISION_DATASETS:
        return ""
    if reason := _LEFT_OUT.get(name):
        return f"torchvision's {name} cannot be read: {reason}"
    hint = (
        did_you_mean(name, (*TORCHVISION_DATASETS, *_LEFT_OUT))
        or f"; there is {', '.join(TORCHVISION_DATASETS)}"
    )
    return f"no data set {name!r} of torchvision can be read{hint}"


def huggingface_source(text: str) -> HuggingFaceSource:
    """Takes apart what stands behind `huggingface:`.

    Raises:
        ValueError: It is not of the form; the message says what is.

    >>> huggingface_source("ylecun/mnist:mnist@main").config
    'mnist'
    >>> huggingface_source("./photos?label=breed").label
    'breed'
    """
    name, _, options = text.partition("?")
    source = _named(name)
    if not options:
        return source
    try:
        chosen = dict(parse_qsl(options, strict_parsing=True))
    except ValueError as error:
        raise ValueError(f"{options!r} chooses nothing; expected {_FORM}") from error
    for option in chosen:
        if option not in ("image", "label", "splits"):
            hint = did_you_mean(option, ("image", "label", "splits"))
            raise ValueError(f"{option!r} cannot be chosen; expected {_FORM}{hint}")
    splits = tuple(chosen["splits"].split(",")) if "splits" in chosen else ()
    return replace(source, image=chosen.get("image", ""), label=chosen.get("label", ""), splits=splits)


def with_folder(source: str, moved: Callable[[str], str]) -> str:
    """The same `dataset.source`, with another folder where it names one behind `huggingface:`."""
    name, question, options = source.removeprefix(HUGGINGFACE).partition("?")
    if not source.startswith(HUGGINGFACE) or not _LOCAL.match(name):
        return source
    return f"{HUGGINGFACE}{moved(name)}{question}{options}"


def _named(name: str) -> HuggingFaceSource:
    if _LOCAL.match(name):
        return HuggingFaceSource(name, local=True)
    parts = _ON_HUB.fullmatch(name)
    if parts is None:
        raise ValueError(
            f"{name!r} names no data set; expected {_FORM}, or a folder that starts with ./ or /"
        )
    return HuggingFaceSource(
        parts["name"], local=False, config=parts["config"] or "", revision=parts["revision"] or ""
    )
