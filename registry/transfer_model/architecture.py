"""Identification of a network by its name and its options, if any."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from .errors import BackboneOptionError, ModelError, suggestion

_T = TypeVar("_T")


class Options(Mapping[str, Any]):
    """An immutable, hashable mapping from names to JSON values, sorted by name; lists are stored as tuples.

    Values of different types are never equal: `True`, `1` and `1.0` are different options.

    Raises:
        ModelError: The options are not a mapping from text to JSON values.
    """

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        values = {} if values is None else values
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise ModelError(f"the options of a backbone must be a mapping from names to values, but are {values!r}")
        self._values = {name: _hashable(values[name]) for name in sorted(values)}
        try:
            self._text = json.dumps(self._values, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ModelError(f"the options of a backbone must be JSON values: {error}") from error

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - any JSON value
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Options) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Options({self._values})"


@dataclass(frozen=True)
class Architecture:
    """Identifies a network in recipes, models, caches and results.

    Attributes:
        name: Name accepted by `catalog.resolve`.
        options: Options of the network; empty for most networks.
    """

    name: str
    options: Options = Options()  # noqa: RUF009 - immutable

    def __str__(self) -> str:
        values = (f"{name}: {json.dumps(value)}".replace('"', "") for name, value in self.options.items())
        return f"{self.name} {{{', '.join(values)}}}" if self.options else self.name

    @classmethod
    def of(cls, architecture: Architecture | str) -> Architecture:
        """Returns an architecture unchanged; converts a name to an architecture without options."""
        return cls(architecture) if isinstance(architecture, str) else architecture

    def to_json(self) -> str | dict[str, Any]:
        """Returns the name and options, or only the name if there are no options, as in older files."""
        return {"name": self.name, "options": dict(self.options)} if self.options else self.name

    @classmethod
    def from_json(cls, content: object) -> Architecture:
        """Inverts `to_json`.

        Raises:
            ModelError: The content is neither a name nor an object with the fields `name` and `options`.
        """
        if isinstance(content, str):
            return cls(content)
        if isinstance(content, dict) and content.keys() == {"name", "options"} and isinstance(content["name"], str):
            return cls(content["name"], Options(content["options"]))
        raise ModelError(f"a backbone must be a name, or a name with options, but is {content!r}")


def parse_options(kind: type[_T], name: str, options: Options) -> _T:
    """Converts the options of a network to an instance of the dataclass that declares them.

    Each field must be a whole number of at least 1, a tuple of such numbers, a boolean, or a `Literal`.

    Raises:
        BackboneOptionError: An option is unknown or has an invalid value; the message lists the valid ones.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type] # a dataclass
    for option, value in options.items():
        if not known:
            raise BackboneOptionError(f"{name} has no options, but got {option!r}; remove it", option)
        if option not in known:
            hint = suggestion(option, known)
            raise BackboneOptionError(f"{name} has no option {option!r}{hint}; options: {', '.join(known)}", option)
        if not _is_valid(hints[option], value):
            text = json.dumps(value)
            raise BackboneOptionError(f"{option} of {name} must be {_describe(hints[option])}, but got {text}", option)
    try:
        return kind(**options)
    except ValueError as error:
        raise BackboneOptionError(f"{name}: {error}") from error


def _hashable(value: object) -> object:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _is_valid(hint: Any, value: object) -> bool:  # noqa: ANN401 - a type
    if get_origin(hint) is Literal:
        return any(type(value) is type(known) and value == known for known in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_valid(int, item) for item in value)
    return type(value) is hint and (hint is not int or value >= 1)  # type: ignore[operator] # an int


def _describe(hint: Any) -> str:  # noqa: ANN401 - a type
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is tuple:
        return "a list of whole numbers of at least 1"
    return "true or false" if hint is bool else "a whole number of at least 1"
