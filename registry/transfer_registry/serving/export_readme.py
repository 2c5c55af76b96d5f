"""The README.md of an exported model: for people who have its folder and nothing else of this project.

Only `export` imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_model import catalog
from transfer_model.backbones import TORCHVISION, timm_cfg
from transfer_model.structure import find_structure

if TYPE_CHECKING:
    from transfer_model.config import ModelConfig
    from transfer_model.network import NetworkSpec

_ONNX = """\
# An image classifier of {count} classes, in ONNX

`model.onnx` has all of it, images in and calibrated probabilities out, and says what it is in its own
metadata: `classes`, `preprocessing`, `ood_threshold` and `temperature`, each JSON. `model.json` repeats that.

| | name | type | what it is |
|---|---|---|---|
| in | `images` | uint8 (N, {size}, {size}, 3) | RGB images, prepared as below; N is any number |
| out | `probabilities` | float32 (N, {count}) | of `classes`, in their order, calibrated |
| out | `novelty` | float32 (N) | 0 to 2, how unlike the training images; unknown above {threshold:.4g} |

It computes in float32{precision}.

## From a file to `images`

{steps}
4. Nothing more: `(x / 255 - mean) / std`, with the mean {mean} and the standard deviation {std} of the
   three channels, is the graph's first step.

## In Python

`pip install numpy pillow onnxruntime`, then `python classify.py PHOTO...` in this folder, with this as
`classify.py`:

```python
{snippet}```
"""

_SNIPPET = """\
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
facts = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
prepare = facts["preprocessing"]
for path in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    side = prepare["crop"] * min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    size, resample = (prepare["image_size"],) * 2, Image.Resampling[prepare["interpolation"].upper()]
    square = image.convert("RGB").resize(size, resample, box=(left, top, left + side, top + side))
    probabilities, novelty = session.run(None, {"images": np.asarray(square)[np.newaxis]})
    answer = dict(zip(facts["classes"], probabilities[0].tolist()))
    label, unknown = max(answer, key=answer.get), float(novelty[0]) > facts["threshold"]
    print(json.dumps({"file": path, "label": label, "probabilities": answer, "ood_score": float(novelty[0]),
                      "unknown": unknown}))
"""

_SAFETENSORS = """\
# An image classifier of {count} classes, in safetensors

| file | what it is |
|---|---|
| `model.json` | network, classes in the order of the outputs, preprocessing, temperature, threshold |
| `weights.safetensors` | of {library}'s `{architecture}`, {size} x {size} pixels, {count} classes |
| `reference.safetensors` | `features` (M, F) of some training images, see below |

A tensor is called `backbone.` and then what {library} calls it. The new classifier, a linear layer or a 1x1
convolution behind dropout, stands where {library}'s own stood, under one more name: `....classifier.weight`,
`....classifier.bias`.

{loading}

## From a file to the network's input

{steps}
4. `(x / 255 - mean) / std` for each channel: mean {mean}, standard deviation {std}. The input is float32
   (N, 3, {size}, {size}), channels first.

## From the network's output to an answer

- The probabilities are `softmax(logits / {temperature})`{precision}.
- The novelty is 1 minus the largest cosine similarity of the image's features with a row of `features`;
  the features are what the classifier's last layer is given, averaged over positions where there are several.
  An image with a novelty above {threshold} is called unknown.
"""

_LOADING = """\
```python
import re

import {library}
from safetensors.torch import load_file

network = {build}
weights = load_file("weights.safetensors")
network.load_state_dict({{
    re.sub(r"\\.classifier\\.(weight|bias)$", r".\\1", name.removeprefix("backbone.")): tensor
    for name, tensor in weights.items()
}})
network.eval()
```"""

_POOLED = """\
{library} has no classifier for this network: what it calls its tensors follows `backbone.encoder.`, and
`backbone.head.classifier` is a linear layer on the mean of the encoder's output over all positions."""

_STEPS = """\
1. Decode the file (of an animation the first frame), turn it upright by its EXIF orientation, lay
   transparency on white, and convert to 8-bit RGB. Deeper greyscale is scaled to 0 to 255 first.
2. Take the centre square whose side is {crop} of the image's shorter side. Nothing is rounded:
   `side = {crop} * min(width, height)`, `left = (width - side) / 2`, `top = (height - side) / 2`.
3. Scale it to {size} x {size} pixels in one resampling with Pillow's filter {filter}:
   `image.resize(({size}, {size}), Image.Resampling.{filter}, box=(left, top, left + side, top + side))`.
   A filter of the same name in another library gives other pixels where an image shrinks."""


def onnx_readme(description: ModelConfig) -> str:
    """What stands beside `model.onnx`, with a program that classifies photographs from their files."""
    return _ONNX.format(snippet=_SNIPPET, **_facts(description))


def safetensors_readme(description: ModelConfig) -> str:
    """What stands beside the safetensors files, with the lines that load them."""
    backbone = catalog.resolve(description.network.backbone)
    library = "torchvision" if backbone.library == TORCHVISION else "timm"
    architecture = backbone.architecture if library == "torchvision" else backbone.timm_name.split(".")[0]
    pooled = find_structure(backbone, description.network.image_size).pooled
    loading = (_POOLED if pooled else _LOADING).format(library=library, build=_build(description.network))
    return _SAFETENSORS.format(
        library=library, architecture=architecture, loading=loading, **_facts(description)
    )


def _build(spec: NetworkSpec) -> str:
    """The call that builds the library's network, as `transfer_model.backbones` builds it."""
    backbone = catalog.resolve(spec.backbone)
    if backbone.library == TORCHVISION:
        options = f", num_classes={spec.classes}"
        if backbone.architecture.startswith("vit_"):
            options += f", image_size={spec.image_size}"
        if backbone.architecture in ("googlenet", "inception_v3"):
            options += ", transform_input=True"
        return f'torchvision.models.get_model("{backbone.architecture}"{options})'
    fixed = f", img_size={spec.image_size}" if timm_cfg(backbone).fixed_input_size else ""
    return f'timm.create_model("{backbone.timm_name.split(".")[0]}", num_classes={spec.classes}{fixed})'


def _facts(description: ModelConfig) -> dict[str, object]:
    prepare = description.preprocessing
    size, resample = prepare.image_size, prepare.interpolation.upper()
    served = description.precision
    return {
        "count": len(description.classes),
        "size": size,
        "mean": list(prepare.mean),
        "std": list(prepare.std),
        "temperature": description.temperature,
        "threshold": description.unknown.threshold,
        "steps": _STEPS.format(crop=prepare.crop, size=size, filter=resample),
        "precision": "" if served == "float32" else f"; the registered model computes in {served}",
    }
