"""What a recipe points at: data sources, weights files, backbones and their stages. Nothing is fetched."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from transfer_model.errors import ModelError, UnknownStageError
from transfer_model.stages import count_through
from transfer_platform.recipe.compose import absolute, is_local, is_weights_file
from transfer_platform.recipe.messages import FieldError
from transfer_platform.recipe.schema import EMBEDDED_DATASETS
from transfer_platform.sources.names import NAMED_PREFIXES, huggingface_source, torchvision_problem
from transfer_platform.suggest import closest_match, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from transfer_model.catalog import BackboneInfo
    from transfer_platform.recipe.sound import ValidFields
    from transfer_platform.recipe.tree import Path

_SOURCE = ("dataset", "source")
_WEIGHTS = ("backbone", "weights")


def reference_errors(said: ValidFields, folder: FilePath) -> Iterator[FieldError]:
    """Everything that a recipe points at and that is not there, as far as its fields are sound.

    Args:
        said: The recipe.
        folder: What its relative paths are relative to.
    """
    if source := said.get("dataset.source"):
        yield from _source(source, folder, checksum=bool(said.get("dataset.sha256")))
    if (weights := said.get("backbone.weights")) and is_weights_file(weights):
        yield from _file(_WEIGHTS, weights, folder, "weights file")
    yield from _backbones(said)


def _source(source: str, folder: FilePath, *, checksum: bool) -> Iterator[FieldError]:
    scheme, separator, _ = source.partition("://")
    if separator and scheme not in ("http", "https"):
        yield FieldError(_SOURCE, f"only http:// and https:// can be fetched, but got {scheme}://")
    if source.startswith(NAMED_PREFIXES):
        yield from _published(source, folder)
    elif is_local(source):
        yield from _file(_SOURCE, source, folder, "folder, archive or manifest")
    if checksum and (
        source.startswith(NAMED_PREFIXES) or (is_local(source) and absolute(source, folder).is_dir())
    ):
        yield FieldError(
            ("dataset", "sha256"), "only an archive or manifest has a checksum; leave it out for a folder"
        )


def _published(source: str, folder: FilePath) -> Iterator[FieldError]:
    kind, _, name = source.partition(":")
    if kind == "embedded":
        yield from _embedded(name)
    elif kind == "torchvision":
        if problem := torchvision_problem(name):
            yield FieldError(_SOURCE, problem)
    else:
        yield from _huggingface(name, folder)


def _huggingface(text: str, folder: FilePath) -> Iterator[FieldError]:
    try:
        source = huggingface_source(text)
    except ValueError as error:
        yield FieldError(_SOURCE, str(error))
        return
    if source.local:
        yield from _file(_SOURCE, source.name, folder, "folder")


def _embedded(name: str) -> Iterator[FieldError]:
    if name not in EMBEDDED_DATASETS:
        hint = did_you_mean(name, EMBEDDED_DATASETS)
        yield FieldError(
            _SOURCE, f"no data set {name!r} is embedded, only {', '.join(EMBEDDED_DATASETS)}{hint}"
        )


def _file(field: Path, name: str, folder: FilePath, what: str) -> Iterator[FieldError]:
    path = absolute(name, folder)
    if path.exists():
        return
    if FilePath(name).exists():
        hint = "; relative paths start at the recipe's folder, not at the current one"
    else:
        hint = _sibling(path, name)
    yield FieldError(field, f"there is no {what} {path}{hint}")


def _sibling(path: FilePath, name: str) -> str:
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    close = closest_match(path.name, (entry.name for entry in path.parent.iterdir()))
    return f"; did you mean {str(FilePath(name).parent / close)!r}?" if close else ""


def _backbones(said: ValidFields) -> Iterator[FieldError]:
    from transfer_model import catalog

    outlines = []
    for path, name in said.values("backbone.name").items():
        try:
            outlines.append(catalog.backbone_info(name))
        except ModelError as error:
            yield FieldError(path, str(error))
    for path, stage in said.values("backbone.freeze_through").items():
        yield from _stage(path, stage, outlines)
    if (weights := said.get("backbone.weights")) and not is_weights_file(weights):
        yield from _published_weights(weights, outlines)


def _stage(path: Path, stage: str, outlines: Iterable[BackboneInfo]) -> Iterator[FieldError]:
    for outline in outlines:
        try:
            count_through([known.name for known in outline.stages], stage)
        except UnknownStageError as error:
            yield FieldError(path, f"in {outline.name} {error}")


def _published_weights(weights: str, outlines: Iterable[BackboneInfo]) -> Iterator[FieldError]:
    for outline in outlines:
        known = ["none", "default", *outline.weights] if outline.weights else ["none"]
        if weights not in known:
            hint = did_you_mean(weights, known) or "."
            listed = f"{', '.join(known)}, or a file that ends in .safetensors, .pth or .pt"
            yield FieldError(_WEIGHTS, f"{outline.name} has no weights {weights!r}{hint} It takes {listed}")
