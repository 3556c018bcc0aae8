"""A process of a pretraining run of several: trains, then writes what became of its weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from simmat_plugin_lite.pretrain import Pretraining, arguments

if __name__ == "__main__":
    training = Pretraining(arguments().parse_args(sys.argv[1:]))
    first = next(training.batches())["image"].float().mean().item()
    training.run()
    sums = {name: tensor.double().sum().item() for name, tensor in training.model.state_dict().items()}
    process = training.accelerator.process_index
    path = Path(sys.argv[sys.argv.index("--out") + 1]) / f"process-{process}.json"
    path.write_text(json.dumps({"sums": sums, "first": first}), encoding="utf-8")
