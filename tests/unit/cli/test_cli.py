"""The command line, as far as it can be seen without training."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from transfer_platform.cli import main
from transfer_platform.commands._open import open_recipe
from transfer_platform.inspection.report import warning_counts

REPOSITORY = Path(__file__).parents[3]
HEAVY = ("torch", "timm", "torchvision", "mlflow", "optuna", "sklearn", "matplotlib", "pandas")


def modules_after(*arguments: str) -> set[str]:
    """Runs a command in a fresh process, and says which modules it imported."""
    script = (
        "import sys\nfrom transfer_platform.cli import main\n"
        "try:\n    main()\nfinally:\n    print('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_heavy() -> None:
    assert not modules_after("--help") & {*HEAVY, "pydantic", "sqlalchemy", "rich"}


@pytest.mark.parametrize(("arguments", "code", "text"), [
    (["--help"], 0, "Usage: python -m transfer_platform [OPTIONS]"),
    (["check", "nothing.yaml"], 1, "nothing.yaml: the file does not exist"),
    (["wrong"], 2, "No such command 'wrong'"),
])  # fmt: skip
def test_the_package_can_be_run_as_a_module(arguments: list[str], code: int, text: str, isolated: Path) -> None:
    command = [sys.executable, "-m", "transfer_platform", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=isolated, env=environment)
    assert done.returncode == code
    assert text in done.stdout + done.stderr


def test_help_shows_the_main_commands_on_lines_of_their_own() -> None:
    lines = CliRunner().invoke(main, ["--help"]).output.splitlines()
    examples = [line.split()[1] for line in lines if line.startswith("  platform ")]
    assert examples == ["init", "data", "check", "run", "ui", "models", "serve"]


@pytest.mark.usefixtures("isolated")
def test_a_ledger_that_nobody_would_see_is_refused_before_anything_runs(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    done = CliRunner().invoke(main, ["run", "digits"])
    assert done.exit_code == 1
    assert "set PLATFORM_DATABASE_URL" in done.output


def test_a_pattern_that_matches_nothing_names_the_nearest() -> None:
    done = CliRunner().invoke(main, ["backbones", "efficientnet_lite9"])
    assert done.exit_code == 1
    assert "efficientnet_lite0" in done.output


@pytest.mark.exact_versions
@pytest.mark.usefixtures("isolated")
def test_check_imports_no_deep_learning_library() -> None:
    assert not modules_after("check", str(REPOSITORY / "recipes" / "digits.yaml")) & set(HEAVY)


@pytest.mark.usefixtures("isolated")
def test_check_prints_the_plan() -> None:
    done = CliRunner().invoke(main, ["check", str(REPOSITORY / "recipes" / "digits.yaml")])
    assert done.exit_code == 0, done.output
    assert "freeze_through: blocks.1" in done.output
    assert "64 x 64 pixels" in done.output
    assert "1 x 5" in done.output
    frozen = 864 + 64 + 896 + 13_968
    head = (1280 + 1) * 10
    total = 3_371_008 + head
    assert f"{total:,}" in done.output
    assert f"{total - frozen:,}" in done.output


@pytest.mark.usefixtures("isolated")
def test_the_plan_says_what_a_nearest_neighbor_head_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["check", "digits", "-o", "head.kind=knn", "-o", "backbone.freeze_through=all"]
    plan = " ".join(CliRunner().invoke(main, command).output.split())
    match = re.search(r"stores 1,280 features of efficientnet_lite0 for each of ([\d,]+) images: ([\d.]+) MB", plan)
    assert match, plan
    assert float(match[2]) == round(int(match[1].replace(",", "")) * 1280 * 4 / 1e6, 1)
    assert "head (new) 0 0" in plan
    assert "its trials will fail" not in plan
    monkeypatch.setattr("transfer_platform.commands.check.MAX_BYTES", 1000)
    plan = " ".join(CliRunner().invoke(main, command).output.split())
    assert "more than the 1.0 kB allowed: its trials will fail" in plan


@pytest.mark.usefixtures("isolated")
def test_the_plan_says_what_each_rung_would_cost() -> None:
    ladder = "search={trials: 1, ladder: {learning_rates: [0.01, 0.001]}}"
    command = ["check", "digits", "-o", "head.kind=ridge", "-o", "backbone.freeze_through=all", "-o", ladder]
    plan = " ".join(CliRunner().invoke(main, command).output.split())
    rung = r"rung: none trains ([\d,]+) parameters of efficientnet_lite0 on ([\d,]+) images, if the rung before it"
    images = re.search(rung, plan)
    assert images, plan
    assert int(images[2].replace(",", "")) % 10 == 0, "5 epochs with 2 learning rates"
    assert "rung: blocks.3 trains" in plan


@pytest.mark.usefixtures("isolated")
def test_a_wrong_recipe_names_every_line_and_ends_with_1(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: a\ndataset: {source: embedded:digits}\nbackbone: {name: resnet81}\nhed: {}\n")
    done = CliRunner().invoke(main, ["check", str(wrong)])
    assert done.exit_code == 1
    assert f"{wrong}:3: backbone.name: " in done.output
    assert f"{wrong}:4: hed: " in done.output
    assert "2 problems in the recipe" in done.output


def test_check_shows_every_warning_that_a_run_counts(isolated: Path) -> None:
    generator = np.random.default_rng(0)
    sizes = [(64, 64)] * 40 + [(8, 8), (200, 40)]
    for number, (width, height) in enumerate(sizes):
        label = ("Ant", "ant", "bee", "bee")[number % 4]
        (isolated / "set" / label).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(generator.integers(0, 255, (height, width, 3), np.uint8))
        image.save(isolated / "set" / label / f"{number}.{'jpg' if number == 4 else 'png'}", "PNG")
        if number == 6:
            image.resize((48, 48)).save(isolated / "set" / label / "smaller.png")
    (isolated / "set.yaml").write_text(
        "name: set\ndataset: {source: set, splits: {validation: 0.3, test: 0.4}}\n"
        "backbone: {name: efficientnet_lite0}\n"
    )
    opened = open_recipe(isolated / "set.yaml")
    warnings = [each for each in opened.inspection.findings if opened.inspection.severity(each) == "warning"]
    kinds = Counter(each.kind for each in warnings)
    assert {"wrong extension", "tiny", "elongated", "similar class names", "few images"} <= kinds.keys()
    shown = " ".join(CliRunner().invoke(main, ["check", "set.yaml"]).output.split())
    counted = warning_counts(opened.inspection)
    assert counted.startswith(f"{len(warnings)} warnings (")
    for kind, count in kinds.items():
        assert f"warning: {kind} ({count}):" in shown
        assert f"{count} {kind}" in counted
    for each in warnings:
        assert " ".join(opened.inspection.line(each).split()) in shown


def test_the_readmes_lines_for_photographs_of_ones_own(isolated: Path) -> None:
    for label, shade in (("Größe & co", 40), ("☃", 200)):
        (isolated / "photos" / label).mkdir(parents=True)
        for index in range(20):
            Image.new("RGB", (40, 30), (shade, index, 0)).save(isolated / "photos" / label / f"{index}.png")
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    (at,) = [at for at, line in enumerate(lines) if "/path/to/photos" in line]
    begin = shlex.split(lines[at].replace("/path/to/photos", str(isolated / "photos")), comments=True)
    done = CliRunner().invoke(main, begin[1:])
    assert done.exit_code == 0, done.output
    assert (isolated / "photos.yaml").is_file()
    assert shlex.split(lines[at + 1]) == ["platform", "run", "photos.yaml"]
    done = CliRunner().invoke(main, ["check", "photos.yaml"])
    assert done.exit_code == 0, done.output
    assert "Größe & co" in done.output


def test_backbones_are_listed_by_pattern() -> None:
    done = CliRunner().invoke(main, ["backbones", "efficientnet_lite0", "--stages"])
    assert done.exit_code == 0, done.output
    assert "blocks.6" in done.output


def test_classify_needs_one_of_backbone_and_model() -> None:
    done = CliRunner().invoke(main, ["classify", "photo.jpg"])
    assert done.exit_code == 2
    assert "--backbone efficientnet_lite0" in done.output


def test_the_schema_is_json() -> None:
    import json

    done = CliRunner().invoke(main, ["recipe", "schema"])
    assert json.loads(done.output)["type"] == "object"


def test_the_cache_is_shown_and_emptied(isolated: Path) -> None:
    root = isolated.parent / "cache"
    for kind in ("downloads", "features/ab"):
        (root / kind).mkdir(parents=True)
    (root / "downloads" / "photos.zip").write_bytes(bytes(5000))
    (root / "features" / "ab" / "000001.rows").write_bytes(bytes(3000))
    shown = CliRunner().invoke(main, ["cache", "info"]).output
    assert all(text in shown for text in ("downloads", "5.0 kB", "features", "3.0 kB"))
    assert CliRunner().invoke(main, ["cache", "clear"]).output == "3.0 kB freed\n"
    assert (root / "downloads" / "photos.zip").is_file()
    assert not list((root / "features").rglob("*.rows"))
    assert CliRunner().invoke(main, ["cache", "clear", "--all"]).output == "5.0 kB freed\n"
    assert not (root / "downloads").exists()


def test_the_plan_says_that_augmentation_is_off_and_what_storing_costs(isolated: Path) -> None:
    digits = ["check", "digits", "-o", "dataset.augmentation=light", "-o", "backbone.freeze_through=all"]
    plain = CliRunner().invoke(main, digits).output
    assert "Augmentation is off for frozen backbones" in plain
    assert "not yet measured on this machine" in " ".join(plain.split())
    timed = CliRunner().invoke(main, [*digits, "--time", "-o", "features.views=2"]).output
    assert "Augmentation is off" not in timed
    assert " stored" in timed
    again = CliRunner().invoke(main, [*digits, "-o", "features.views=2"]).output
    assert again.splitlines()[-20:] == timed.splitlines()[-20:]


def refused(*arguments: str) -> str:
    """What a command that ends with code 1 and without a traceback says."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    return " ".join(done.output.split())


def test_looking_for_a_model_where_none_is_creates_no_database(isolated: Path) -> None:
    (isolated / "photos").mkdir()
    (isolated / "photos" / "a.txt").write_text("a")
    Image.new("RGB", (8, 8)).save(isolated / "photo.png")
    for command in (["predict", "photos", "--model", "x"], ["serve", "x"], ["classify", "photo.png", "--model", "x"]):
        assert "no registered models" in refused(*command)
    assert not (isolated / "mlflow.db").exists()


def test_what_cannot_be_written_is_said_before_any_work(isolated: Path) -> None:
    Image.new("RGB", (8, 8)).save(isolated / "photo.png")
    backbone = ["--backbone", "efficientnet_lite0"]
    assert "it is a folder" in refused("predict", ".", "--model", "x", "--out", str(isolated))
    assert "cannot write /proc/x.csv: /proc:" in refused("predict", ".", "--model", "x", "--out", "/proc/x.csv")
    assert "it is a folder" in refused("classify", "photo.png", *backbone, "--annotate", str(isolated))
    assert "photo not found: nosuch.jpg" in refused("classify", "nosuch.jpg", "--model", "x")


def test_a_report_takes_the_place_of_no_recipe(isolated: Path) -> None:
    recipe = "name: x\ndataset: {source: embedded:digits}\nbackbone: {name: efficientnet_lite0}\n"
    Path("x.yaml").write_text(recipe)
    for out in ("x.yaml", "x.pdf"):
        assert "must end in .html, .htm or .md" in refused("data", "x.yaml", "--no-features", "--out", out)
    assert Path("x.yaml").read_text() == recipe


def test_a_folder_that_takes_no_studies_is_reported(isolated: Path) -> None:
    (isolated / "studies").write_text("in the way")
    assert "studies: " in refused("run", "digits")


def test_a_cache_that_is_a_file_is_reported(isolated: Path, monkeypatch) -> None:
    (isolated / "file").write_text("in the way")
    monkeypatch.setenv("PLATFORM_CACHE", str(isolated / "file"))
    assert str(isolated / "file") in refused("run", "digits")


def test_a_tracking_uri_that_mlflow_does_not_know_is_reported(isolated: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    assert "nonsense" in refused("ui")


def test_a_server_that_does_not_answer_is_said_at_once(isolated: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    for command in (["run", "digits", "-o", "promotion=null"], ["ui"], ["serve", "x"]):
        assert "the MLflow server http://127.0.0.1:1 cannot be reached" in refused(*command)


def test_a_port_is_a_number_that_ports_have() -> None:
    assert "0<=x<=65535" in CliRunner().invoke(main, ["ui", "--port", "99999"]).output
