"""Locates pretrained weights: bundled, local, cached by a library, or online."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import backbones, catalog
from .architecture import Architecture
from .backbones import BUNDLED, TORCHVISION
from .errors import WeightsError, suggestion
from .weights_path import is_weights_file, weights_problem

NONE = "none"
DEFAULT = "default"

_HASHED = re.compile(r"-([0-9a-f]{8,64})\.[a-z.]+$")
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class WeightSource:
    """Location of pretrained weights.

    Attributes:
        name: `none`, the library's name for the weights, or the name of the local file.
        path: Path of the file, if it is on this machine.
        url: Public URL, which identifies the file in caches and mirrors; None if `path` is set or `name` is `none`.
        sha256_prefix: First hexadecimal digits of the SHA-256 checksum, if the file name contains them.
        cached: Files with these weights in the caches of Hugging Face and torch.hub, in order of preference.
        endpoint: URL to download from; differs from `url` if `HF_ENDPOINT` is set.
        offline: Reason that downloading the file is not allowed; empty if it is allowed.
    """

    name: str
    path: Path | None = None
    url: str | None = None
    sha256_prefix: str | None = None
    cached: tuple[Path, ...] = ()
    endpoint: str | None = None
    offline: str = ""


def locate_weights(backbone: Architecture | str, weights: str) -> WeightSource:
    """Locates weights without downloading or opening them.

    Args:
        backbone: Architecture or name accepted by `catalog.resolve`.
        weights: `default`, `none`, a torchvision enum member such as `IMAGENET1K_V2`, a timm tag such as `a1_in1k`,
            or the path to a local safetensors or torch file.

    Raises:
        UnknownBackboneError: No library provides this backbone.
        WeightsError: The backbone has no such weights, or the file does not exist or is not a weights file.
    """
    resolved = catalog.resolve(backbone)
    if weights == NONE:
        return WeightSource(NONE)
    if is_weights_file(weights):
        return _local(Path(weights).expanduser())
    name = _weights_name(backbone, weights, catalog.backbone_info(backbone).weights)
    if resolved.library == BUNDLED:
        return WeightSource(name, path=backbones.BUNDLED_NETWORKS[resolved.architecture].weights_file)
    if resolved.library == TORCHVISION:
        url = backbones.torchvision_weights(resolved.architecture)[name].url
        return WeightSource(name, None, url, file_sha256_prefix(url), tuple(_torch_hub_files(url)), url)
    return _timm_source(name, backbones.timm_cfg(resolved, name))


def _local(path: Path) -> WeightSource:
    if problem := weights_problem(path):
        raise WeightsError(problem)
    return WeightSource(path.name, path=path)


def _weights_name(backbone: Architecture | str, weights: str, known: tuple[str, ...]) -> str:
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


def file_sha256_prefix(name: str) -> str | None:
    """Returns the first digits of the SHA-256 checksum in a file name or URL such as `resnet50-0676ba61.pth`."""
    hashed = _HASHED.search(name)
    return hashed[1] if hashed else None


def _timm_source(name: str, cfg: Any) -> WeightSource:  # noqa: ANN401 - timm's PretrainedCfg
    """Locates a timm file. As in timm, `HF_ENDPOINT` sets the server, and `HF_HUB_OFFLINE` forbids downloads.

    A URL with a checksum in its file name is preferred over Hugging Face, unless `HF_ENDPOINT` is set.
    """
    from huggingface_hub import constants

    url = "" if cfg.custom_load else str(cfg.url or "")
    cached = (*_hugging_face_files(cfg), *_torch_hub_files(url))
    offline = "HF_HUB_OFFLINE is set" if cfg.hf_hub_id and constants.HF_HUB_OFFLINE else ""
    if cfg.hf_hub_id and (constants.ENDPOINT != _HUB or not file_sha256_prefix(url)):
        repository, _, revision = cfg.hf_hub_id.partition("@")
        path = f"/{repository}/resolve/{revision or 'main'}/{cfg.hf_hub_filename or 'model.safetensors'}"
        return WeightSource(name, None, _HUB + path, None, cached, constants.ENDPOINT + path, offline)
    url = url or str(cfg.url or "")
    return WeightSource(name, None, url, file_sha256_prefix(url), cached, url, offline)


def _hugging_face_files(cfg: Any) -> Iterator[Path]:  # noqa: ANN401 - timm's PretrainedCfg
    """Yields the files in Hugging Face's cache; the safetensors file is first because timm prefers it."""
    from huggingface_hub import try_to_load_from_cache

    if not cfg.hf_hub_id:
        return
    repository, _, revision = cfg.hf_hub_id.partition("@")
    name = cfg.hf_hub_filename or "pytorch_model.bin"
    safe = f"{name.removesuffix('.bin').replace('pytorch_model', 'model')}.safetensors"
    for candidate in (safe, name) if name.endswith(".bin") else (name,):
        found = try_to_load_from_cache(repository, candidate, revision=revision or None)
        if isinstance(found, str):
            yield Path(found)


def _torch_hub_files(url: str) -> Iterator[Path]:
    """Yields the file that torchvision or timm downloaded from `url` to torch.hub's cache, if it exists."""
    import torch

    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    if file.is_file():
        yield file
