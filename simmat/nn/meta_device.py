"""Build networks on the meta device: their sizes without their memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from simmat.errors import ConfigError

Module = TypeVar("Module", bound=nn.Module)


class TooLargeError(ConfigError):
    """A network would take more memory than the limit."""


def meta_copy(module: Module) -> Module:
    """Return a copy of a module on the meta device, which takes no memory for its tensors."""
    memo: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad)
        else:
            memo[id(tensor)] = empty
    return copy.deepcopy(module, memo)


_FILLS = frozenset({"add_", "clamp_", "copy_", "div_", "erfinv_", "fill_", "mul_", "normal_", "uniform_", "zero_"})
"""Functions that only set values; some are slow to import for the meta device."""


class _CallLimit(TorchFunctionMode):
    def __init__(self, max_calls: int, what: str) -> None:
        super().__init__()
        self._left = max_calls
        self._what = what
        self._max_calls = max_calls

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._left -= 1
        if self._left == 0:  # once: what ends a context, such as no_grad, must pass after a refusal
            raise TooLargeError(f"{self._what} would take more than {self._max_calls} calls of torch to build")
        named = dict(kwargs or {})
        if getattr(func, "__name__", "") in _FILLS:
            return args[0] if args else named["tensor"]  # as torch.nn.init names it
        return func(*args, **named)


@contextmanager
def meta_device(what: str, max_calls: int) -> Iterator[None]:
    """Make all tensors of the block on the meta device.

    Args:
        what: what is built, for the message ("transfer layer 'mat'").
        max_calls: number of calls of torch, so that a loop over an option ends.

    Raises:
        TooLargeError: there are more calls.
    """
    with torch.device("meta"), _CallLimit(max_calls, what):
        yield
