"""Tensors by name from files that a stranger may have written: no code in them runs, and what is wrong is one error."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from simmat.errors import SimMATError, WeightsError
from simmat.io.files import require_file


def read_safetensors(path: Path, *, error: type[SimMATError] = WeightsError) -> dict[str, Tensor]:
    """Read a file of safetensors; a header cannot claim more than the file holds.

    Args:
        path: the file.
        error: class of the error to raise.

    Raises:
        SimMATError: of class `error`; it is no file, or damaged.
    """
    require_file(path, "weight file", error=error)
    try:
        return load_file(path)
    except Exception as cause:  # of the header alone there are a dozen kinds, and each version has others
        raise error(f"{path} is damaged or no safetensors file: {first_line(cause)}") from cause


def read_torch(path: Path, *, hint: str = "fetch it again") -> dict[str, Tensor]:
    """Read a file of `torch.save` that holds a table of tensors by name, as state dicts are published.

    Args:
        path: the file.
        hint: what to do where it is damaged.

    Raises:
        WeightsError: it is no file, damaged, or holds anything else than such a table.
    """
    require_file(path, "weight file", error=WeightsError)
    table = _unpickled(path, hint)
    if not isinstance(table, Mapping) or not table or not all(isinstance(value, Tensor) for value in table.values()):
        raise WeightsError(
            f"{path} holds no plain table of tensors by name (got {_describe(table)}); "
            "give a state dict, names and tensors alone"
        )
    state = {str(name): tensor for name, tensor in table.items()}
    if odd := next((name for name, tensor in state.items() if not _is_plain(tensor)), None):
        raise WeightsError(f"{path} is damaged: {odd!r} is no dense tensor that lies in the file; {hint}")
    return state


def is_stored(tensor: Tensor) -> bool:
    """False for a view that has more numbers than are stored for it, so that a copy takes more than its file."""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def first_line(error: BaseException) -> str:
    """Return the first 300 characters of an error's text in one line, or its class where it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _unpickled(path: Path, hint: str) -> object:
    damaged = f"{path} is damaged, truncated or no torch weight file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds odd about a strange file ends in an error of ours
            # Only torch's zip format can be mapped into memory.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if re.search(r"unsupported (global|class)", str(error), re.IGNORECASE):
            raise WeightsError(
                f"{path} holds python objects other than tensors, which SimMAT does not load because they could run "
                "code; save the state dict alone, best as .safetensors"
            ) from error
        raise WeightsError(f"{damaged}; {hint}") from error
    except Exception as error:  # torch's reader runs a pickle's instructions, so any error can be in them
        raise WeightsError(f"{damaged} ({type(error).__name__}); {hint}") from error


def _is_plain(tensor: Tensor) -> bool:
    """False for sparse, quantized and placeless tensors."""
    return tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"


def _describe(table: object) -> str:
    if isinstance(table, Mapping):
        return "a table of " + ", ".join(sorted(str(key) for key in table)[:5]) if table else "an empty table"
    return f"a {type(table).__name__}"
