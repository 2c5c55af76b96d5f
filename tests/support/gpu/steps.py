"""What `tests/integration/test_null_cuda.py` runs on GPUs: `python steps.py FUNCTION` prints its result as JSON."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import torch

from transfer_model.network import Network, NetworkSpec, build_network
from transfer_platform.errors import is_out_of_memory
from transfer_platform.partition.split import partition_network
from transfer_platform.recipe.schema import Recipe
from transfer_platform.training.hardware import describe_hardware
from transfer_platform.training.precision import fastest_precision, select_precision
from transfer_platform.training.stored_features import FrozenPrefix

GPUS = (torch.device("cuda:0"), torch.device("cuda:1"))
RECIPE = Recipe.model_validate(
    {
        "name": "colors",
        "dataset": {"source": "images", "splits": {"train": ".", "test": 0.2}},
        "backbone": {"name": "efficientnet_lite0", "freeze_through": "none"},
    }
)


def network(name: str) -> Network:
    torch.manual_seed(0)
    return build_network(NetworkSpec(name, classes=3, dropout=0.0, image_size=64)).to(GPUS[0])


def timed_precisions() -> list[list[str]]:
    """The precisions in which steps on each GPU are timed."""
    found = []
    for gpu in GPUS:
        timed: set[str] = set()

        def step(timed: set[str] = timed) -> None:
            dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else torch.float32
            timed.add(str(dtype).removeprefix("torch."))

        fastest_precision(gpu, step)
        found.append(sorted(timed))
    return found


def addresses() -> list[dict[str, str]]:
    """The description of each GPU and the address of features that were computed on it."""
    images = SimpleNamespace(preprocessing="S = 64")
    prefixes = [FrozenPrefix(SimpleNamespace(digest="0"), "float32", gpu, 64) for gpu in GPUS]
    return [{**describe_hardware(prefix.device), "address": prefix.address(images)} for prefix in prefixes]


def verify_split() -> list[int]:
    """Splits a network between two forward passes, with TF32 allowed everywhere; returns the shape of the features.

    The network has no batch norm, which is not computed on the CPU while cuDNN is enabled.
    """
    import emulate

    torch.backends.cudnn.enabled = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    with emulate.Emulated():
        frozen = network("convnext_atto").eval()
        frozen.freeze(len(frozen.stages))
        images = torch.zeros(2, 3, 64, 64, device=GPUS[0])
        frozen(images)
        sys.stderr.write("split\n")
        shape = partition_network(frozen).shape
        sys.stderr.write("split\n")
        frozen(images)
    return list(shape)


def without_memory() -> dict[str, object]:
    """The error of a forward pass, and the selected precision."""
    tested = network("efficientnet_lite0")
    try:
        tested(torch.zeros(2, 3, 64, 64, device=GPUS[0]))
    except RuntimeError as error:
        message, recognized = str(error), is_out_of_memory(error)
    else:
        raise AssertionError("the forward pass has enough memory")
    return {"error": message, "recognized": recognized, "precision": select_precision(RECIPE, GPUS[0], lambda: tested)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]]()))
