"""Small benches for the tests of simmat-plugin-bench, and cells filled in without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runs import registry
from simmat_plugin_bench.cells import FORMAT, Cell, write_cell_settings
from simmat_plugin_bench.grid import Bench, expand
from simmat_plugin_bench.settings import read_settings

from simmat.io.files import atomic_write_json

TINY = """
foundation = "tiny"

[train]
image_size = 64
steps = 2
val_every = 1
batch_size = 2
prompts_per_image = 2
device = "cpu"
"""
"""What makes a run take a moment."""


def bench_of(folder: Path, toml: str, *, quick: bool = False) -> Bench:
    """Write a TOML and expand it; the built-in parts and SAM are there."""
    path = folder / "bench.toml"
    path.write_text(toml, encoding="utf-8")
    return expand(
        read_settings(path), path, folder / "out", registry("sam"), quick=quick
    )


def cells_named(bench: Bench, part: str) -> list[Cell]:
    """The cells whose name holds a text."""
    return [cell for cell in bench.cells if part in cell.name]


def fill(
    cell: Cell, *, val: float | None, test: float | None = None, **changes: Any
) -> None:
    """Put a result into a cell, as its process would."""
    write_cell_settings(cell)
    result = {
        "format": FORMAT,
        "digest": cell.digest(),
        "data": {"path": str(cell.config.data), "fingerprint": "f"},
        "diverged": "",
        "val": None if val is None else {"kind": "val", "step": 2, "miou_object": val},
        "curve": []
        if val is None
        else [{"step": 0, "miou_object": val / 2}, {"step": 2, "miou_object": val}],
        "test": None
        if test is None
        else {
            "objects": 4,
            "miou_object": test,
            "by_size": {"small": {"miou_object": 0.125}},
        },
        "trainable": 1000,
        "total": 5000,
        "steps": 2,
        "train_samples": 20,
        "seconds": 3.0,
        "device": "cpu",
        "threads": 1,
        "peak_memory_bytes": 2**30,
        "peak_device_bytes": None,
        "versions": {},
    }
    atomic_write_json(cell.folder.result, result | changes)
