"""Commands on a recipe with variants."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import transfer_platform
from transfer_platform.cli import main
from transfer_platform.errors import RecipeError

TEXT = """\
name: digits
dataset: {source: embedded:digits, image_size: 32}
backbone: {name: resnet18_cifar, weights: none, freeze_through: none}
variants:
  short: {training: {epochs: 1}}
  long: {training: {epochs: 7}}
"""


@pytest.fixture
def path(isolated: Path) -> Path:
    (isolated / "recipe.yaml").write_text(TEXT, encoding="utf-8")
    return isolated / "recipe.yaml"


def test_the_plan_describes_each_variant(path: Path) -> None:
    done = CliRunner().invoke(main, ["check", str(path)])
    assert done.exit_code == 0, done.output
    plans = done.output.split("Recipe with all defaults, variant ")[1:]
    assert [plan.split()[0] for plan in plans] == ["short", "long"]
    assert "1 x 1" in plans[0]
    assert "1 x 7" in plans[1]
    assert "name: digits-long" in plans[1]


def test_a_study_in_python_is_one_variant(path: Path) -> None:
    with pytest.raises(RecipeError, match="the recipe has variants; choose one of short, long"):
        transfer_platform.run(path)


def test_an_unknown_variant_is_named(path: Path) -> None:
    done = CliRunner().invoke(main, ["run", str(path), "--variant", "shor"])
    assert done.exit_code == 1
    assert "the recipe has no variant 'shor' (variants: short, long); did you mean 'short'?" in done.output
