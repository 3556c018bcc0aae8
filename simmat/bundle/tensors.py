"""The tensors a bundle holds: the whole transfer layer and whatever the tuner moved; read, compared, put in place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from simmat.errors import BundleError
from simmat.model import SimMAT
from simmat.nn.tensor_files import read_safetensors
from simmat.nn.tuners import trainable_state


def trained_tensors(model: SimMAT) -> dict[str, Tensor]:
    """Return the tensors a bundle holds: the whole transfer layer and what the tuner moved, on the CPU."""
    tensors = {f"mat.{name}": tensor for name, tensor in model.mat.state_dict().items()}
    tensors |= {f"foundation.{name}": tensor for name, tensor in trainable_state(model.foundation).items()}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a bundle's tensors.

    Raises:
        BundleError: the file is damaged, or a tensor holds numbers that are not finite, which no mask can come of.
    """
    tensors = read_safetensors(file, error=BundleError)
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise BundleError(
                f"{file} holds NaN or infinity in the tensor {name!r}, so no mask can come of it; get the bundle again "
                "from who trained it, or train it anew"
            )
    return tensors


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    wide = tensor if tensor.is_complex() or tensor.element_size() > 1 else tensor.float()  # 8 bits know no isfinite
    return bool(torch.isfinite(wide).all())


def load_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put a bundle's tensors into a network of the same spec.

    Raises:
        BundleError: one is missing, one too many, or of another shape or type of numbers.
    """
    expected = {name: _kind(tensor) for name, tensor in trained_tensors(model).items()}
    given = {name: _kind(tensor) for name, tensor in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        first = wrong[0]
        raise BundleError(
            f"{origin} does not fit the network: {len(wrong)} tensors differ, the first is {first!r}: "
            f"needed {expected.get(first, 'none')}, got {given.get(first, 'none')}"
        )
    model.load_state_dict(dict(tensors), strict=False)


def _kind(tensor: Tensor) -> str:
    """Return shape and type of numbers in words: "(3, 64) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
