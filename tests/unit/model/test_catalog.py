from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from transfer_model import catalog
from transfer_model.backbones import BUNDLED_NETWORKS, Backbone
from transfer_model.build_catalog import catalog_entry, compress_stages
from transfer_model.builtin_networks import NETWORKS
from transfer_model.catalog import Stage, describe_backbone, expand_stages
from transfer_model.errors import UnknownBackboneError
from transfer_platform.commands import check

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    ("name", "message"),
    [
        ("resnet19", "resnet18"),
        ("efficientnet_lit0", "efficientnet_lite0"),
        ("keras/resnet50", "expected builtin/, torchvision/ or timm/"),
        ("torchvision/seresnet50", "unknown backbone"),
        ("timm/resnet50.a1_in2k", "available weights: a1_in1k"),
        ("resnet18.IMAGENET1K_V1", "no weights 'IMAGENET1K_V1'"),
        ("", "unknown backbone"),
    ],
)
def test_an_unknown_name_is_an_error_that_suggests_similar_names(name: str, message: str) -> None:
    with pytest.raises(UnknownBackboneError) as error:
        catalog.resolve(name)
    assert message in str(error.value)


def test_names_are_the_shortest_unambiguous_ones() -> None:
    names = catalog.names("*resnet18")
    assert {"resnet18", "timm/resnet18", "seresnet18"} <= set(names)
    assert "torchvision/resnet18" not in names
    assert all(catalog.resolve(name).architecture.endswith("resnet18") for name in names)


def test_patterns_match_the_explicit_names_and_parts_of_names() -> None:
    assert "resnet18" in catalog.names("torchvision/*")
    assert "seresnet18" not in catalog.names("torchvision/*")
    assert "efficientnet_lite0" in catalog.names("lite0")
    assert catalog.names("no such network") == ()
    assert len(catalog.names()) > 1200


@pytest.mark.parametrize(
    ("name", "parameters", "image_size"),
    [
        ("efficientnet_lite0", 3_371_008, 224),
        ("efficientnet_lite1", 4_135_680, 240),
        ("efficientnet_lite2", 4_811_072, 260),
    ],
)
def test_the_info_of_the_bundled_networks(name: str, parameters: int, image_size: int) -> None:
    info = catalog.backbone_info(name)
    assert info.parameters == sum(stage.parameters for stage in info.stages) == parameters
    assert info.features == 1280
    assert (info.preprocessing.image_size, info.preprocessing.crop) == (image_size, 0.875)
    assert info.preprocessing.interpolation == "bicubic"
    assert [stage.name for stage in info.stages] == [
        "conv_stem", "bn1", *(f"blocks.{number}" for number in range(7)), "conv_head", "bn2",
    ]  # fmt: skip
    assert info.preprocessing.mean == info.preprocessing.std == (0.5, 0.5, 0.5)
    assert info.weights == ("installed",)


def test_preprocessing_belongs_to_the_weights() -> None:
    info = catalog.backbone_info("resnet50")
    assert info.weights == ("IMAGENET1K_V2", "IMAGENET1K_V1")
    assert info.preprocessing == info.preprocessing_for("IMAGENET1K_V2") == info.preprocessing_for("a file.pth")
    assert info.preprocessing.crop == pytest.approx(224 / 232, abs=1e-4)
    assert info.preprocessing_for("IMAGENET1K_V1").crop == 0.875
    assert catalog.backbone_info("resnet50.a1_in1k").preprocessing.crop == 0.95
    assert catalog.backbone_info("timm/resnet50").preprocessing_for("a1_in1k").crop == 0.95


@pytest.mark.exact_versions
def test_the_shipped_catalog_matches_the_installed_libraries() -> None:
    content = json.loads(catalog.FILE.read_text(encoding="utf-8"))
    assert content["made with"] == catalog.library_versions(), "run: python -m transfer_model.build_catalog"
    assert catalog.FILE.stat().st_size < 1_000_000


@pytest.mark.exact_versions
@pytest.mark.parametrize(
    "name",
    [
        *BUNDLED_NETWORKS, *(f"builtin/{name}" for name in NETWORKS),
        "torchvision/resnet18", "torchvision/googlenet", "torchvision/squeezenet1_1",
        "torchvision/vit_b_32", "torchvision/regnet_x_400mf", "timm/resnet18", "timm/test_vit",
        "timm/deit_tiny_distilled_patch16_224", "timm/convnext_atto", "timm/resnet50_clip",
        "timm/vit_small_patch14_dinov2", "timm/qwen3_vit_88m_enc",
    ],
)  # fmt: skip
def test_the_shipped_catalog_agrees_with_the_libraries(name: str) -> None:
    content = json.loads(catalog.FILE.read_text(encoding="utf-8"))
    normalizations = {label: tuple(map(tuple, pair)) for label, pair in content["normalizations"].items()}
    fresh = catalog_entry(describe_backbone(catalog.resolve(name), name), normalizations)
    assert json.loads(json.dumps(fresh)) == content["networks"][name]


@pytest.fixture
def other_versions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretends that other versions of the libraries than those of the catalog are installed."""
    caches = (catalog.backbone_info, catalog._keys)
    monkeypatch.setattr(catalog, "library_versions", lambda: {"timm": "9.9", "torchvision": "9.9"})
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_without_a_matching_catalog_the_library_is_queried(request: pytest.FixtureRequest) -> None:
    shipped = catalog.backbone_info("timm/resnet18")
    request.getfixturevalue("other_versions")
    queried = catalog.backbone_info("timm/resnet18")
    assert queried == shipped
    assert queried is not shipped


def test_numbered_stages_are_compressed_to_ranges_and_expanded_again() -> None:
    stages = (
        Stage("stem", 5),
        *(Stage(f"blocks.{number}", 7) for number in range(12)),
        Stage("layer1.0", 1),
        Stage("layer1.1", 2),
        Stage("layer2.0", 2),
        Stage("norm", 3),
    )
    compressed = compress_stages(stages)
    assert compressed == {
        "stem": 5, "blocks.0..11": 7, "layer1.0..1": [1, 2], "layer2.0": 2, "norm": 3,
    }  # fmt: skip
    assert expand_stages(compressed) == stages


@pytest.mark.exact_versions
def test_the_catalog_imports_no_deep_learning_library() -> None:
    program = (
        "import sys; from transfer_model import catalog, stages; "
        "print(len(catalog.backbone_info('resnet50').stages), len(catalog.names('vit'))); "
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    root = str(catalog.FILE.parents[1])
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": root}, timeout=60)


@pytest.mark.usefixtures("other_versions")
def test_backbones_are_listed_at_once_with_other_versions_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "describe_backbone", lambda *_: pytest.fail("a network was built"))
    text = io.StringIO()
    Console(file=text, width=200).print(check.list_backbones("resnet1*"))
    assert "resnet18" in text.getvalue()
    assert "11,176,512" in text.getvalue()
    assert "; values are for timm" in " ".join(text.getvalue().split())
