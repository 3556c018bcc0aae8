"""A limit on the memory used to build a network, checked before each tensor is allocated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from simmat.errors import ConfigError

_READ_OR_SET = frozenset({"__get__", "__set__", "__setitem__", "_set_grad_enabled", "dim", "numel", "size"})


class TooLargeError(ConfigError):
    """A network would take more memory than the limit."""


@dataclass(frozen=True, slots=True)
class Room:
    """A limit on what is allocated.

    Attributes:
        most_bytes: total size of all allocated tensors, including those freed again.
        most_tensors: number of allocated tensors; stops a loop that allocates millions of small ones.
    """

    most_bytes: int
    most_tensors: int


class AllocationLimit(TorchFunctionMode):
    """Context that raises before a tensor is allocated if the total would exceed a limit.

    Tensors on the meta device count 0 bytes. Values and random numbers stay the same. Other threads are not counted.

    Args:
        room: the limit.
        what: what is built, for the message ("transfer layer 'mat'").

    Raises:
        TooLargeError: the limit is exceeded.
    """

    def __init__(self, room: Room, what: str) -> None:
        super().__init__()
        self._room, self._what = room, what
        self._bytes = self._tensors = 0

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count the tensors that a torch function will allocate, then call it."""
        named = dict(kwargs or {})
        if not _allocates_nothing(func):
            self._count(_result_sizes(func, args, named))
        return func(*args, **named)

    def _count(self, sizes: Sequence[int]) -> None:
        if not sizes:  # torch's own calls that end a context, such as no_grad, must pass after a refusal
            return
        self._bytes += sum(sizes)
        self._tensors += len(sizes)
        if self._bytes > self._room.most_bytes:
            raise TooLargeError(f"{self._what} would take more than {self._room.most_bytes / 2**30:.3g} GiB of memory")
        if self._tensors > self._room.most_tensors:
            raise TooLargeError(f"{self._what} would take more than {self._room.most_tensors} tensors")


def _allocates_nothing(func: Any) -> bool:
    """True for in-place functions, and for reading and setting attributes."""
    name = getattr(func, "__name__", "")
    return name in _READ_OR_SET or (name.endswith("_") and not name.endswith("__"))


def _result_sizes(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> list[int]:
    """Return the bytes of each tensor that a function will allocate, from a call on the meta device.

    A function whose result size depends on values fails there; its result counts as large as its input.
    """
    inputs = list(_tensors((args, named)))
    device = named.get("device") or (inputs[0].device if inputs else torch.get_default_device())
    meta_args, meta_named = _as_meta(args), _as_meta(named)
    if "device" in named or not inputs:
        meta_named["device"] = torch.device("meta")
    try:
        outputs = func(*meta_args, **meta_named)
    except (RuntimeError, TypeError, ValueError):
        sizes = [sum(_size(tensor) for tensor in inputs)] if inputs else []
    else:
        known = {_storage(tensor) for tensor in _tensors((meta_args, meta_named))}
        sizes = [_size(tensor) for tensor in _tensors(outputs) if _storage(tensor) not in known]
    return [0] * len(sizes) if torch.device(device).type == "meta" else sizes


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _storage(tensor: Tensor) -> int:
    """Return the id of the storage that a tensor shares with its views."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def _as_meta(value: Any) -> Any:
    """Replace tensors by meta tensors and generators by None; other values stay."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(_as_meta, value))
    if isinstance(value, dict):
        return {key: _as_meta(item) for key, item in value.items()}
    if isinstance(value, torch.Generator):
        return None
    if not isinstance(value, Tensor) or value.device.type == "meta":
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")
