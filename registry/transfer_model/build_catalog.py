"""Makes `catalog.json`: looks at every network of the installed libraries and writes down its parts.

    python -m transfer_model.survey

takes some twenty minutes of processor time, spread over all cores, and is run again whenever timm or
torchvision is raised; networks that a library cannot build stand in the file under "left out", with the
reason.
"""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from . import catalog
from .backbones import Backbone, installed, preprocessings
from .catalog import BackboneInfo, Stage
from .errors import ModelError
from .structure import find_structure

if TYPE_CHECKING:
    from collections.abc import Iterable

_NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def describe_backbone(backbone: Backbone, name: str) -> BackboneInfo:
    """Asks the installed library for what a catalogue says of a network.

    Raises:
        ModelError: The library cannot build it.
    """
    prepared = preprocessings(backbone)
    preprocessing = next(iter(prepared.values()))
    anatomy = find_structure(backbone, preprocessing.image_size)
    stages = tuple(map(Stage, anatomy.stages, anatomy.sizes))
    return BackboneInfo(
        name=name,
        library=backbone.library,
        parameters=sum(stage.parameters for stage in stages),
        features=anatomy.features,
        stages=stages,
        preprocessing=preprocessing,
        weights=tuple(weights for weights in prepared if weights),
        preprocessings=prepared,
    )


def compress_stages(stages: Iterable[Stage]) -> dict[str, int | list[int]]:
    """Holds consecutively numbered stages together, the reverse of `catalog.expanded`."""
    runs: list[list[Stage]] = []
    for stage in stages:
        if runs and _follows(runs[-1][-1].name, stage.name):
            runs[-1].append(stage)
        else:
            runs.append([stage])
    return dict(_entry(run) for run in runs)


def _follows(earlier: str, later: str) -> bool:
    first, second = (re.fullmatch(r"(.*?)(\d+)", name) for name in (earlier, later))
    return bool(first and second and first[1] == second[1] and int(first[2]) + 1 == int(second[2]))


def _entry(run: list[Stage]) -> tuple[str, int | list[int]]:
    sizes = [stage.parameters for stage in run]
    last = re.search(r"\d+$", run[-1].name)
    name = f"{run[0].name}..{last[0]}" if len(run) > 1 and last else run[0].name
    same = all(one == other for one, other in pairwise(sizes))
    return name, sizes[0] if same else sizes


def catalog_entry(outline: BackboneInfo, normalisations: dict[str, Any]) -> dict[str, Any]:
    """Writes an outline as one entry of the catalogue; new normalisations are added to those given."""
    prepared = {}
    for weights, preprocessing in outline.preprocessings.items():
        pair = (preprocessing.mean, preprocessing.std)
        label = next((label for label, known in normalisations.items() if known == pair), None)
        if label is None:
            label = f"other{len(normalisations)}"
            normalisations[label] = pair
        prepared[weights] = [preprocessing.image_size, preprocessing.crop, preprocessing.interpolation, label]
    return {"features": outline.features, "stages": compress_stages(outline.stages), "weights": prepared}


def _content() -> dict[str, Any]:
    normalisations: dict[str, Any] = dict(_NORMALISATIONS)
    networks, left_out = {}, {}
    backbones = installed()
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for backbone, found in zip(backbones, pool.map(_described, backbones, chunksize=8), strict=True):
            if isinstance(found, BackboneInfo):
                networks[backbone.key] = catalog_entry(found, normalisations)
            else:
                left_out[backbone.key] = found
                sys.stderr.write(f"left out: {found}\n")
    return {
        "made with": catalog.library_versions(),
        "normalisations": normalisations,
        "left out": left_out,
        "networks": dict(sorted(networks.items())),
    }


def _described(backbone: Backbone) -> BackboneInfo | str:
    try:
        return describe_backbone(backbone, backbone.key)
    except ModelError as error:
        return str(error)


def _lines(content: dict[str, Any]) -> Iterable[str]:
    """JSON with one network a line, so that differences between versions can be read."""
    yield "{"
    for title, part in content.items():
        yield f'"{title}": {{'
        yield ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in part.items())
        yield "}" if title == "networks" else "},"
    yield "}"


if __name__ == "__main__":
    catalog.FILE.write_text("\n".join(_lines(_content())) + "\n", encoding="utf-8")
