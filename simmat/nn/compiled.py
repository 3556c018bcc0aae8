"""Compile the forward pass of a network by torch.compile, where torch finds a compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.nn.tensor_files import first_line

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compile_network(network: nn.Module, device: torch.device) -> None:
    """Let a network compile its methods `encode` and `decode` when each is called first; weights keep their names.

    Raises:
        ConfigError: torch cannot compile for this device here.
    """
    try:
        _compiled(_probe)(torch.ones(8, device=device))
    except (ImportError, OSError, RuntimeError) as error:
        cause = first_line(error).partition(" Set TORCHDYNAMO")[0]  # for developers of torch
        what = "a C++ compiler (g++ or clang++; the variable CXX may name one)" if device.type == "cpu" else "triton"
        raise ConfigError(
            f"--compile: torch.compile does not work for {device} here ({cause}); install {what}, or leave "
            "--compile out"
        ) from error
    for name in ("encode", "decode"):
        setattr(network, name, _compiled(getattr(network, name)))


def _compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    # `dynamic` is torch's default: a size is fixed until a call has another one, such as a second click. Fixed sizes
    # alone would compile every number of prompts anew, and sizes that are all open give slower code.
    return torch.compile(function)


def _probe(x: Tensor) -> Tensor:
    return x.sin() + 1
