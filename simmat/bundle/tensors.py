"""The tensors of a bundle: take them from a network, and put them into one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from simmat.errors import BundleError
from simmat.model import SimMAT
from simmat.nn.tuners import trainable_state


def trained_tensors(model: SimMAT) -> dict[str, Tensor]:
    """Return the tensors a bundle holds: the transfer layer and what the tuner changed, on the CPU."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(_own_tensors(model).items())}


def _own_tensors(model: SimMAT) -> dict[str, Tensor]:
    tensors = {f"mat.{name}": tensor for name, tensor in model.mat.state_dict().items()}
    tensors |= {f"foundation.{name}": tensor for name, tensor in trainable_state(model.foundation).items()}
    if model.dense is not None:
        tensors |= {f"dense.{name}": tensor for name, tensor in model.dense.state_dict().items()}
    return tensors


def check_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Raise BundleError if tensors of a bundle are not those of a network, which may be on the meta device."""
    expected = {name: _kind(tensor) for name, tensor in _own_tensors(model).items()}
    given = {name: _kind(tensor) for name, tensor in tensors.items()}
    wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
    if wrong:
        first = wrong[0]
        raise BundleError(
            f"{origin} does not fit the network: {len(wrong)} tensors differ, the first is {first!r}: "
            f"needed {expected.get(first, 'none')}, got {given.get(first, 'none')}"
        )


def load_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put a bundle's tensors into a network of the same spec; raise BundleError if they do not fit."""
    check_tensors(model, tensors, origin)
    model.load_state_dict(dict(tensors), strict=False)


def _kind(tensor: Tensor) -> str:
    """Return shape and dtype for messages: "(3, 64) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
