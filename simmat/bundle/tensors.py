"""The tensors a bundle holds: the whole transfer layer and whatever the tuner moved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from simmat.errors import BundleError
from simmat.model import SimMAT
from simmat.nn.tuners import trainable_state


def trained_tensors(model: SimMAT) -> dict[str, Tensor]:
    """Return the tensors a bundle holds: the whole transfer layer and what the tuner moved, on the CPU."""
    tensors = {f"mat.{name}": tensor for name, tensor in model.mat.state_dict().items()}
    tensors |= {f"foundation.{name}": tensor for name, tensor in trainable_state(model.foundation).items()}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}


def load_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put a bundle's tensors into a network of the same plan.

    Raises:
        BundleError: one is missing, one too many, or of another shape.
    """
    expected = {name: tensor.shape for name, tensor in trained_tensors(model).items()}
    given = {name: tensor.shape for name, tensor in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        first = wrong[0]
        raise BundleError(
            f"{origin} does not fit the network: {len(wrong)} tensors differ, the first is {first!r}: "
            f"needed {_shape(expected.get(first))}, got {_shape(given.get(first))}"
        )
    model.load_state_dict(dict(tensors), strict=False)


def _shape(shape: torch.Size | None) -> str:
    return str(tuple(shape)) if shape is not None else "none"
