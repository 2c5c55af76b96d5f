"""Script that converts a torch file to safetensors; runs in a separate process.

    python -P torch_file_reader.py SOURCE TARGET BYTES SECONDS

`BYTES` and `SECONDS` limit the memory and the processor time used for reading. Nothing in the file is executed: objects
of classes other than tensors and plain values are replaced by inert placeholders. The target stores the tensors of all
state dicts under numeric keys; its metadata maps the names in each state dict to these keys. The script imports nothing
from this package.
"""

import json
import pickle
import re
import sys
import tarfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, _weights_only_unpickler

STATE_DICTS = "state_dicts"
"""Key of the target's metadata."""

REFUSED, TOO_LARGE, UNWRITABLE = 3, 4, 5
"""Exit statuses for a file that cannot be read, a lack of memory, and a target that cannot be written."""

MAX_DEPTH = 2
"""State dicts nested deeper than this in a checkpoint are ignored."""

_MAX_REASON = 300


class TargetError(Exception):
    """The target cannot be written."""


class Placeholder:
    """Stands in for an object whose class is not loaded; stores the object's items and state.

    Attributes:
        items: Items of a mapping.
        state: Attributes of the object as stored in the file.
    """

    items: OrderedDict[Any, Any]
    state: object = None

    def __new__(cls, *_args: object, **_options: object) -> "Placeholder":
        """Ignores all arguments; sets `items` here because the unpickler does not always call `__init__`."""
        placeholder = super().__new__(cls)
        placeholder.items = OrderedDict()
        return placeholder

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    def __call__(self, *_args: object, **_options: object) -> "Placeholder":
        """Returns a placeholder for the result instead of calling a function."""
        return Placeholder()

    def __setstate__(self, state: object) -> None:
        """Stores the object's attributes unchanged."""
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Stores an item of a mapping."""
        self.items[key] = value

    def append(self, item: object) -> None:
        """Ignores an item of a sequence or a set."""

    add = append


def _plain_tensor(
    rebuild: Callable[..., object], _class: object, arguments: Iterable[object], _state: object
) -> object:
    """Rebuilds an instance of a tensor subclass as a plain tensor."""
    if not _is_safe(rebuild):
        raise pickle.UnpicklingError("it rebuilds a tensor with a function that is not known to be safe")
    return rebuild(*arguments)


def _at_mark(unpickler: "RestrictedUnpickler") -> object:
    return unpickler.metastack[-1][-1]


class RestrictedUnpickler(pickle._Unpickler):  # the C version would not allow to check what an operation changes
    """Unpickler that loads the functions and classes that torch considers safe; all others become placeholders.

    Unpickling can modify only containers, placeholders and the state of tensors. The pure-Python base class reads every
    pickle protocol; torch's restricted unpickler reads only protocol 2 and rejects unknown subclasses of dict and list.
    """

    stack: list[Any]
    metastack: list[list[Any]]

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - a function or class
        """Returns the function or class with this name if it is safe, otherwise the placeholder class."""
        name = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if name in ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type"):
            return _plain_tensor
        return _weights_only_unpickler._get_allowed_globals().get(name, Placeholder)


def _is_safe(called: object) -> bool:
    """Returns True for placeholders and for the functions and classes that torch considers safe."""
    safe = (_plain_tensor, Placeholder, *_weights_only_unpickler._get_allowed_globals().values())
    return isinstance(called, Placeholder) or any(called is each for each in safe)


def _is_one_of(*types: type) -> Callable[[object], bool]:
    return lambda changed: isinstance(changed, (*types, Placeholder))


def _restricted(
    operation: Callable[[Any], None],
    operand: Callable[[RestrictedUnpickler], object],
    is_allowed: Callable[[object], bool],
) -> Callable[[Any], None]:
    def restricted(unpickler: RestrictedUnpickler) -> None:
        if not is_allowed(operand(unpickler)):
            raise pickle.UnpicklingError(f"it calls or changes an object of type {type(operand(unpickler)).__name__}")
        operation(unpickler)

    return restricted


def _refuse_operation(_unpickler: RestrictedUnpickler) -> None:
    raise pickle.UnpicklingError("it contains an operation that torch.save never writes")


RestrictedUnpickler.dispatch = (
    pickle._Unpickler.dispatch
    | {
        opcode[0]: _restricted(pickle._Unpickler.dispatch[opcode[0]], operand, is_allowed)
        for opcode, operand, is_allowed in (
            (pickle.SETITEM, lambda unpickler: unpickler.stack[-3], _is_one_of(dict)),
            (pickle.SETITEMS, _at_mark, _is_one_of(dict)),
            (pickle.APPEND, lambda unpickler: unpickler.stack[-2], _is_one_of(list)),
            (pickle.APPENDS, _at_mark, _is_one_of(list)),
            (pickle.ADDITEMS, _at_mark, _is_one_of(set)),
            (pickle.BUILD, lambda unpickler: unpickler.stack[-2], _is_one_of(Tensor, dict)),
            (pickle.REDUCE, lambda unpickler: unpickler.stack[-2], _is_safe),
            (pickle.NEWOBJ, lambda unpickler: unpickler.stack[-2], _is_safe),
            # Keyword arguments of torch's constructors could be memory addresses.
            (pickle.NEWOBJ_EX, lambda unpickler: unpickler.stack[-3], lambda called: called is Placeholder),
        )
    }
    | {each[0]: _refuse_operation for each in (pickle.OBJ, pickle.INST, pickle.EXT1, pickle.EXT2, pickle.EXT4)}
)


class _PickleModule:
    """The part of the `pickle` module that torch uses to load a file."""

    Unpickler = RestrictedUnpickler

    @staticmethod
    def load(file: BinaryIO, *, encoding: str) -> object:
        return RestrictedUnpickler(file, encoding=encoding).load()


@contextmanager
def _no_torch_script() -> Iterator[None]:
    """Prevents `torch.load` from running the code of a TorchScript archive."""

    def refuse(*_args: object, **_options: object) -> None:
        raise ValueError("it is a TorchScript archive")

    original, torch.jit.load = torch.jit.load, refuse
    try:
        yield
    finally:
        torch.jit.load = original


def load(path: Path) -> Any:  # noqa: ANN401 - the content of a torch file
    """Loads a torch file without executing code in it.

    Raises:
        ValueError: The file is an archive of another kind, or does not match its checksums.
        Exception: Any error raised by torch or the unpickler if the file is damaged or is not a torch file.
    """
    with path.open("rb") as file:
        if tarfile.is_tarfile(file):
            raise ValueError("it is a tar archive")
        file.seek(0)
        # `torch.load` is given the open file because it decides by the name how to read a path
        with _no_torch_script(), torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
            loaded = torch.load(file, "cpu", pickle_module=_PickleModule, weights_only=False)
        if zipfile.is_zipfile(file) and (record := zipfile.ZipFile(file).testzip()):  # torch ignores the checksums
            raise ValueError(f"{record} does not match its checksum")
        return loaded


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
    """Writes the tensors of all state dicts; tensors that several state dicts share are written once.

    Raises:
        TargetError: The target cannot be written, for example because the disk is full.
    """
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
    try:
        save_file(tensors, target, {STATE_DICTS: json.dumps(described)})
    except (SafetensorError, OSError) as error:
        raise TargetError(re.sub(r"^.*I/O error: | \(os error \d+\).*", "", str(error))) from error


def _mappings(value: Any, path: str, depth: int) -> Iterator[tuple[str, Mapping[Any, Any]]]:  # noqa: ANN401 - any value of a torch file
    if isinstance(value, Placeholder):
        value = _content(value)
    if not isinstance(value, Mapping) or depth > MAX_DEPTH:
        return
    yield path, value
    for name, child in value.items():
        if isinstance(name, str):
            yield from _mappings(child, f"{path}.{name}" if path else name, depth + 1)


def _content(placeholder: Placeholder) -> OrderedDict[Any, Any]:
    """Returns the items and `_metadata` of a mapping, or the tensors of a module."""
    if not placeholder.items:
        return OrderedDict(_module_tensors(placeholder, ""))
    content = OrderedDict(placeholder.items)
    if isinstance(placeholder.state, Mapping):
        content.__dict__.update(_metadata=placeholder.state.get("_metadata"))
    return content


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
    """Returns a contiguous copy in its own memory; sparse and quantized tensors become dense float tensors."""
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


def limit_resources(size: int, seconds: int) -> None:
    """Limits the process to `size` more bytes of memory and `seconds` more of CPU time, if the system supports this."""
    try:
        import resource

        end = int(time.process_time()) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (end, end + 1))  # at the second limit, the signal would be SIGKILL
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + size
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError, ValueError):  # Windows, macOS
        return


def main(source: str, target: str, size: str, seconds: str) -> int:
    """Converts a file and returns the exit status."""
    limit_resources(int(size), int(seconds))
    try:
        save(find_state_dicts(load(Path(source))), Path(target))
    except MemoryError:
        return TOO_LARGE
    except TargetError as error:
        sys.stderr.write(str(error)[:_MAX_REASON])
        return UNWRITABLE
    except Exception as error:  # noqa: BLE001 - a damaged file may raise any exception
        if "allocat" in str(error):  # torch reports a failed allocation as a RuntimeError that names its allocator
            return TOO_LARGE
        sys.stderr.write(_reason(error)[:_MAX_REASON])
        return REFUSED
    return 0


def _reason(error: Exception) -> str:
    """Returns the first sentence of an error message, or a fallback sentence if the message gives no reason."""
    first_sentence = re.split(r"\. |\n", str(error).strip())[0]
    if isinstance(error, EOFError):
        return "it ends too early"
    if "magic number" in first_sentence:
        return "it is a pickle file that was not written by torch.save"
    if isinstance(error, (RuntimeError, ValueError, OSError, pickle.UnpicklingError)) and " " in first_sentence:
        return first_sentence
    return f"its content is damaged ({type(error).__name__})"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
