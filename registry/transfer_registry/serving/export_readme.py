"""README.md of an exported model, for users who have only the exported folder."""

from dataclasses import asdict

from transfer_model import catalog
from transfer_model.backbones import BUILTIN, TORCHVISION, timm_cfg
from transfer_model.intensity import describe
from transfer_model.model_json import ModelConfig
from transfer_model.neighbors import VOTE_TEMPERATURE
from transfer_model.network import NetworkSpec
from transfer_model.structure import find_structure
from transfer_registry.serving.export_program import program

BUILTIN_MODULE = "builtin_networks"
"""Module with this project's own networks, which is copied into exports of such networks."""

_ONNX = """\
# Image classifier with {count} classes (ONNX)

`model.onnx` takes image pixels and returns calibrated probabilities. Its metadata contains `classes`,
`preprocessing`, `threshold` and `temperature`, each encoded as JSON; `model.json` contains the same values.

| | name | type | description |
|---|---|---|---|
| input | `images` | uint8 (N, {size}, {size}, 3) | RGB images, prepared as described below |
| output | `probabilities` | float32 (N, {count}) | calibrated, in the same order as `classes` |
| output | `ood_score` | float32 (N,) | out-of-distribution score (0 to 2); images above {threshold:.4g} are unknown |

The batch size N is arbitrary. The graph computes in float32{precision}.

## Preprocessing

{steps}
4. Do not normalize: the graph itself computes `(x / 255 - mean) / std` with the per-channel mean {mean}
   and standard deviation {std}.

## Program

```bash
pip install {requirements} onnxruntime
python classify.py IMAGE...
```

`classify.py` prepares images with the registered model's own code (`image_preprocessing/`). With another version
of Pillow, pixels may differ slightly from those of the registered model. The program prints one JSON line per image:

```python
{program}```
"""

_SAFETENSORS = """\
# Image classifier with {count} classes (safetensors)

| file | content |
|---|---|
| `model.json` | network, classes in output order, preprocessing, temperature, threshold |
| `weights.safetensors` | weights of {library}'s `{architecture}`, {size} x {size} pixels, {count} classes |
| `reference.safetensors` | `features` (M, F) of training images, used to compute the out-of-distribution score |

Tensor names are `backbone.` followed by the name in {library}. The {library} classifier is replaced by
{head}

{loading}

## Preprocessing

{steps}
4. Normalize each channel with `(x / 255 - mean) / std`: mean {mean}, standard deviation {std}. The input is
   float32 (N, 3, {size}, {size}).

## Predictions

- The probabilities are `softmax(logits / {temperature})`{precision}.{labels}
- The out-of-distribution score is 1 minus the largest cosine similarity between the image's features and a
  row of `features`. The features are the input to the last layer, averaged over all positions if there are
  several. Images with a score above {threshold} are flagged as unknown.
"""

_LABELS = """ The network has an output for each pretrained label:
  `logits = torch.stack([part.logsumexp(1) for part in outputs.split({labels}, 1)], 1)`"""

_LINEAR = """\
dropout and a linear layer or 1x1 convolution, whose tensor names end in `.classifier.weight` and `.classifier.bias`."""

_NEIGHBORS = """\
a nearest-neighbor classifier, whose tensor names begin with `backbone.{name}.classifier.`: the `features` (N, F)
of {images} training images, scaled to unit length, their class indices `labels` (N,) and weights `votes` (N,)."""

_NEIGHBOR_LOADING = """\
```python
import {library}
import torch
from safetensors.torch import load_file

tensors = {{name.removeprefix("backbone."): tensor for name, tensor in load_file("weights.safetensors").items()}}
stored, labels, votes = (tensors.pop(f"{name}.classifier.{{part}}") for part in ("features", "labels", "votes"))
{encoder}

def network(images):
    features = torch.nn.functional.normalize(encoder(images))
    similarities, rows = (features @ stored.T).topk({k})
    weights = votes[rows] * ((similarities - similarities[:, :1]) / {vote_temperature}).exp()
    shares = torch.zeros(len(images), {count}).scatter_add(1, labels[rows], weights)
    return ({smoothing} / {count} + (1 - {smoothing}) * shares / shares.sum(1, keepdim=True)).log()
```"""

_ENCODER = """\
encoder = {build}
encoder.set_submodule("{name}", torch.nn.Identity())
encoder.load_state_dict(tensors)
encoder.eval()"""

_POOLED_ENCODER = """\
encoder = ...  # {library}'s network, whose tensor names follow `encoder.`; average its output over all positions"""

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
This network has no classifier in {library}: encoder tensors are named `backbone.encoder.` followed by the
name in {library}, and `backbone.head.classifier` is a linear layer applied to the encoder output averaged
over all positions."""

_STEPS = """\
1. Decode the file (only the first frame of an animation), apply the EXIF orientation, composite transparent
   images over white, and convert to 8-bit RGB. {intensity}
2. Compute the center square whose side is {crop} times the shorter image side, without rounding:
   `side = {crop} * min(width, height)`, `left = (width - side) / 2`, `top = (height - side) / 2`.
3. Crop to this square and resize to {size} x {size} pixels in one step with Pillow's {filter} filter:
   `image.resize(({size}, {size}), Image.Resampling.{filter}, box=(left, top, left + side, top + side))`.
   Filters with the same name in other libraries produce different pixels when an image is downscaled."""


def onnx_readme(config: ModelConfig, requirements: str) -> str:
    """Returns the README for `model.onnx`, including the program that classifies image files.

    `requirements` is a space-separated list of the packages that the program needs besides ONNX Runtime.
    """
    return _ONNX.format(program=program(config), requirements=requirements, **_values(config))


def safetensors_readme(config: ModelConfig) -> str:
    """Returns the README for the safetensors files, including code that loads them."""
    backbone = catalog.resolve(config.network.backbone)
    library = {BUILTIN: BUILTIN_MODULE, TORCHVISION: "torchvision"}.get(backbone.library, "timm")
    architecture = backbone.timm_name.split(".")[0] if library == "timm" else str(config.network.backbone)
    structure = find_structure(backbone, config.network.image_size)
    values = {"library": library, "build": _build_call(config.network), "name": structure.heads[0], **_values(config)}
    head, loading = _LINEAR, _POOLED if structure.pooled else _LOADING
    if neighbors := config.network.neighbors:
        encoder = (_POOLED_ENCODER if structure.pooled else _ENCODER).format(**values)
        values |= {**asdict(neighbors), "encoder": encoder, "vote_temperature": VOTE_TEMPERATURE}
        head, loading = _NEIGHBORS, _NEIGHBOR_LOADING
    loaded = {"head": head.format(**values), "loading": loading.format(**values)}
    return _SAFETENSORS.format(architecture=architecture, **loaded, **values)


def _build_call(spec: NetworkSpec) -> str:
    """Returns a call that does not need this project and builds the same network as `transfer_model.backbones`."""
    backbone = catalog.resolve(spec.backbone)
    if backbone.library == BUILTIN:
        keywords = ", ".join(f"{name}={value!r}" for name, value in backbone.options.items())
        return f'{BUILTIN_MODULE}.NETWORKS["{backbone.architecture}"]({keywords}).build({spec.outputs})'
    if backbone.library == TORCHVISION:
        options = f", num_classes={spec.outputs}"
        if backbone.architecture.startswith("vit_"):
            options += f", image_size={spec.image_size}"
        if backbone.architecture in ("googlenet", "inception_v3"):
            options += ", transform_input=True"
        return f'torchvision.models.get_model("{backbone.architecture}"{options})'
    options = f", img_size={spec.image_size}" if timm_cfg(backbone).fixed_input_size else ""
    return f'timm.create_model("{backbone.timm_name.split(".")[0]}", num_classes={spec.outputs}{options})'


def _values(config: ModelConfig) -> dict[str, object]:
    preprocessing = config.preprocessing
    size, resample = preprocessing.image_size, preprocessing.interpolation.upper()
    return {
        "count": len(config.classes),
        "size": size,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "temperature": config.temperature,
        "threshold": config.unknown.threshold,
        "steps": _STEPS.format(
            crop=preprocessing.crop, size=size, filter=resample, intensity=describe(preprocessing.intensity)
        ),
        "labels": _LABELS.format(labels=list(config.network.labels)) if config.network.labels else "",
        "precision": "" if config.precision == "float32" else f"; the registered model computes in {config.precision}",
    }
