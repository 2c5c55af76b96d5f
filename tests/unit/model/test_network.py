from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from transfer_model.errors import ModelError, UnknownBackboneError, UnknownStageError
from transfer_model.network import Network, NetworkSpec, build_network
from transfer_platform.training.network_cache import freeze_through

if TYPE_CHECKING:
    from collections.abc import Iterator

LITE0 = 3_371_008


def network(name: str = "efficientnet_lite0", size: int = 32, classes: int = 3, dropout: float = 0.1) -> Network:
    return build_network(NetworkSpec(name, classes, dropout, size))


def images(size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def counts(parameters: Iterator[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def test_a_network_maps_images_to_logits() -> None:
    built = network()
    assert built(images()).shape == (2, 3)
    assert built.forward_with_auxiliary(images())[1] == ()
    assert counts(built.parameters()) == LITE0 + 1281 * 3


def test_freezing_returns_the_number_of_trainable_parameters() -> None:
    built = network()
    head = 1281 * 3
    assert freeze_through(built, "none") == LITE0 + head
    assert freeze_through(built, "all") == head
    assert freeze_through(built, "blocks") == freeze_through(built, "blocks.6")
    assert freeze_through(built, "blocks.5") == LITE0 + head - sum(
        counts(built.stage_parameters(stage)) for stage in built.stages[:8]
    )


def test_freezing_again_unfreezes_the_rest() -> None:
    built = network()
    freeze_through(built, "all")
    assert freeze_through(built, "none") == LITE0 + 1281 * 3
    built.train()
    assert all(module.training for module in built.modules())


def test_an_unknown_stage_leaves_the_network_unchanged() -> None:
    built = network()
    freeze_through(built, "blocks.1")
    with pytest.raises(UnknownStageError, match=r"blocks\.6"):
        freeze_through(built, "blocks.7")
    assert built.frozen == 4


def test_frozen_stages_stay_in_eval_mode() -> None:
    built = network()
    freeze_through(built, "blocks.1")
    built.train()
    frozen = built.stages[: built.frozen]
    for name, module in built.backbone.named_modules():
        below = any(f"{name}.".startswith(f"{stage}.") for stage in frozen)
        assert module.training != below, name


def test_with_everything_frozen_only_the_head_trains() -> None:
    built = network()
    freeze_through(built, "all")
    built.train()
    training = {name for name, module in built.backbone.named_modules() if module.training}
    assert training == {"classifier", "classifier.dropout", "classifier.classifier"}
    built.eval()
    assert not any(module.training for module in built.modules() if module is not built)


def test_dropout_before_the_head_is_replaced_by_that_of_the_head() -> None:
    built = network("torchvision/efficientnet_b0", dropout=0.3)
    rates = [module.p for module in built.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.0, 0.3]


def test_dropout_between_stages_is_frozen_with_the_next_stage() -> None:
    built = network("torchvision/alexnet", size=64)
    built.train()
    first, second = built.backbone.get_submodule("classifier.0"), built.backbone.get_submodule("classifier.3")
    freeze_through(built, "features")
    assert first.training
    assert second.training
    freeze_through(built, "classifier.1")
    assert not first.training
    assert second.training


def test_head_and_backbone_parameters_are_separate() -> None:
    built = network()
    freeze_through(built, "blocks.5")
    head, backbone = counts(built.head_parameters()), counts(built.backbone_parameters())
    assert head == 1281 * 3
    assert backbone == freeze_through(built, "blocks.5") - head
    freeze_through(built, "all")
    assert list(built.backbone_parameters()) == []


@pytest.mark.parametrize(
    ("name", "size", "head_is_output"),
    [
        ("efficientnet_lite0", 32, True),
        ("torchvision/mobilenet_v3_small", 32, True),
        ("timm/test_vit", 32, True),
        ("torchvision/squeezenet1_1", 32, False),  # pools after its classifier
        ("timm/deit_tiny_distilled_patch16_224", 32, False),  # averages two heads
    ],
)
def test_the_head_is_separable_only_if_its_output_is_returned(name: str, size: int, head_is_output: bool) -> None:
    built = network(name, size).eval()
    assert built.head_is_output == head_is_output
    if head_is_output:
        with torch.no_grad():
            assert torch.equal(built.forward_head(built.forward_features(images(size))), built(images(size)))
    else:
        with pytest.raises(ModelError, match="are not the output of a single head"):
            built.forward_features(images(size))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchvision/squeezenet1_1", 64),  # classifies maps
        ("timm/deit_tiny_distilled_patch16_224", 32),
        ("timm/lambda_resnet26t", 128),  # has a weight of five dimensions
    ],
)
def test_on_a_device_outputs_are_equal_and_the_feature_hook_runs(name: str, size: int) -> None:
    built = network(name, size).eval()
    calls: list[torch.Tensor] = []
    with torch.no_grad():
        before = built(images(size))
        with built.to_device(torch.device("cpu")).register_feature_hook(calls.append):
            torch.testing.assert_close(built(images(size)), before)
        built(images(size))
    (features,) = calls
    assert features.shape == (len(before), next(built.head_parameters()).shape[1])


def test_the_auxiliary_heads_of_googlenet() -> None:
    built = network("torchvision/googlenet", size=64)

    def auxiliary() -> list[tuple[int, ...]]:
        return [tuple(logits.shape) for logits in built.forward_with_auxiliary(images(64))[1]]

    built.train()
    assert auxiliary() == [(2, 3), (2, 3)]
    built.eval()
    assert auxiliary() == []
    built.train()
    freeze_through(built, "inception4a")  # aux1 follows it, aux2 follows inception4d
    assert auxiliary() == [(2, 3)]
    assert not any(p.requires_grad for p in built.backbone.get_submodule("aux1").parameters())
    assert all(p.requires_grad for p in built.backbone.get_submodule("aux2").parameters())
    assert counts(built.head_parameters()) == (1024 + 1) * 3 * 2
    freeze_through(built, "all")
    assert auxiliary() == []
    assert counts(built.head_parameters()) == (1024 + 1) * 3


def test_the_auxiliary_head_of_inception_needs_large_images() -> None:
    small = network("torchvision/inception_v3", size=80).train()
    assert small.forward_with_auxiliary(images(80))[1] == ()
    large = network("torchvision/inception_v3", size=299)
    assert [extra.head for extra in large._structure.auxiliary] == ["AuxLogits.fc"]


def test_position_embeddings_follow_the_image_size_and_freeze_first() -> None:
    built = network("torchvision/vit_b_32", size=64)
    assert built.backbone.get_parameter("encoder.pos_embedding").shape == (1, 5, 768)
    freeze_through(built, "conv_proj")
    assert not built.backbone.get_parameter("encoder.pos_embedding").requires_grad
    assert not built.backbone.get_parameter("class_token").requires_grad


@pytest.mark.parametrize(
    ("name", "size"), [("timm/test_vit", 33), ("torchvision/maxvit_t", 100), ("torchvision/alexnet", 16)]
)
def test_an_unsupported_size_is_a_model_error(name: str, size: int) -> None:
    with pytest.raises(ModelError, match=f"does not accept images of {size} x {size} pixels"):
        network(name, size)


def test_an_unknown_backbone_is_rejected() -> None:
    with pytest.raises(UnknownBackboneError):
        network("resnet19")


def test_a_seed_determines_the_weights() -> None:
    def weights() -> list[torch.Tensor]:
        torch.manual_seed(7)
        return list(network("timm/test_resnet", 32).state_dict().values())

    assert all(torch.equal(one, other) for one, other in zip(weights(), weights(), strict=True))
