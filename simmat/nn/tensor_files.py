"""Read named tensors from untrusted files, without running code from them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from simmat.errors import SimMATError, WeightsError, few_of, shortened
from simmat.io.paths import require_file

MAX_DIMENSIONS = 64
"""Of a tensor that torch computes with."""


def read_safetensors(
    path: Path, *, error: type[SimMATError] = WeightsError
) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        error: class of the error to raise.

    Raises:
        SimMATError: of class `error`; the file is missing or damaged.
    """
    require_file(path, "weight file", error=error)
    try:
        tensors = load_file(path)
        check_dimensions(tensors)
        return tensors
    except Exception as cause:  # the kinds differ between versions of safetensors
        raise error(
            f"{path} is damaged or not a safetensors file: {first_line(cause)}"
        ) from cause


def load_weights(model: nn.Module, path: Path, model_name: str) -> None:
    """Load all tensors of a model from a safetensors file.

    Args:
        model_name: for messages.

    Raises:
        WeightsError: the file is missing or damaged, or its tensors do not fit the model.
    """
    found = read_safetensors(path)
    expected = model.state_dict()
    wrong = []
    for name, tensor in expected.items():
        if name in found and found[name].shape != tensor.shape:
            wrong.append(
                f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
            )
    wrong += [f"{name} is unknown" for name in found if name not in expected]
    wrong += [f"{name} is missing" for name in expected if name not in found]
    if wrong:
        raise WeightsError(
            f"{path} is not a weight file of {model_name}: {few_of(wrong)}"
        )
    model.load_state_dict(found)


def read_torch(path: Path, *, hint: str = "fetch it again") -> dict[str, Tensor]:
    """Read a state dict saved by `torch.save`.

    Args:
        hint: what to do if it is damaged.

    Raises:
        WeightsError: the file is missing, damaged, or not a dict of tensors.
    """
    require_file(path, "weight file", error=WeightsError)
    try:
        with warnings.catch_warnings():
            # problems of the file end in an error below
            warnings.simplefilter("ignore")
            # Only torch's zip format can be mapped into memory.
            table = torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=zipfile.is_zipfile(path),
            )
    except Exception as error:  # a damaged pickle can raise any error
        raise WeightsError(
            f"{path} is damaged, not a torch weight file, or holds python objects other than tensors, which could run "
            f"code ({type(error).__name__}); {hint}, or save only the state dict, best as .safetensors"
        ) from error
    if (
        not isinstance(table, Mapping)
        or not table
        or not all(isinstance(value, Tensor) for value in table.values())
    ):
        if isinstance(table, Mapping):
            got = "a table of " + ", ".join(map(str, [*table][:5]))
        else:
            got = type(table).__name__
        raise WeightsError(
            f"{path} is not a state dict, a table of tensors by name (got {got}); give a file with names and tensors "
            "only"
        )
    state = {str(name): tensor for name, tensor in table.items()}
    try:
        check_dimensions(state)
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: {error}; {hint}") from error
    odd = next((name for name, tensor in state.items() if not _is_stored(tensor)), None)
    if odd:
        raise WeightsError(
            f"{path} is damaged: {odd!r} is not a dense tensor stored in the file; {hint}"
        )
    return state


def check_dimensions(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a tensor that torch holds and cannot compute with."""
    for name, tensor in tensors.items():
        if tensor.dim() > MAX_DIMENSIONS:
            raise ValueError(
                f"{shortened(name)!r} has {tensor.dim()} dimensions, at most {MAX_DIMENSIONS} are allowed"
            )


def _is_stored(tensor: Tensor) -> bool:
    """False for sparse, quantized and meta tensors, and for a view of more values than the file has."""
    dense = (
        tensor.layout == torch.strided
        and not tensor.is_quantized
        and tensor.device.type == "cpu"
    )
    return (
        dense
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def first_line(error: BaseException) -> str:
    """Return the first 300 characters of an error's text in one line, or its class name if it has no text."""
    return " ".join(str(error).split())[:300] or type(error).__name__
