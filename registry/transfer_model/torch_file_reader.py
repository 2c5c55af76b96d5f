"""Script that converts a torch file to safetensors; it runs in its own process.

    python -P torch_file_reader.py SOURCE TARGET BYTES

`BYTES` limits the memory that reading may take. Nothing in the file is executed: objects of classes other than tensors
and plain values are replaced by inert placeholders. The target stores the tensors of all state dicts under numeric
keys; its metadata maps the names in each state dict to these keys. The script imports nothing from this package.
"""

import json
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

STATE_DICTS = "state_dicts"
"""Key of the target's metadata."""

REFUSED, TOO_LARGE = 3, 4
"""Exit statuses if the file cannot be read (the reason is on standard error) or reading exceeds the memory limit."""

_MAX_DEPTH = 2
"""State dicts are searched for in a checkpoint and in the mappings it contains, down to this depth."""

_MAX_SECONDS = 600
"""Maximum CPU time."""

_MAX_REASON = 300


class Placeholder:
    """Replaces an object of a class that is not loaded; stores its state and ignores its arguments."""

    state: object = None

    def __new__(cls, *_args: object, **_options: object) -> "Placeholder":
        """Ignores all arguments."""
        return super().__new__(cls)

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Stores the object's attributes as they are in the file."""
        self.state = state


def load(path: Path) -> Any:  # noqa: ANN401 - the content of a torch file
    """Loads a torch file with torch's restricted unpickler; classes that it refuses become placeholders."""
    try:
        refused = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except ValueError as error:  # the format before torch 1.6, or no torch file; `torch.load` decides
        if "torchscript" in str(error):
            raise ValueError("it is a TorchScript archive") from error
        refused = []
    with torch.serialization.safe_globals([(Placeholder, name) for name in refused]):
        return torch.load(path, map_location="cpu", weights_only=True)


def find_state_dicts(loaded: Any) -> dict[str, Mapping[str, Tensor]]:  # noqa: ANN401 - the content of a torch file
    """Returns every mapping that contains named tensors, keyed by its path, such as `model_ema` or `ema.state_dict`.

    The path of the checkpoint itself is empty. A pickled module is treated as its state dict. Other values are ignored.
    """
    found: dict[str, Mapping[str, Tensor]] = {}
    for path, mapping in _mappings(loaded, "", 0):
        tensors = OrderedDict((name, value) for name, value in mapping.items() if _is_entry(name, value))
        if tensors:
            tensors.__dict__.update(_metadata=getattr(mapping, "_metadata", None))
            found[path] = tensors
    return found


def save(state_dicts: Mapping[str, Mapping[str, Tensor]], target: Path) -> None:
    """Writes the tensors of all state dicts; tensors that several state dicts share are written once."""
    numbers: dict[tuple[object, ...], str] = {}
    tensors, described = {}, {}
    for path, state_dict in state_dicts.items():
        names = {}
        for name, tensor in state_dict.items():
            key = _identity(tensor)
            if key not in numbers:
                numbers[key] = str(len(numbers))
                tensors[numbers[key]] = _plain(tensor)
            names[name] = numbers[key]
        described[path] = {"names": names, "versions": versions(state_dict)}
    save_file(tensors, target, {STATE_DICTS: json.dumps(described)})


def _mappings(value: Any, path: str, depth: int) -> Iterator[tuple[str, Mapping[Any, Any]]]:  # noqa: ANN401
    if isinstance(value, Placeholder):
        value = OrderedDict(_module_tensors(value, ""))
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        return
    yield path, value
    for name, child in value.items():
        if isinstance(name, str):
            yield from _mappings(child, f"{path}.{name}" if path else name, depth + 1)


def _module_tensors(module: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yields the named parameters and buffers of a pickled module; nothing if the object is not a module."""
    state = module.state if isinstance(module, Placeholder) else None
    if not isinstance(state, Mapping):
        return
    for kind in ("_parameters", "_buffers"):
        tensors = state.get(kind)
        if isinstance(tensors, Mapping):
            yield from ((f"{prefix}{name}", tensor) for name, tensor in tensors.items() if isinstance(tensor, Tensor))
    children = state.get("_modules")
    if isinstance(children, Mapping):
        for name, child in children.items():
            yield from _module_tensors(child, f"{prefix}{name}.")


def _is_entry(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _identity(tensor: Tensor) -> tuple[object, ...]:
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.numel():
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _plain(tensor: Tensor) -> Tensor:
    """Returns a contiguous copy that shares no memory; sparse and quantized tensors become dense float tensors."""
    tensor = tensor.detach()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
    return tensor.clone(memory_format=torch.contiguous_format)


def versions(state_dict: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Returns the format version of each module in a state dict; None if no versions were saved."""
    metadata = getattr(state_dict, "_metadata", None)
    if not isinstance(metadata, Mapping):
        return None
    numbers = {name: entry.get("version") for name, entry in metadata.items() if isinstance(entry, Mapping)}
    return {name: number for name, number in numbers.items() if isinstance(number, int)}


def limit_resources(size: int) -> None:
    """Limits the process to `size` more bytes of memory and 600 s of CPU time, on systems that have such limits."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_MAX_SECONDS, _MAX_SECONDS))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + size
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError, ValueError):  # Windows, macOS
        return


def main(source: str, target: str, size: str) -> int:
    """Converts a file and returns the exit status."""
    limit_resources(int(size))
    try:
        save(find_state_dicts(load(Path(source))), Path(target))
    except MemoryError:
        return TOO_LARGE
    except pickle.UnpicklingError as error:
        return _refuse(_unpickling_reason(error))
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        AssertionError,
    ) as error:
        # torch reports a failed allocation as a RuntimeError that names its allocator.
        return TOO_LARGE if "allocat" in str(error) else _refuse(str(error) or type(error).__name__)
    return 0


def _unpickling_reason(error: Exception) -> str:
    """Returns the reason from torch's error message, without its advice to disable the restrictions."""
    reason = re.search(r"WeightsUnpickler error:\s*(.*?)(?: was not an allowed|\n|$)", str(error))
    return f"it contains objects other than tensors and plain values ({reason[1] if reason else 'unknown content'})"


def _refuse(reason: str) -> int:
    first_sentence = re.split(r"\. |\n", reason.strip())[0]
    sys.stderr.write(first_sentence[:_MAX_REASON])
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
