"""`constraints-lowest.txt` has the lowest version of every requirement that `pyproject.toml` admits."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"].values()
REQUIREMENTS = sorted({*PROJECT["dependencies"], *(line for extra in EXTRAS for line in extra)})


def pinned() -> dict[str, Version]:
    text = (REPOSITORY / "constraints-lowest.txt").read_text(encoding="utf-8")
    return {canonicalize_name(name): Version(version) for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)$", text)}


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_the_lowest_version_of_a_requirement_is_the_one_that_is_tested(line: str) -> None:
    requirement = Requirement(line)
    (lowest,) = (Version(each.version) for each in requirement.specifier if each.operator == ">=")
    assert pinned()[canonicalize_name(requirement.name)] == lowest


def test_every_line_of_the_lowest_versions_is_exact() -> None:
    lines = (REPOSITORY / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    assert len(pinned()) == sum(not line.startswith("#") for line in lines)


def test_the_vulnerable_versions_are_not_admitted() -> None:
    requirements = {each.name: each.specifier for each in map(Requirement, PROJECT["dependencies"])}
    # CVE-2026-24747, CVE-2026-4137 and CVE-2026-42308.
    for name, vulnerable in (("torch", "2.9.1"), ("mlflow", "3.10.1"), ("pillow", "12.1.1")):
        assert vulnerable not in requirements[name]
