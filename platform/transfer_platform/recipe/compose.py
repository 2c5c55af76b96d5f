"""A recipe as it was written: its base recipes, the file itself, and overrides, laid on one another."""

from __future__ import annotations

import os
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.recipe import yaml_tree
from transfer_platform.recipe.tree import Node, Place, merge, tree_from_value
from transfer_platform.sources.names import NAMED_PREFIXES, with_folder
from transfer_platform.suggest import closest_match

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

EXTENDS = "extends"
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def read_recipe_tree(path: Path, overrides: Sequence[str] = ()) -> Node:
    """The tree of a recipe file, of everything that it extends, and of the overrides on top.

    Args:
        path: The file; messages call it as it is written here.
        overrides: `training.epochs=3`, later ones on top; values are YAML, whole sections too.

    Raises:
        RecipeError: A file cannot be read, is no YAML mapping, or extends itself; or an override is none.
    """
    return _overridden(lambda: _file(path, (), None), overrides)


def read_mapping(values: Mapping[str, object], folder: Path, overrides: Sequence[str] = ()) -> Node:
    """The tree of a Python mapping; `extends` is relative to `folder`. Raises what `read_recipe_tree` does."""
    tree = tree_from_value(values, Place("recipe"))
    return _overridden(lambda: _extended(tree, folder, ()), overrides)


def is_local(source: str) -> bool:
    """Whether a `dataset.source` is a path, neither a URL nor the name of a published data set."""
    return "://" not in source and not source.startswith(NAMED_PREFIXES)


def is_weights_file(weights: str) -> bool:
    """Whether `backbone.weights` is a path rather than the name of published weights."""
    return "/" in weights or os.sep in weights or weights.endswith(_WEIGHT_SUFFIXES)


def absolute(name: str, folder: Path) -> Path:
    """Where a path that stands in a recipe leads, links not followed; `~` is the user's own folder."""
    return Path(os.path.normpath(folder.absolute() / Path(name).expanduser()))


def _overridden(read: Callable[[], Node], overrides: Sequence[str]) -> Node:
    """Reads the file and every override before it complains about any of them."""
    problems: list[RecipeProblem] = []
    layers: list[Node] = []
    readers: list[Callable[[], Node]] = [read, *(partial(_override, text) for text in overrides)]
    for reader in readers:
        try:
            layers.append(reader())
        except RecipeError as error:
            problems.extend(error.problems)
    if problems:
        raise RecipeError(problems)
    return reduce(merge, layers)


def _override(text: str) -> Node:
    place = Place(f"-o {text}")
    name, equals, value = text.partition("=")
    steps = name.strip().split(".")
    if not equals or not all(steps):
        raise _refusal(place, "", "an override is FIELD=VALUE, such as training.epochs=3")
    if steps[0] == EXTENDS:
        raise _refusal(place, EXTENDS, "can only stand in a file")
    node = yaml_tree.parse_yaml(value, place.source, first_line=None) or Node(place, None)
    for step in reversed(steps):
        node = Node(place, {step: node})
    return node


def _file(path: Path, extending: tuple[Path, ...], named_at: Place | None) -> Node:
    tree = _tree(path, named_at)
    return _extended(tree, path.parent, (*extending, path))


def _extended(tree: Node, folder: Path, extending: tuple[Path, ...]) -> Node:
    """Lays a tree on the one that it extends, and takes the word `extends` out."""
    if EXTENDS not in tree.entries:
        return tree
    extends = tree.entries[EXTENDS]
    if not isinstance(extends.value, str) or not extends.value:
        raise _refusal(extends.place, EXTENDS, "must name a recipe file, such as base.yaml")
    base = Path(os.path.normpath(folder / extends.value))
    if base.resolve() in [path.resolve() for path in extending]:
        circle = " -> ".join(str(path) for path in (*extending, base))
        raise _refusal(extends.place, EXTENDS, f"goes round in a circle: {circle}")
    own = Node(tree.place, {key: node for key, node in tree.entries.items() if key != EXTENDS})
    return merge(_anchored(_file(base, extending, extends.place), base.parent), own)


def _anchored(tree: Node, folder: Path) -> Node:
    """Makes the paths in a base recipe absolute: they are relative to its folder, not to who extends it."""
    for path, anchor in ((("dataset", "source"), _source), (("backbone", "weights"), _weights)):
        node = tree.find(path)
        if node and isinstance(node.value, str):
            tree = tree.replaced(path, anchor(node.value, folder))
    return tree


def _source(source: str, folder: Path) -> str:
    if is_local(source):
        return str(absolute(source, folder))
    return with_folder(source, lambda name: str(absolute(name, folder)))


def _weights(weights: str, folder: Path) -> str:
    return str(absolute(weights, folder)) if is_weights_file(weights) else weights


def _tree(path: Path, named_at: Place | None) -> Node:
    text = _text(path, named_at)
    place = Place(str(path))
    tree = yaml_tree.parse_yaml(text, str(path))
    if tree is None:
        raise _refusal(place, "", "is empty; a recipe has at least name, dataset and backbone")
    if not isinstance(tree.value, dict):
        raise _refusal(tree.place, "", "is no recipe: expected fields, such as name: ants-bees")
    return tree


def _text(path: Path, named_at: Place | None) -> str:
    place, field = (named_at, EXTENDS) if named_at else (Place(str(path)), "")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise _refusal(place, field, f"{path} does not exist{_sibling(path)}") from error
    except IsADirectoryError as error:
        raise _refusal(
            place, field, f"{path} is a folder; name a recipe file{_sibling(path / '.yaml')}"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise _refusal(Place(str(path), line), "", found) from error
    except OSError as error:
        raise _refusal(place, field, f"{path} cannot be read: {error.strerror}") from error


def _sibling(path: Path) -> str:
    """What else there is in the folder: the nearest name, or a few."""
    found = sorted(file.name for file in path.parent.glob("*.y*ml"))
    if close := closest_match(path.name, found):
        return f"; did you mean {str(path.parent / close)!r}?"
    return f"; {path.parent}{os.sep} has {', '.join(found[:10])}" if found else ""


def _refusal(place: Place, field: str, message: str) -> RecipeError:
    return RecipeError([RecipeProblem(str(place), field, message)])
