"""Rules about the source code itself: imports, names, docstrings, sizes. No module is executed."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from statistics import median

import grimp
import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("transfer_platform", "transfer_registry", "transfer_model")
ROOTS = (REPOSITORY / "platform" / "transfer_platform", REPOSITORY / "registry")
SOURCES = sorted(path for root in ROOTS for path in root.rglob("*.py"))

_WORDS = """
anatomised anatomy attended bench benches catalogue catalogues contest course crowd doubtful drawing
economy familiar heard kept listening looks material materials memoryless novelties novelty omitted
picture pictures provision recognised shelf sketch sketches standing story strangeness stranger
strangers survey surveyed teaching untaught wording
"""
PRIVATE_WORDS = frozenset(_WORDS.split())
"""Words that an earlier version of this code used for things that the field has names for."""

QUESTIONS = ("What", "Where", "How", "Which", "Whether", "Who", "Why", "When")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@lru_cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def words(identifier: str) -> set[str]:
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier).lower().split("_"))


def identifiers(module: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, Definition):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
    return found


def docstrings(module: ast.Module) -> list[str]:
    """Docstrings of modules, classes and functions, and those below constants and attributes."""
    return [
        node.value.value
        for node in ast.walk(module)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


@lru_cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("transfer_registry", "transfer_platform"),
        ("transfer_model", "transfer_platform"),
        ("transfer_model", "transfer_registry"),
    ],
)
def test_packages_depend_on_each_other_in_one_direction(importer: str, imported: str) -> None:
    assert not graph().find_shortest_chains(importer, imported, as_packages=True)


def test_no_two_files_import_each_other() -> None:
    """Imports of type checkers count; imports within functions do too."""
    found = [
        f"{module} -> {' -> '.join(chain)}"
        for module in graph().modules
        for imported in graph().find_modules_directly_imported_by(module)
        if (chain := graph().find_shortest_chain(imported, module)) and min(chain) == imported
    ]
    assert not found


def test_no_class_name_is_defined_twice() -> None:
    places = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name_of(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_names_and_docstrings_use_the_terms_of_the_field(path: Path) -> None:
    names = {*identifiers(tree(path)), path.stem}
    assert {name for name in names if words(name) & PRIVATE_WORDS} == set()
    prose = {word for text in docstrings(tree(path)) for word in re.findall(r"[a-z]+", text.lower())}
    assert prose & PRIVATE_WORDS == set()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_in_one_line_what_it_is(path: Path) -> None:
    first = (ast.get_docstring(tree(path)) or "").split("\n")[0]
    assert 0 < len(first) <= 80
    assert first.split()[0] not in QUESTIONS


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_suppressed_warning_has_a_reason_in_its_line(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    # A call of a library without types is its own reason.
    found = [line for line in lines if re.search("# (noqa|type: ignore)", line) and "[no-untyped-call]" not in line]
    reason = re.compile(r"# (noqa: \w+( - |, )|type: ignore\[[a-z-]+\]\s+# )\w")
    assert [line for line in found if not reason.search(line)] == []


def test_functions_and_files_are_short() -> None:
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    assert median(lengths) <= 10
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: count for name, count in lines.items() if count > 350} == {}
    assert sum(lines.values()) <= 30_830
