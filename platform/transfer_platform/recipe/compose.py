"""Composes a recipe from base recipes, the recipe file and overrides."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path

from transfer_model.errors import cause
from transfer_model.weights_path import is_weights_file
from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.recipe.yaml_tree import Node, Place, merge, parse_yaml, recipe_error
from transfer_platform.sources.names import NAMED_PREFIXES, with_folder
from transfer_platform.suggest import closest_match

EXTENDS = "extends"
VARIANTS = "variants"


def read_recipe_tree(path: Path, overrides: Sequence[str] = ()) -> Node:
    """Reads a recipe file, merges it with its base recipes, and applies the overrides.

    Overrides have the form FIELD=VALUE, such as `training.epochs=3`; VALUE is parsed as YAML. Later overrides win.

    Raises:
        RecipeError: A file or override cannot be parsed, or a file extends itself; the error lists all problems.
    """
    problems: list[RecipeProblem] = []
    layers: list[Node] = []
    for read in [partial(_read_file, path), *(partial(_parse_override, text) for text in overrides)]:
        try:
            layers.append(read())
        except RecipeError as error:
            problems.extend(error.problems)
    if problems:
        raise RecipeError(problems)
    return reduce(merge, layers)


def is_local(source: str) -> bool:
    """Returns whether `dataset.source` is a path rather than a URL or the name of a published dataset."""
    return "://" not in source and not source.startswith(NAMED_PREFIXES)


def absolute(name: str, folder: Path) -> Path:
    """Converts a path relative to `folder` to an absolute path; expands `~` but does not resolve symlinks."""
    return Path(os.path.normpath(folder.absolute() / Path(name).expanduser()))


def _parse_override(text: str) -> Node:
    place = Place(f"-o {text}")
    name, equals, value = text.partition("=")
    steps = name.strip().split(".")
    if not equals or not all(steps):
        raise recipe_error(place, "", "an override must have the form FIELD=VALUE, such as training.epochs=3")
    if steps[0] == EXTENDS:
        raise recipe_error(place, EXTENDS, "is only allowed in a recipe file")
    node = parse_yaml(value, place.source, first_line=None) or Node(place, None)
    for step in reversed(steps):
        node = Node(place, {step: node})
    return node


def _read_file(path: Path, extended_by: tuple[Path, ...] = (), named_at: Place | None = None) -> Node:
    """Reads a recipe file and merges it with its base; `named_at` is the place where `extends` names the file."""
    tree = _parse_file(path, named_at)
    if EXTENDS not in tree.entries:
        return tree
    extends = tree.entries[EXTENDS]
    if not isinstance(extends.value, str) or not extends.value:
        raise recipe_error(extends.place, EXTENDS, "must be the path to a recipe file, such as base.yaml")
    base = Path(os.path.normpath(path.parent / extends.value))
    chain = (*extended_by, path)
    if base.resolve() in [file.resolve() for file in chain]:
        cycle = " -> ".join(str(file) for file in (*chain, base))
        raise recipe_error(extends.place, EXTENDS, f"circular reference: {cycle}")
    own = Node(tree.place, {key: node for key, node in tree.entries.items() if key != EXTENDS})
    return merge(_with_absolute_paths(_read_file(base, chain, extends.place), base.parent), own)


def _with_absolute_paths(tree: Node, folder: Path) -> Node:
    """Makes the paths in a base recipe and its variants absolute; `folder` is the folder with the base recipe."""

    def to_absolute(name: str) -> str:
        return str(absolute(name, folder))

    source, weights = tree.find(("dataset", "source")), tree.find(("backbone", "weights"))
    if source and isinstance(source.value, str):
        convert = to_absolute if is_local(source.value) else partial(with_folder, rebase=to_absolute)
        tree = tree.replaced(("dataset", "source"), convert(source.value))
    if weights and isinstance(weights.value, str) and is_weights_file(weights.value):
        tree = tree.replaced(("backbone", "weights"), to_absolute(weights.value))
    if variants := tree.entries.get(VARIANTS):
        changes = {name: _with_absolute_paths(node, folder) for name, node in variants.entries.items()}
        tree = Node(tree.place, {**tree.entries, VARIANTS: replace(variants, value=changes or variants.value)})
    return tree


def _parse_file(path: Path, named_at: Place | None) -> Node:
    tree = parse_yaml(_read_text(path, named_at), str(path))
    if tree is None:
        message = "the file is empty; a recipe needs at least name, dataset and backbone"
        raise recipe_error(Place(str(path)), "", message)
    if not isinstance(tree.value, dict):
        raise recipe_error(tree.place, "", "not a recipe: expected fields such as name: ants-bees")
    return tree


def _read_text(path: Path, named_at: Place | None) -> str:
    place, field = (named_at, EXTENDS) if named_at else (Place(str(path)), "")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise recipe_error(
            place, field, f"{'the file' if named_at is None else path} does not exist{_suggest_file(path)}"
        ) from error
    except IsADirectoryError as error:
        hint = _suggest_file(path / ".yaml")
        raise recipe_error(
            place, field, f"{'this' if named_at is None else path} is a folder; expected a recipe file{hint}"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        message = f"invalid UTF-8 byte 0x{error.object[error.start]:02x}; save the file as UTF-8"
        raise recipe_error(Place(str(path), line), "", message) from error
    except OSError as error:
        raise recipe_error(place, field, f"cannot read {path}: {cause(error)}") from error


def _suggest_file(path: Path) -> str:
    """Returns a hint that names the most similar YAML file or, if none is similar, up to 10 files in the folder."""
    names = sorted(file.name for file in path.parent.glob("*.y*ml"))
    if similar := closest_match(path.name, names):
        return f"; did you mean {str(path.parent / similar)!r}?"
    return f"; {path.parent}{os.sep} contains {', '.join(names[:10])}" if names else ""
