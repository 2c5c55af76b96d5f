from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_model import catalog
from transfer_model.architecture import Architecture, Options
from transfer_model.errors import BackboneOptionError, ModelError
from transfer_model.model_json import ModelConfig, OodThreshold
from transfer_model.network import NetworkSpec
from transfer_model.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

VALUES = st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.lists(st.integers(0, 5), max_size=3)
OPTIONS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)


@given(OPTIONS)
def test_an_architecture_is_the_same_after_json(options: dict[str, object]) -> None:
    architecture = Architecture("resnet", Options(options))
    restored = Architecture.from_json(json.loads(json.dumps(architecture.to_json())))
    assert restored == architecture
    assert hash(restored) == hash(architecture)
    assert str(restored) == str(architecture)


@given(OPTIONS)
def test_the_order_of_options_does_not_matter(options: dict[str, object]) -> None:
    assert Options(options) == Options(dict(reversed(options.items())))


def test_a_number_is_not_a_boolean() -> None:
    assert len({Options({"groups": value}) for value in (True, 1, 1.0, "1")}) == 4


def test_without_options_an_architecture_is_written_as_its_name() -> None:
    assert Architecture("resnet18").to_json() == str(Architecture("resnet18")) == "resnet18"
    assert str(Architecture("resnet", Options({"depth": 18, "block": "basic"}))) == "resnet {block: basic, depth: 18}"


@pytest.mark.parametrize(
    "content", [3, None, {"name": "resnet"}, {"name": 1, "options": {}}, {"name": "x", "options": 1}]
)
def test_json_that_is_no_architecture(content: object) -> None:
    with pytest.raises(ModelError, match=r"a backbone must be|the options of a backbone must be"):
        Architecture.from_json(content)


def test_options_that_json_cannot_express() -> None:
    with pytest.raises(ModelError, match="must be JSON values"):
        Options({"depth": object()})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"depth": 18}, "resnet18 has no options, but got 'depth'; remove it"),
        ("efficientnet_lite0", {"depth": 18}, "efficientnet_lite0 has no options, but got 'depth'; remove it"),
        ("alexnet_cifar", {"depth": 18}, "alexnet_cifar has no options, but got 'depth'; remove it"),
        (
            "resnet",
            {"dept": 18},
            "resnet has no option 'dept' (did you mean 'depth'?); options: depth, layers, block, shortcut, "
            "zero_init_residual, groups, width_per_group, dilation, norm, stem",
        ),
        ("resnet", {"depth": 19}, "depth of resnet must be one of 18, 34, 50, 101, 152, but got 19"),
        ("resnet", {"groups": True}, "groups of resnet must be a whole number of at least 1, but got true"),
        ("resnet", {"groups": 0}, "groups of resnet must be a whole number of at least 1, but got 0"),
        ("resnet", {"zero_init_residual": 1}, "zero_init_residual of resnet must be true or false, but got 1"),
        ("resnet", {"layers": [0]}, "layers of resnet must be a list of whole numbers of at least 1, but got [0]"),
        ("resnet", {"layers": [2]}, "resnet: layers must be a list of 4 numbers, one for each stage, but has 1"),
    ],
)  # fmt: skip
def test_invalid_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(BackboneOptionError) as raised:
        catalog.resolve(Architecture(name, Options(options)))
    assert str(raised.value) == message


def test_a_written_default_is_the_same_backbone() -> None:
    written = catalog.resolve(Architecture("resnet", Options({"depth": 50, "shortcut": "B"})))
    assert written == catalog.resolve("resnet") == catalog.resolve("builtin/resnet")


def config(architecture: Architecture | str) -> ModelConfig:
    prepare = Preprocessing(32, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    spec = NetworkSpec(architecture, 2, 0.0, 32)
    return ModelConfig(spec, ("ants", "bees"), prepare, "float32", 1.0, OodThreshold(0.1, 0.05))


def test_model_json_holds_a_name_as_before_and_options_if_there_are_any(tmp_path: Path) -> None:
    configured = Architecture("resnet", Options({"depth": 18, "layers": [1, 1, 1, 1]}))
    written = {"name": "resnet", "options": {"depth": 18, "layers": [1, 1, 1, 1]}}
    for architecture, content in ((Architecture("resnet18"), "resnet18"), (configured, written)):
        config(architecture).write(tmp_path)
        assert json.loads((tmp_path / "model.json").read_text())["network"]["backbone"] == content
        assert ModelConfig.read(tmp_path) == config(architecture)
    assert config("resnet18") == config(Architecture("resnet18"))
