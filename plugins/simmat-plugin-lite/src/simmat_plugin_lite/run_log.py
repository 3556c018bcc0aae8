"""The log of a pretraining run: one json object a line, {"kind": "train" or "val", "step": …}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simmat.files import atomic_write_text, read_log

LOG_FILE = "log.jsonl"


class RunLog:
    """The log in a run's folder; lines after the step a run is resumed from are dropped, they will be made again."""

    def __init__(self, run: Path, first_step: int) -> None:
        self.path = run / LOG_FILE
        kept = [line for line in read_log(self.path) if line["step"] <= first_step]
        atomic_write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, **line: Any) -> None:
        """Append one line, and print it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
