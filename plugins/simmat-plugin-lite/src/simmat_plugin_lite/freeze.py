"""Turn a pretraining run into the packaged weights: `python -m simmat_plugin_lite.freeze --run RUN`.

The running mean of the weights, as fp16; BatchNorm's statistics stay float32, which costs little.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from simmat.files import atomic_write_bytes, atomic_write_json, check_writable, read_log
from simmat_plugin_lite.command import run_command
from simmat_plugin_lite.run_log import LOG_FILE
from simmat_plugin_lite.run_state import read_state
from simmat_plugin_lite.spec import FACTS_FILE, WEIGHTS_FILE, WEIGHTS_FOLDER

_LARGEST_BYTES = 10_000_000


def packed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The running mean of a run's tensors, in the dtypes of the packaged file.

    Raises:
        ValueError: a weight does not fit fp16.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith("mean."):
            continue
        short = name.removeprefix("mean.")
        exact = not tensor.is_floating_point() or "running_" in short
        result[short] = tensor if exact else tensor.to(torch.float16)
        if not torch.isfinite(result[short].float()).all():
            raise ValueError(
                f"{short} does not fit fp16 (largest {float(tensor.abs().max()):g}); keep it float32 in `packed`"
            )
    return result


def freeze(run: Path, folder: Path) -> dict[str, object]:
    """Write the weights of a run and their json into a folder.

    Returns:
        the facts: sha256, size_bytes, steps and what the log last said of the validation split.
    """
    state = read_state(run)
    tensors = packed(load_file(run / state["file"]))
    data = save(tensors, metadata={"model": "lite", "steps": str(state["step"])})
    if len(data) > _LARGEST_BYTES:
        raise ValueError(
            f"the weights have {len(data)} bytes, at most {_LARGEST_BYTES} go into the package; make the model smaller"
        )
    checks = [line for line in read_log(run / LOG_FILE) if line["kind"] == "val" and line["step"] <= state["step"]]
    facts: dict[str, object] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "steps": state["step"],
        "validation": checks[-1] if checks else None,
    }
    check_writable(folder)
    atomic_write_bytes(folder / WEIGHTS_FILE, data)  # from here on the two files do not agree
    atomic_write_json(folder / FACTS_FILE, facts)
    return facts


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m simmat_plugin_lite.freeze", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a pretraining run")
    parser.add_argument("--to", type=Path, default=WEIGHTS_FOLDER, help="folder of the weights")
    options = parser.parse_args()
    print(json.dumps(freeze(options.run, options.to), indent=1))


if __name__ == "__main__":
    run_command(main)
