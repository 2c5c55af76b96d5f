"""Names of published datasets, such as `torchvision:CIFAR10`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from transfer_platform.sources.torchvision_table import TABLE
from transfer_platform.suggest import did_you_mean

EMBEDDED, TORCHVISION, HUGGINGFACE = "embedded:", "torchvision:", "huggingface:"
NAMED_PREFIXES = (EMBEDDED, TORCHVISION, HUGGINGFACE)
"""Prefixes of `dataset.source` values that are neither paths nor URLs."""

TORCHVISION_DATASETS = tuple(TABLE)

_UNSUPPORTED: Mapping[str, str] = {
    "CLEVRClassification": "its test images have no labels",
    "EMNIST": "choose a variant (balanced, byclass, bymerge, digits, letters or mnist), for example EMNIST/balanced",
    "FER2013": "the download requires a login; download the dataset yourself, and use its image folder as the source",
    "INaturalist": "it is hundreds of gigabytes in size; unpack part of it and use the resulting folder as the source",
    "ImageNet": "the download requires a login; download the dataset yourself, and use its folder as the source",
    "LFWPeople": "it is no longer published",
    "Omniglot": "its two splits have no classes in common",
    "PCAM": "it requires h5py and is hosted on Google Drive; use a copy on the Hub (huggingface:OWNER/NAME)",
    "Places365": "it is hundreds of gigabytes in size; unpack part of it and use the resulting folder as the source",
    "StanfordCars": "it is no longer published; use a copy on the Hub (huggingface:OWNER/NAME)",
}
_LOCAL = re.compile(r"(\.{1,2}$|\.{1,2}/|/|~)")
_ON_HUB = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@:]+))?(@(?P<revision>[^@:]+))?")
_FORM = "huggingface:OWNER/NAME, optionally with :CONFIG, @REVISION and ?image=COLUMN&label=COLUMN&splits=A,B"


@dataclass(frozen=True, slots=True)
class HuggingFaceSource:
    """A parsed `huggingface:` source. If an attribute is empty, the default described below applies.

    Attributes:
        name: Dataset name on the Hub, or path to a local folder.
        local: Whether `name` is a path.
        config: Dataset configuration; by default, the only configuration.
        revision: Branch, tag or commit; defaults to the latest commit.
        image: Name of the image column; by default, the only column of type `Image`.
        label: Name of the label column; by default, the only column of type `ClassLabel`.
        splits: Names of the splits to use; by default, all splits.
    """

    name: str
    local: bool
    config: str = ""
    revision: str = ""
    image: str = ""
    label: str = ""
    splits: tuple[str, ...] = ()


def torchvision_problem(name: str) -> str:
    """Returns the reason `torchvision:NAME` is not supported, or an empty string if it is supported."""
    if name in TORCHVISION_DATASETS:
        return ""
    if reason := _UNSUPPORTED.get(name):
        return f"the torchvision dataset {name!r} is not supported: {reason}"
    suggestion = did_you_mean(name, (*TORCHVISION_DATASETS, *_UNSUPPORTED))
    available = f"; available: {', '.join(TORCHVISION_DATASETS)}"
    return f"unknown torchvision dataset {name!r}{suggestion or available}"


def huggingface_source(text: str) -> HuggingFaceSource:
    """Parses the part of a source after `huggingface:`.

    Raises:
        ValueError: The text is malformed; the message shows the expected format.

    >>> huggingface_source("ylecun/mnist:mnist@main").config
    'mnist'
    >>> huggingface_source("./photos?label=breed").label
    'breed'
    """
    name, _, options = text.partition("?")
    source = _parse_name(name)
    try:
        values = dict(parse_qsl(options, strict_parsing=True)) if options else {}
    except ValueError as error:
        raise ValueError(f"{options!r} does not have the form OPTION=VALUE; expected {_FORM}") from error
    for option in values:
        if option not in ("image", "label", "splits"):
            hint = did_you_mean(option, ("image", "label", "splits"))
            raise ValueError(f"unknown option {option!r}; expected {_FORM}{hint}")
    splits = tuple(values["splits"].split(",")) if "splits" in values else ()
    return replace(source, image=values.get("image", ""), label=values.get("label", ""), splits=splits)


def with_folder(source: str, rebase: Callable[[str], str]) -> str:
    """Applies `rebase` to the folder of a local `huggingface:` source; returns any other source unchanged."""
    name, question, options = source.removeprefix(HUGGINGFACE).partition("?")
    if not source.startswith(HUGGINGFACE) or not _LOCAL.match(name):
        return source
    return f"{HUGGINGFACE}{rebase(name)}{question}{options}"


def _parse_name(name: str) -> HuggingFaceSource:
    if _LOCAL.match(name):
        return HuggingFaceSource(name, local=True)
    parts = _ON_HUB.fullmatch(name)
    if parts is None:
        raise ValueError(f"{name!r} is not a dataset name; expected {_FORM}, or a folder path starting with ./ or /")
    return HuggingFaceSource(parts["name"], local=False, config=parts["config"] or "", revision=parts["revision"] or "")
