"""Writing a bundle."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

import simmat
from simmat.bundle.digest import sealed
from simmat.bundle.spec import FORMAT, JSON_NAME, WEIGHTS_NAME, BundleSpec
from simmat.files import atomic_folder, atomic_write_bytes, atomic_write_json
from simmat.weights import sha256_of


def write_bundle(path: Path, spec: BundleSpec, tensors: Mapping[str, Tensor]) -> None:
    """Write a bundle as a whole: there is the old one or the new one, never half of either.

    Only values that the training decides go in, no time and no place, so equal runs give equal files.

    Args:
        path: its folder.
        spec: goes into the json.
        tensors: name -> what training moved, see `trained_tensors`.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_folder(path) as folder:
        atomic_write_bytes(folder / WEIGHTS_NAME, save(dict(tensors), metadata={"format": str(FORMAT)}))
        document = {
            "format": FORMAT,
            **spec.to_dict(),
            "weights_sha256": sha256_of(folder / WEIGHTS_NAME),
            "versions": {
                "simmat": simmat.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        atomic_write_json(folder / JSON_NAME, sealed(document))
