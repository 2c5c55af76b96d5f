"""Names of published datasets, such as `torchvision:CIFAR10`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from transfer_platform.sources.torchvision_table import TABLE
from transfer_platform.suggest import did_you_mean

EMBEDDED, TORCHVISION, HUGGINGFACE = "embedded:", "torchvision:", "huggingface:"
NAMED_PREFIXES = (EMBEDDED, TORCHVISION, HUGGINGFACE)
"""Prefixes of a `dataset.source` that is neither a path nor a URL."""

TORCHVISION_DATASETS = tuple(TABLE)

_UNSUPPORTED: Mapping[str, str] = {
    "CLEVRClassification": "its test images have no labels",
    "EMNIST": "choose a variant: EMNIST/balanced, byclass, bymerge, digits, letters or mnist",
    "FER2013": "it requires a login; unpack its images and use their folder as the source",
    "INaturalist": "it has hundreds of gigabytes; unpack a part of it and use that folder as the source",
    "ImageNet": "it requires a login; unpack it and use its folder as the source",
    "LFWPeople": "it is no longer published",
    "Omniglot": "its two splits have no common class",
    "PCAM": "it needs h5py and is stored on Google Drive; use a copy from huggingface:",
    "Places365": "it has hundreds of gigabytes; unpack a part of it and use that folder as the source",
    "StanfordCars": "it is no longer published; use a copy from huggingface:",
}
_LOCAL = re.compile(r"(\.{1,2}$|\.{1,2}/|/|~)")
_ON_HUB = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@:]+))?(@(?P<revision>[^@:]+))?")
_FORM = "huggingface:OWNER/NAME, with :CONFIG, @REVISION and ?image=COLUMN&label=COLUMN&splits=A,B as needed"


@dataclass(frozen=True, slots=True)
class HuggingFaceSource:
    """A parsed `huggingface:` source. Empty attributes stand for the defaults.

    Attributes:
        name: Name of a dataset on the Hub, or path of a local folder.
        local: Whether `name` is a path.
        config: By default the only configuration.
        revision: Branch, tag or commit; by default the newest.
        image: Column of the images; by default the only image column.
        label: Column of the classes; by default the only class column.
        splits: By default all.
    """

    name: str
    local: bool
    config: str = ""
    revision: str = ""
    image: str = ""
    label: str = ""
    splits: tuple[str, ...] = ()


def torchvision_problem(name: str) -> str:
    """Returns the reason why `torchvision:NAME` is not available, empty if it is."""
    if name in TORCHVISION_DATASETS:
        return ""
    if reason := _UNSUPPORTED.get(name):
        return f"the torchvision dataset {name!r} is not supported: {reason}"
    suggestion = did_you_mean(name, (*TORCHVISION_DATASETS, *_UNSUPPORTED))
    available = f"; available: {', '.join(TORCHVISION_DATASETS)}"
    return f"there is no supported torchvision dataset {name!r}{suggestion or available}"


def huggingface_source(text: str) -> HuggingFaceSource:
    """Parses the part of a source after `huggingface:`.

    Raises:
        ValueError: The text has a different form; the message shows the expected one.

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
        raise ValueError(f"{options!r} is not an option with a value; expected {_FORM}") from error
    for option in values:
        if option not in ("image", "label", "splits"):
            hint = did_you_mean(option, ("image", "label", "splits"))
            raise ValueError(f"there is no option {option!r}; expected {_FORM}{hint}")
    splits = tuple(values["splits"].split(",")) if "splits" in values else ()
    return replace(source, image=values.get("image", ""), label=values.get("label", ""), splits=splits)


def with_folder(source: str, rebase: Callable[[str], str]) -> str:
    """Applies a function to the local folder of a `huggingface:` source; returns others unchanged."""
    name, question, options = source.removeprefix(HUGGINGFACE).partition("?")
    if not source.startswith(HUGGINGFACE) or not _LOCAL.match(name):
        return source
    return f"{HUGGINGFACE}{rebase(name)}{question}{options}"


def _parse_name(name: str) -> HuggingFaceSource:
    if _LOCAL.match(name):
        return HuggingFaceSource(name, local=True)
    parts = _ON_HUB.fullmatch(name)
    if parts is None:
        raise ValueError(f"{name!r} is not a dataset name; expected {_FORM}, or a folder that starts with ./ or /")
    return HuggingFaceSource(parts["name"], local=False, config=parts["config"] or "", revision=parts["revision"] or "")
