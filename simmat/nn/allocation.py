"""A limit on the memory that building a network may take, checked before large tensors are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from simmat.errors import ConfigError

_UNSEEN = 2**26
"""Bytes that one function may take before they are counted; asking the meta device first takes time."""
_ELEMENT = 16
"""Bytes of the largest kind of number."""


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
        """Count what a function of torch makes, before it is made where that is much."""
        named = dict(kwargs or {})
        if _in_place(func):
            return func(*args, **named)
        large = _largest_result(args, named) > _UNSEEN
        if large:
            self._take(_planned(func, args, named))
        result = func(*args, **named)
        if not large:
            self._take(_made(result, (args, named)))
        return result

    def _take(self, sizes: Sequence[int]) -> None:
        if not sizes:  # also what torch calls to end a context, such as no_grad, after the limit was reached
            return
        self._bytes += sum(sizes)
        self._tensors += len(sizes)
        if self._bytes > self._room.most_bytes:
            raise TooLargeError(f"{self._what} would take more than {self._room.most_bytes / 2**30:.3g} GiB of memory")
        if self._tensors > self._room.most_tensors:
            raise TooLargeError(f"{self._what} would take more than {self._room.most_tensors} tensors")


def _in_place(func: Any) -> bool:
    """True for functions that return what they were given, and for reading and setting of attributes."""
    name = getattr(func, "__name__", "")
    return name in ("__get__", "__set__", "__setitem__") or (name.endswith("_") and not name.endswith("__"))


def _largest_result(args: tuple[Any, ...], named: dict[str, Any]) -> float:
    """Return bytes that a result does not exceed: each with each element given, as often as any number says.

    Infinite for functions of no tensors, such as `torch.eye`, of which the meta device knows at once.
    """
    if not _tensors((args, named)):
        return math.inf
    factors = (
        leaf.numel() if isinstance(leaf, Tensor) else abs(leaf) if isinstance(leaf, int | float) else 1
        for leaf in tree_leaves((args, named))
    )
    return _ELEMENT * math.prod(float(factor) for factor in factors if factor > 1)


def _planned(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> list[int]:
    """Return the bytes of each of a function's new tensors by calling it on the meta device, where nothing is stored.

    A function whose result depends on values cannot be called so; its result counts for as much as it is given.
    """
    given = _tensors((args, named))
    shadows, shadows_named = tree_map(_shadow, (args, named))
    device = named.get("device") or (given[0].device if given else torch.get_default_device())
    if "device" in named or not given:
        shadows_named["device"] = torch.device("meta")
    try:
        planned = _made(func(*shadows, **shadows_named), (shadows, shadows_named), meta=True)
    except (RuntimeError, TypeError, ValueError):
        planned = [sum(tensor.numel() * tensor.element_size() for tensor in given)] if given else []
    return [0] * len(planned) if torch.device(device).type == "meta" else planned


def _made(result: Any, given: Any, *, meta: bool = False) -> list[int]:
    """Return the bytes of each tensor in a result that is no view of one given; 0 on the meta device, if not `meta`."""
    return [
        tensor.numel() * tensor.element_size() if meta or tensor.device.type != "meta" else 0
        for tensor in _tensors(result)
        if not _is_view(tensor, given)
    ]


def _is_view(tensor: Tensor, given: Any) -> bool:
    if tensor.layout != torch.strided:
        return False
    storage = tensor.untyped_storage()._cdata
    return any(one.layout == torch.strided and one.untyped_storage()._cdata == storage for one in _tensors(given))


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _shadow(value: Any) -> Any:
    """Return a tensor's shape and type without its values, no generator, and other values as they are."""
    if isinstance(value, torch.Generator):
        return None
    if not isinstance(value, Tensor) or value.device.type == "meta":
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")
