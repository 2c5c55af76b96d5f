from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from transfer_model import catalog
from transfer_model.backbones import Backbone
from transfer_model.build_catalog import catalog_entry, compress_stages, describe_backbone
from transfer_model.catalog import Stage, expand_stages
from transfer_model.errors import UnknownBackboneError
from transfer_platform.commands import check


@pytest.mark.parametrize(
    ("name", "library", "architecture", "tag"),
    [
        ("resnet18", "torchvision", "resnet18", ""),
        ("torchvision/resnet18", "torchvision", "resnet18", ""),
        ("timm/resnet18", "timm", "resnet18", ""),
        ("timm/resnet18.a1_in1k", "timm", "resnet18", "a1_in1k"),
        ("resnet50.a1_in1k", "timm", "resnet50", "a1_in1k"),
        ("seresnet50", "timm", "seresnet50", ""),
        ("efficientnet_lite0", "bundled", "efficientnet_lite0", ""),
        ("timm/efficientnet_lite0", "timm", "efficientnet_lite0", ""),
    ],
)
def test_names_resolve(name: str, library: str, architecture: str, tag: str) -> None:
    assert catalog.resolve(name) == Backbone(library, architecture, tag)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet19", "resnet18"),
        ("efficientnet_lit0", "efficientnet_lite0"),
        ("keras/resnet50", "torchvision/ and timm/"),
        ("torchvision/seresnet50", "no library knows"),
        ("timm/resnet50.a1_in2k", "it has a1_in1k"),
        ("resnet18.IMAGENET1K_V1", "no weights 'IMAGENET1K_V1'"),
        ("", "no library knows"),
    ],
)
def test_unknown_names_say_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UnknownBackboneError) as error:
        catalog.resolve(name)
    assert said in str(error.value)


def test_names_are_the_shortest_that_mean_the_network() -> None:
    names = catalog.names("*resnet18")
    assert {"resnet18", "timm/resnet18", "seresnet18"} <= set(names)
    assert "torchvision/resnet18" not in names
    assert all(catalog.resolve(name).architecture.endswith("resnet18") for name in names)


def test_patterns_match_the_explicit_names_and_parts_of_names() -> None:
    assert "resnet18" in catalog.names("torchvision/*")
    assert "seresnet18" not in catalog.names("torchvision/*")
    assert "efficientnet_lite0" in catalog.names("lite0")
    assert catalog.names("no such network") == ()
    assert len(catalog.names()) > 1300


def test_the_outline_of_the_bundled_network() -> None:
    outline = catalog.backbone_info("efficientnet_lite0")
    assert outline.parameters == sum(stage.parameters for stage in outline.stages) == 3_371_008
    assert outline.features == 1280
    assert [stage.name for stage in outline.stages] == [
        "conv_stem", "bn1", *(f"blocks.{number}" for number in range(7)), "conv_head", "bn2",
    ]  # fmt: skip
    assert outline.preprocessing.mean == outline.preprocessing.std == (0.5, 0.5, 0.5)
    assert outline.weights == ("installed",)


def test_preprocessing_belongs_to_the_weights() -> None:
    outline = catalog.backbone_info("resnet50")
    assert outline.weights == ("IMAGENET1K_V2", "IMAGENET1K_V1")
    assert (
        outline.preprocessing
        == outline.preprocessing_for("IMAGENET1K_V2")
        == outline.preprocessing_for("a file.pth")
    )
    assert outline.preprocessing.crop == pytest.approx(224 / 232, abs=1e-4)
    assert outline.preprocessing_for("IMAGENET1K_V1").crop == 0.875
    assert catalog.backbone_info("resnet50.a1_in1k").preprocessing.crop == 0.95
    assert catalog.backbone_info("timm/resnet50").preprocessing_for("a1_in1k").crop == 0.95


def test_the_shipped_catalogue_fits_the_installed_libraries() -> None:
    content = json.loads(catalog.FILE.read_text(encoding="utf-8"))
    assert content["made with"] == catalog.library_versions(), "run: python -m transfer_model.build_catalog"
    assert catalog.FILE.stat().st_size < 1_000_000


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_lite0", "torchvision/resnet18", "torchvision/googlenet", "torchvision/squeezenet1_1",
        "torchvision/vit_b_32", "torchvision/regnet_x_400mf", "timm/resnet18", "timm/test_vit",
        "timm/deit_tiny_distilled_patch16_224", "timm/convnext_atto", "timm/resnet50_clip",
        "timm/vit_small_patch14_dinov2", "timm/qwen3_vit_88m_enc",
    ],
)  # fmt: skip
def test_the_shipped_catalogue_says_what_the_libraries_say(name: str) -> None:
    content = json.loads(catalog.FILE.read_text(encoding="utf-8"))
    normalisations = {label: tuple(map(tuple, pair)) for label, pair in content["normalisations"].items()}
    fresh = catalog_entry(describe_backbone(catalog.resolve(name), name), normalisations)
    assert json.loads(json.dumps(fresh)) == content["networks"][name]


def test_without_a_fitting_catalogue_the_library_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = catalog.backbone_info("timm/resnet18")
    monkeypatch.setattr(catalog, "_shipped", lambda: None)
    catalog.backbone_info.cache_clear()
    try:
        assert catalog.backbone_info("timm/resnet18") == shipped
    finally:
        catalog.backbone_info.cache_clear()


def test_numbered_stages_are_held_together_and_written_out_again() -> None:
    stages = (
        Stage("stem", 5),
        *(Stage(f"blocks.{number}", 7) for number in range(12)),
        Stage("layer1.0", 1),
        Stage("layer1.1", 2),
        Stage("layer2.0", 2),
        Stage("norm", 3),
    )
    together = compress_stages(stages)
    assert together == {
        "stem": 5, "blocks.0..11": 7, "layer1.0..1": [1, 2], "layer2.0": 2, "norm": 3,
    }  # fmt: skip
    assert expand_stages(together) == stages


def test_an_outline_needs_no_deep_learning_library() -> None:
    program = (
        "import sys; from transfer_model import catalog, stages; "
        "print(len(catalog.backbone_info('resnet50').stages), len(catalog.names('vit'))); "
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    root = str(catalog.FILE.parents[1])
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": root}, timeout=60)


def test_backbones_are_listed_at_once_with_other_versions_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "library_versions", lambda: {"timm": "9.9", "torchvision": "9.9"})
    monkeypatch.setattr(
        "transfer_model.build_catalog.describe_backbone", lambda *_: pytest.fail("a network was built")
    )
    catalog._keys.cache_clear()
    try:
        text = io.StringIO()
        Console(file=text, width=200).print(check.list_backbones("resnet1*"))
    finally:
        catalog._keys.cache_clear()
    assert "resnet18" in text.getvalue()
    assert "11,176,512" in text.getvalue()
    assert "their figures are those of timm" in " ".join(text.getvalue().split())
