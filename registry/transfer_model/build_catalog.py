"""Builds `catalog.json` from the networks in the installed libraries.

    python -m transfer_model.build_catalog

Run this command after every timm or torchvision update. It takes about 20 minutes of CPU time, spread over all cores.
Networks that fail to build are listed under "left out" with the reason.
"""

import json
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from . import catalog
from .backbones import Backbone, installed_backbones
from .catalog import BackboneInfo, Stage
from .errors import ModelError

_NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def compress_stages(stages: Iterable[Stage]) -> dict[str, int | list[int]]:
    """Merges consecutively numbered stages into ranges; the inverse of `catalog.expand_stages`."""
    runs: list[list[Stage]] = []
    for stage in stages:
        if runs and _is_next(runs[-1][-1].name, stage.name):
            runs[-1].append(stage)
        else:
            runs.append([stage])
    return dict(_range_entry(run) for run in runs)


def _is_next(earlier: str, later: str) -> bool:
    numbered = re.fullmatch(r"(.*?)(\d+)", earlier)
    return numbered is not None and later == f"{numbered[1]}{int(numbered[2]) + 1}"


def _range_entry(run: list[Stage]) -> tuple[str, int | list[int]]:
    sizes = [stage.parameters for stage in run]
    last = re.search(r"\d+$", run[-1].name)
    name = f"{run[0].name}..{last[0]}" if len(run) > 1 and last else run[0].name
    return name, sizes[0] if len(set(sizes)) == 1 else sizes


def catalog_entry(info: BackboneInfo, normalizations: dict[str, Any]) -> dict[str, Any]:
    """Converts a `BackboneInfo` to a catalog entry; adds new (mean, std) pairs to `normalizations` in place."""
    prepared = {}
    for weights, preprocessing in info.preprocessings.items():
        pair = (preprocessing.mean, preprocessing.std)
        label = next((label for label, known in normalizations.items() if known == pair), None)
        if label is None:
            label = f"other{len(normalizations)}"
            normalizations[label] = pair
        prepared[weights] = [preprocessing.image_size, preprocessing.crop, preprocessing.interpolation, label]
    return {"features": info.features, "stages": compress_stages(info.stages), "weights": prepared}


def _content() -> dict[str, Any]:
    normalizations: dict[str, Any] = dict(_NORMALIZATIONS)
    networks, left_out = {}, {}
    backbones = installed_backbones()
    # a forked process may wait forever for a lock that a thread of numpy or torch held
    context = get_context("spawn")
    with ProcessPoolExecutor(mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for backbone, result in zip(backbones, pool.map(_describe, backbones, chunksize=8), strict=True):
            if isinstance(result, BackboneInfo):
                networks[backbone.key] = catalog_entry(result, normalizations)
            else:
                left_out[backbone.key] = result
                sys.stderr.write(f"left out: {result}\n")
    return {
        "made with": catalog.library_versions(),
        "normalizations": normalizations,
        "left out": left_out,
        "networks": dict(sorted(networks.items())),
    }


def _describe(backbone: Backbone) -> BackboneInfo | str:
    try:
        return catalog.describe_backbone(backbone, backbone.key)
    except ModelError as error:
        return str(error)


def _lines(content: dict[str, Any]) -> Iterable[str]:
    """Formats JSON with one network per line, so that diffs are readable."""
    yield "{"
    for title, part in content.items():
        yield f'"{title}": {{'
        yield ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in part.items())
        yield "}" if title == "networks" else "},"
    yield "}"


if __name__ == "__main__":
    catalog.FILE.write_text("\n".join(_lines(_content())) + "\n", encoding="utf-8")
