"""From a run to the packaged weights, in fp16; BatchNorm's statistics stay float32, which costs little."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from simmat_plugin_lite.spec import FACTS_FILE, LITE, WEIGHTS_FILE
from torch import Tensor

import simmat
from simmat.errors import WeightsError
from simmat.io.files import atomic_write_bytes, atomic_write_json, check_writable


def packed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in the dtypes of the packaged file.

    Raises:
        WeightsError: one does not fit fp16.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        exact = not tensor.is_floating_point() or "running_" in name
        result[name] = tensor if exact else tensor.to(torch.float16)
        if not torch.isfinite(result[name].float()).all():
            raise WeightsError(
                f"{name} does not fit fp16 (largest {float(tensor.abs().max()):g}); keep it float32 in `packed`"
            )
    return result


def freeze(run: Path, start: Path, folder: Path) -> dict[str, Any]:
    """Write the weights of a run's best bundle, and a json of facts beside them, into a folder.

    Args:
        run: the run's folder.
        start: weight file the run started from.
        folder: where `spec.WEIGHTS_FILE` and `spec.FACTS_FILE` go.

    Returns:
        The facts: sha256, size_bytes, step and validation scores.

    Raises:
        SimMATError: the run cannot be read, its weights do not fit fp16, or the folder cannot be written.
    """
    predictor = simmat.load(run, foundation=LITE.name, checkpoint=start, device="cpu")
    assert predictor.bundle is not None  # of a run
    metrics = predictor.bundle.spec.metrics
    data = save(
        packed(predictor.model.foundation.state_dict()),
        metadata={"model": LITE.name, "steps": str(metrics["step"])},
    )
    facts = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "steps": metrics["step"],
        "validation": metrics["val"],
    }
    check_writable(folder)
    # from here on the two files do not agree
    atomic_write_bytes(folder / WEIGHTS_FILE, data)
    atomic_write_json(folder / FACTS_FILE, facts)
    return facts
