"""One network of every family: saved, loaded and served, then frozen at every stage.

Each family is represented by its smallest network at its smallest image size, with random weights and a batch
of two; networks of more than 50 million parameters are frozen at four stages instead of all.
"""

from __future__ import annotations

import importlib
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision

from transfer_model.builtin_networks import NETWORKS
from transfer_model.classifier import save
from transfer_model.decode import decode
from transfer_model.model_json import ModelConfig, OodThreshold
from transfer_model.network import Network, NetworkSpec, build_network
from transfer_model.ood import OodScorer
from transfer_model.preprocessing import Preprocessing
from transfer_platform.sources.png import encode_png
from transfer_platform.training.network_cache import freeze_through

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

with warnings.catch_warnings():
    # MLflow warns of one of its own type hints while it is imported.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    importlib.import_module("mlflow.pyfunc")

CLASSES = 3
LARGE = 50_000_000

FAMILIES = {
    **{f"builtin/{name}": (name, 32) for name in NETWORKS},
    "timm/beit": ("beit_base_patch16_224", 32),
    "timm/byoanet": ("eca_botnext26ts_256", 32),
    "timm/byobnet": ("test_byobnet", 32),
    "timm/cait": ("cait_xxs24_224", 32),
    "timm/coat": ("coat_tiny", 32),
    "timm/convit": ("convit_tiny", 32),
    "timm/convmixer": ("convmixer_768_32", 32),
    "timm/convnext": ("test_convnext", 32),
    "timm/cpubone": ("cpubone_nano", 32),
    "timm/crossvit": ("crossvit_tiny_240", 240),
    "timm/csatv2": ("csatv2", 64),
    "timm/cspnet": ("cs3darknet_focus_s", 32),
    "timm/cspnext": ("cspnext_tiny", 32),
    "timm/davit": ("davit_tiny", 32),
    "timm/deepseek_vit": ("deepseek_vit_412m", 112),
    "timm/deit": ("deit_tiny_patch16_224", 32),
    "timm/densenet": ("densenet121", 32),
    "timm/dla": ("dla46x_c", 32),
    "timm/dpn": ("dpn48b", 32),
    "timm/edgenext": ("edgenext_xx_small", 32),
    "timm/efficientformer": ("efficientformer_l1", 224),
    "timm/efficientformer_v2": ("efficientformerv2_s0", 32),
    "timm/efficientnet": ("test_efficientnet", 32),
    "timm/efficientvim": ("efficientvim_m1", 32),
    "timm/efficientvit_mit": ("efficientvit_b0", 32),
    "timm/efficientvit_msra": ("efficientvit_m0", 32),
    "timm/eva": ("eva02_tiny_patch14_224", 32),
    "timm/fasternet": ("fasternet_t0", 32),
    "timm/fastvit": ("fastvit_t8", 32),
    "timm/focalnet": ("focalnet_tiny_srf", 32),
    "timm/gcvit": ("gcvit_xxtiny", 32),
    "timm/gemma4_vit": ("gemma4_vit_167m_enc", 48),
    "timm/ghostnet": ("ghostnet_050", 32),
    "timm/hardcorenas": ("hardcorenas_b", 32),
    "timm/hgnet": ("hgnetv2_b0", 32),
    "timm/hiera": ("hiera_tiny_224", 32),
    "timm/hieradet_sam2": ("sam2_hiera_tiny", 32),
    "timm/hrnet": ("hrnet_w18_small", 32),
    "timm/iformer": ("iformer_t", 32),
    "timm/inception_next": ("inception_next_atto", 32),
    "timm/inception_resnet_v2": ("inception_resnet_v2", 96),
    "timm/inception_v3": ("inception_v3", 96),
    "timm/inception_v4": ("inception_v4", 96),
    "timm/lcnetv2": ("lcnetv2_small", 32),
    "timm/levit": ("levit_128s", 32),
    "timm/lowformer": ("lowformer_b0", 32),
    "timm/mambaout": ("test_mambaout", 32),
    "timm/maxxvit": ("test_coatnet", 32),
    "timm/metaformer": ("poolformerv2_s12", 32),
    "timm/mlp_mixer": ("gmlp_ti16_224", 32),
    "timm/mobilenetv3": ("lcnet_035", 32),
    "timm/mobilenetv5": ("mobilenetv5_base", 32),
    "timm/mobilevit": ("mobilevit_xxs", 32),
    "timm/mvitv2": ("mvitv2_tiny", 32),
    "timm/naflexvit": ("naflexvit_base_patch16_parfac_gap", 32),
    "timm/nasnet": ("nasnetalarge", 32),
    "timm/nest": ("nest_tiny", 32),
    "timm/nextvit": ("nextvit_small", 32),
    "timm/nfnet": ("test_nfnet", 32),
    "timm/pit": ("pit_ti_224", 32),
    "timm/pnasnet": ("pnasnet5large", 32),
    "timm/pvt_v2": ("pvt_v2_b0", 32),
    "timm/qwen3_vit": ("qwen3_vit_88m", 32),
    "timm/rdnet": ("rdnet_tiny", 32),
    "timm/regnet": ("regnetx_002", 32),
    "timm/repghost": ("repghostnet_050", 32),
    "timm/repvit": ("repvit_m1", 32),
    "timm/res2net": ("res2next50", 32),
    "timm/resnest": ("resnest14d", 32),
    "timm/resnet": ("test_resnet", 32),
    "timm/resnetv2": ("resnetv2_18", 32),
    "timm/rexnet": ("rexnet_100", 32),
    "timm/selecsls": ("selecsls42", 32),
    "timm/senet": ("legacy_seresnet18", 32),
    "timm/sequencer": ("sequencer2d_s", 32),
    "timm/shvit": ("shvit_s1", 32),
    "timm/sknet": ("skresnet18", 32),
    "timm/starnet": ("starnet_s050", 32),
    "timm/swiftformer": ("swiftformer_xs", 32),
    "timm/swin_transformer": ("swin_tiny_patch4_window7_224", 32),
    "timm/swin_transformer_v2": ("swinv2_tiny_window8_256", 32),
    "timm/swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 32),
    "timm/tiny_vit": ("tiny_vit_5m_224", 32),
    "timm/tnt": ("tnt_s_legacy_patch16_224", 32),
    "timm/tresnet": ("tresnet_m", 32),
    "timm/twins": ("twins_svt_small", 32),
    "timm/vgg": ("vgg11", 32),
    "timm/visformer": ("visformer_tiny", 32),
    "timm/vision_transformer": ("test_vit", 32),
    "timm/vision_transformer_hybrid": ("vit_base_mci_224", 32),
    "timm/vision_transformer_relpos": ("test_vit_relpos", 32),
    "timm/vision_transformer_sam": ("samvit_base_patch16_224", 32),
    "timm/vitamin": ("vitamin_small_224", 32),
    "timm/volo": ("volo_d1_224", 32),
    "timm/vovnet": ("ese_vovnet19b_slim_dw", 32),
    "timm/xception": ("legacy_xception", 32),
    "timm/xception_aligned": ("xception41", 32),
    "timm/xcit": ("xcit_nano_12_p16_224", 32),
    "torchvision/alexnet": ("alexnet", 64),
    "torchvision/convnext": ("convnext_tiny", 32),
    "torchvision/densenet": ("densenet121", 32),
    "torchvision/efficientnet": ("efficientnet_b0", 32),
    "torchvision/googlenet": ("googlenet", 32),
    "torchvision/inception": ("inception_v3", 96),
    "torchvision/maxvit": ("maxvit_t", 224),
    "torchvision/mnasnet": ("mnasnet0_5", 32),
    "torchvision/mobilenetv2": ("mobilenet_v2", 32),
    "torchvision/mobilenetv3": ("mobilenet_v3_small", 32),
    "torchvision/regnet": ("regnet_y_400mf", 32),
    "torchvision/resnet": ("resnet18", 32),
    "torchvision/shufflenetv2": ("shufflenet_v2_x0_5", 32),
    "torchvision/squeezenet": ("squeezenet1_1", 32),
    "torchvision/swin_transformer": ("swin_t", 32),
    "torchvision/vgg": ("vgg11", 32),
    "torchvision/vision_transformer": ("vit_b_16", 32),
}
"""Name of a network and image size in pixels, by library and module."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Uses one thread: small batches gain nothing from a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_family_is_represented() -> None:
    builders = map(torchvision.models.get_model_builder, torchvision.models.list_models(module=torchvision.models))
    known = {f"torchvision/{builder.__module__.rpartition('.')[2]}" for builder in builders}
    known |= {f"timm/{module}" for module in timm.list_modules() if timm.list_models(module=module)}
    known |= {f"builtin/{name}" for name in NETWORKS}
    assert known == set(FAMILIES)


@pytest.fixture(scope="module", params=FAMILIES)
def network(request: pytest.FixtureRequest) -> Network:
    """A family's network, built once; the tests of a family run one after the other."""
    family = request.param
    name, size = FAMILIES[family]
    torch.manual_seed(0)
    torch.manual_seed(0)
    return build_network(NetworkSpec(f"{family.partition('/')[0]}/{name}", CLASSES, 0.1, size))


def test_a_saved_network_is_served_with_its_probabilities(network: Network, tmp_path: Path) -> None:
    from transfer_model.pyfunc import ImageClassifier

    size, classes, half = network.spec.image_size, ("a", "b", "c"), (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(size, 1.0, "bicubic", half, half)
    config = ModelConfig(network.spec, classes, preprocessing, "float32", 1.0, OodThreshold(0.3, 0.05))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3 * size * size), dtype=np.uint8)
    images = [encode_png(row.tobytes(), size, 3) for row in pixels]
    features: list[torch.Tensor] = []
    with torch.inference_mode(), network.eval().register_feature_hook(features.append):
        logits = network(torch.stack([preprocessing(decode(image)) for image in images]))

    save(tmp_path, config, network, OodScorer(features[0]))
    served = ImageClassifier()
    served.load_context(SimpleNamespace(artifacts={"model": str(tmp_path)}))
    rows = served.predict(None, pd.DataFrame({"image": images}))
    for file in tmp_path.iterdir():
        file.unlink()  # up to 1.6 GB

    probabilities = [
        [{each["label"]: each["probability"] for each in row["top"]}[name] for name in classes] for row in rows
    ]
    np.testing.assert_allclose(probabilities, logits.softmax(dim=1).numpy(), rtol=0, atol=1e-4)
    assert all(0 <= row["ood_score"] < 1e-4 for row in rows)


def test_frozen_stages_stay_bitwise_equal(network: Network) -> None:
    torch.manual_seed(1)
    images = torch.randn(2, 3, network.spec.image_size, network.spec.image_size)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trainable_sizes = {name: p.numel() for name, p in network.named_parameters() if p.requires_grad}
    for count in counts(network):
        stage = network.stages[count - 1] if count else "none"
        frozen = frozen_names(network, count)
        trainable = freeze_through(network, stage)
        assert trainable == sum(size for name, size in trainable_sizes.items() if name not in frozen), stage
        step(network, images, stage)
        after = network.state_dict()
        changed = [name for name in frozen if differs(before[name], after[name])]
        assert not changed, stage
        heads = tuple(f"backbone.{head}." for head in network._structure.heads)
        assert any(differs(before[name], after[name]) for name in before if name.startswith(heads)), stage


def counts(network: Network) -> list[int]:
    """Numbers of frozen stages in descending order, so that frozen stages were never trained before."""
    last = len(network.stages)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return [last, last // 2, 1, 0] if parameters > LARGE else list(reversed(range(last + 1)))


def frozen_names(network: Network, count: int) -> set[str]:
    """Returns all names of the tensors that must not change (CoaT shares modules)."""
    if count == 0:
        return set()
    structure = network._structure
    tensors = network.state_dict(keep_vars=True)

    def within(parts: list[str]) -> set[int]:
        beginnings = tuple(f"backbone.{part}." for part in parts)
        return {id(tensor) for name, tensor in tensors.items() if name.startswith(beginnings)}

    frozen = [
        *structure.stages[:count],
        *(extra.branch for extra in structure.auxiliary if extra.stages_before <= count),
    ]
    parts = [*structure.stages, *structure.heads, *(extra.branch for extra in structure.auxiliary)]
    fixed = within(frozen) | ({id(tensor) for tensor in tensors.values()} - within(parts))
    return {name for name, tensor in tensors.items() if id(tensor) in fixed}


def step(network: Network, images: torch.Tensor, stage: str) -> None:
    """Runs one training step; frozen stages must not propagate gradients, and the next stage must get one."""
    attached: list[bool] = []
    hooks = []
    if stage != "none":
        module = network.backbone.get_submodule(stage)
        hooks = [module.register_forward_hook(lambda _module, _inputs, output: attached.append(tracked(output)))]
    optimizer = torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=1e-3)
    network.train()
    logits, auxiliary = network.forward_with_auxiliary(images)
    loss = sum(torch.nn.functional.cross_entropy(each, torch.tensor([0, 1])) for each in (logits, *auxiliary))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for hook in hooks:
        hook.remove()
    assert not any(attached[:1]), stage  # a module that runs again later may get trainable inputs
    if network.frozen < len(network.stages):
        first = network.stages[network.frozen]
        assert any(p.grad is not None for p in network.stage_parameters(first)), first


def tracked(output: object) -> bool:
    if isinstance(output, torch.Tensor):
        return output.requires_grad
    return any(map(tracked, output)) if isinstance(output, (tuple, list)) else False


def differs(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compares bits, so that NaN equals itself."""
    return not torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))
