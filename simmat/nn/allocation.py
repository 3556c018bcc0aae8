"""A limit on the memory that building a network may take, checked before large tensors are made."""

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
    """A network would take more memory than it may."""


@dataclass(frozen=True, slots=True)
class Room:
    """What building something may take.

    Attributes:
        most_bytes: of all tensors that are made on the way, those that are freed again too.
        most_tensors: how many those may be, so that a loop of a million small ones ends, too.
    """

    most_bytes: int
    most_tensors: int


class AllocationLimit(TorchFunctionMode):
    """Within this context tensors are made only until a limit is reached; a large one too many is not made.

    Tensors of the meta device have no bytes. No value is changed by it, and no random number drawn. What is made by
    another thread is not seen.

    Args:
        room: the limit.
        what: whose memory it is, for the message ("transfer layer 'mat'").

    Raises:
        TooLargeError: the limit is reached.
    """

    def __init__(self, room: Room, what: str) -> None:
        super().__init__()
        self._room, self._what = room, what
        self._bytes = self._tensors = 0

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count what a function of torch makes, before it is made."""
        named = dict(kwargs or {})
        if not _makes_nothing(func):
            self._take(_planned(func, args, named))
        return func(*args, **named)

    def _take(self, sizes: Sequence[int]) -> None:
        if not sizes:  # also what torch calls to end a context, such as no_grad, after the limit was reached
            return
        self._bytes += sum(sizes)
        self._tensors += len(sizes)
        if self._bytes > self._room.most_bytes:
            raise TooLargeError(f"{self._what} would take more than {self._room.most_bytes / 2**30:.3g} GiB of memory")
        if self._tensors > self._room.most_tensors:
            raise TooLargeError(f"{self._what} would take more than {self._room.most_tensors} tensors")


def _makes_nothing(func: Any) -> bool:
    """True for functions that return what they were given, and for reading and setting of attributes."""
    name = getattr(func, "__name__", "")
    return name in _READ_OR_SET or (name.endswith("_") and not name.endswith("__"))


def _planned(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> list[int]:
    """Return the bytes of each of a function's new tensors by calling it on the meta device, where nothing is stored.

    A function whose result depends on values cannot be called so; its result counts for as much as it is given.
    """
    given = list(_tensors((args, named)))
    device = named.get("device") or (given[0].device if given else torch.get_default_device())
    shadows, shadows_named = _shadow(args), _shadow(named)
    if "device" in named or not given:
        shadows_named["device"] = torch.device("meta")
    try:
        made = func(*shadows, **shadows_named)
    except (RuntimeError, TypeError, ValueError):
        sizes = [sum(_size(tensor) for tensor in given)] if given else []
    else:
        known = {_storage(tensor) for tensor in _tensors((shadows, shadows_named))}
        sizes = [_size(tensor) for tensor in _tensors(made) if _storage(tensor) not in known]
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
    """Return what a tensor and its views share."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def _shadow(value: Any) -> Any:
    """Return tensors as their shapes and types without values, no generator, and other values as they are."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(_shadow, value))
    if isinstance(value, dict):
        return {key: _shadow(item) for key, item in value.items()}
    if isinstance(value, torch.Generator):
        return None
    if not isinstance(value, Tensor) or value.device.type == "meta":
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")
