"""Networks with shapes but without memory: to look at, not to run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator


class _WithoutMemory(TorchFunctionMode):
    """Gives new parameters a shape but no memory; small plans such as `linspace(...).tolist()` stay real."""

    _ALLOCATIONS = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - torch's protocol
        types: Any,  # noqa: ANN401 - torch's protocol
        args: Any = (),  # noqa: ANN401 - torch's protocol
        kwargs: Any = None,  # noqa: ANN401 - torch's protocol
    ) -> Any:  # noqa: ANN401 - torch's protocol
        """Sends allocations that name no device to the meta device."""
        kwargs = dict(kwargs or {})
        if func in self._ALLOCATIONS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """While it is open, networks are built without allocating their weights."""
    with _WithoutMemory():
        yield
