from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from network_states import assert_backbone_is, spec, state
from safetensors.torch import save_file

from transfer_model import weight_sources
from transfer_model.backbones import BUNDLED_NETWORKS
from transfer_model.errors import UnknownBackboneError, WeightsError
from transfer_model.network import build_network, build_pretrained_classifier


class TestLocateWeights:
    def test_of_torchvision(self) -> None:
        source = weight_sources.locate_weights("resnet50", "IMAGENET1K_V1")
        assert source.url == "https://download.pytorch.org/models/resnet50-0676ba61.pth"
        assert source.sha256_prefix == "0676ba61"
        assert weight_sources.locate_weights("resnet50", "default").name == "IMAGENET1K_V2"

    def test_of_timm(self) -> None:
        source = weight_sources.locate_weights("timm/resnet50", "a1_in1k")
        assert source.url is not None
        assert source.url.endswith("/resnet50_a1_0-14fe96d1.pth")
        assert source.sha256_prefix == "14fe96d1"
        unhashed = weight_sources.locate_weights("vit_base_patch16_224", "default")
        assert unhashed.url == (
            "https://huggingface.co/timm/vit_base_patch16_224.augreg2_in21k_ft_in1k/resolve/main/model.safetensors"
        )
        assert unhashed.sha256_prefix is None

    @pytest.mark.parametrize("name", BUNDLED_NETWORKS)
    def test_of_the_installed_weights(self, name: str) -> None:
        source = weight_sources.locate_weights(name, "default")
        assert source.path is not None
        assert source.path.is_file()
        assert source.url is None

    def test_of_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.safetensors"
        file.write_bytes(b"\x80\x02")
        assert weight_sources.locate_weights("resnet18", str(file)) == weight_sources.WeightSource(
            "mine.safetensors", path=file
        )
        with pytest.raises(WeightsError, match=r"the weights file .* does not exist"):
            weight_sources.locate_weights("resnet18", str(tmp_path / "other.pth"))

    def test_of_none(self) -> None:
        assert weight_sources.locate_weights("resnet18", "none") == weight_sources.WeightSource("none")
        with pytest.raises(WeightsError, match="has no pretrained weights"):
            weight_sources.locate_weights("botnet50ts_256", "default")

    def test_of_unknown_names(self) -> None:
        with pytest.raises(WeightsError, match="did you mean 'IMAGENET1K_V2'"):
            weight_sources.locate_weights("resnet50", "IMAGENET1K_V3")
        with pytest.raises(UnknownBackboneError):
            weight_sources.locate_weights("resnet19", "default")


class TestBuildNetwork:
    def test_a_head_of_another_size_stays_new(self, tmp_path: Path) -> None:
        original = timm.create_model("test_resnet", num_classes=7)
        save_file(state(original), tmp_path / "weights.safetensors")
        network = build_network(spec("timm/test_resnet"), tmp_path / "weights.safetensors")
        assert_backbone_is(network, state(original), heads=("fc",))
        assert network(torch.randn(2, 3, 32, 32)).shape == (2, 3)

    def test_a_file_without_a_head(self, tmp_path: Path) -> None:
        original = timm.create_model("test_vit", num_classes=0, img_size=32)
        save_file(state(original), tmp_path / "weights.safetensors")
        assert_backbone_is(
            build_network(spec("timm/test_vit"), tmp_path / "weights.safetensors"), state(original), heads=()
        )

    def test_position_embeddings_of_another_size_are_resized(self, tmp_path: Path) -> None:
        original = timm.create_model("test_vit")
        save_file(state(original), tmp_path / "weights.safetensors")
        network = build_network(spec("timm/test_vit", size=64), tmp_path / "weights.safetensors")
        assert_backbone_is(network, state(original), heads=("head", "pos_embed"))
        assert network.backbone.get_parameter("pos_embed").shape != original.pos_embed.shape

    @pytest.mark.parametrize("name", ["efficientnet_lite0", "timm/test_vit"])
    def test_a_checkpoint_of_a_network_includes_its_head(self, name: str, tmp_path: Path) -> None:
        network = build_network(spec(name))
        save_file(state(network), tmp_path / "weights.safetensors")
        again = build_network(spec(name), tmp_path / "weights.safetensors")
        assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in network.state_dict().items())
        again.load_state_dict(state(network))
        wider = build_network(spec(name, classes=4), tmp_path / "weights.safetensors")
        assert wider(torch.randn(2, 3, 32, 32)).shape == (2, 4)

    def test_weights_of_another_network_are_an_error_that_lists_the_differences(self, tmp_path: Path) -> None:
        save_file(state(torchvision.models.resnet34(weights=None)), tmp_path / "weights.safetensors")
        with pytest.raises(WeightsError) as error:
            build_network(spec("torchvision/resnet18"), tmp_path / "weights.safetensors")
        lines = str(error.value).splitlines()
        assert lines[1] == "+ layer1.2.bn1.bias (64,)"
        assert lines[-1].startswith("... and ")
        assert len(lines) == 22

    @pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/shufflenet_v2_x0_5"])
    def test_missing_unexpected_and_misshapen_tensors_are_listed(self, name: str, tmp_path: Path) -> None:
        tensors = {key.removeprefix("backbone."): tensor for key, tensor in state(build_network(spec(name))).items()}
        first, second, *_ = sorted(key for key in tensors if key.endswith("weight") and ".classifier" not in key)
        missing = tuple(tensors.pop(first).shape)
        expected = tuple(tensors[second].shape)
        tensors[second] = torch.zeros(2, 2)
        tensors["extra"] = torch.zeros(1)
        save_file(tensors, tmp_path / "weights.safetensors")
        with pytest.raises(WeightsError) as error:
            build_network(spec(name), tmp_path / "weights.safetensors")
        listed = [line for line in str(error.value).splitlines() if line[:2] in ("- ", "+ ")]
        assert {f"- {first} {missing}", f"- {second} {expected}", f"+ {second} (2, 2)", "+ extra (1,)"} <= set(listed)
        names = [line.split()[1] for line in listed]
        assert names == sorted(names)

    def test_incomplete_files_that_timm_accepts_are_rejected(self, tmp_path: Path) -> None:
        save_file(state(timm.create_model("test_resnet")), tmp_path / "weights.safetensors")
        with pytest.raises(WeightsError, match=r"\n- "):
            build_network(spec("timm/dla46x_c"), tmp_path / "weights.safetensors")
        with pytest.raises(WeightsError, match=r"\n- "):
            build_pretrained_classifier("timm/dla46x_c", tmp_path / "weights.safetensors")


class TestPretrainedClassifiers:
    def test_of_torchvision(self, tmp_path: Path) -> None:
        original = torchvision.models.shufflenet_v2_x0_5(weights=None).eval()
        save_file(state(original), tmp_path / "weights.safetensors")
        network, classes = build_pretrained_classifier("shufflenet_v2_x0_5", tmp_path / "weights.safetensors")
        images = torch.randn(2, 3, 64, 64)
        assert torch.equal(network(images), original(images))
        assert (len(classes), classes[0], classes[308]) == (1000, "tench", "fly")

    def test_of_timm(self, tmp_path: Path) -> None:
        original = timm.create_model("test_resnet").eval()
        save_file(state(original), tmp_path / "weights.safetensors")
        network, classes = build_pretrained_classifier("timm/test_resnet", tmp_path / "weights.safetensors")
        images = torch.randn(2, 3, 64, 64)
        assert torch.equal(network(images), original(images))
        assert (len(classes), classes[0], classes[2]) == (1000, "tench", "great white shark")
        assert "state_dict" not in network.pretrained_cfg

    def test_of_a_network_without_classes(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="has no pretrained classifier"):
            build_pretrained_classifier("vit_small_patch14_dinov2", tmp_path / "weights.pth")

    def test_of_another_network(self, tmp_path: Path) -> None:
        save_file(state(timm.create_model("test_vit")), tmp_path / "weights.safetensors")
        with pytest.raises(WeightsError, match="do not match timm/test_resnet"):
            build_pretrained_classifier("timm/test_resnet", tmp_path / "weights.safetensors")
