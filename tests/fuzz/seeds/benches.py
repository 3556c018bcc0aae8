"""A bench whose cells are filled in, as if it had run."""

from __future__ import annotations

from pathlib import Path

from fuzz.seeds.sets import make_manifest_set

TOML = """
foundation = "tiny"
seeds = [0, 1]
[train]
image_size = 64
steps = 2
val_every = 1
batch_size = 2
device = "cpu"
[[data]]
name = "a"
modality = "gray"
data = "set"
[[data]]
name = "b"
modality = "gray"
data = "set"
averaged = false
[[arm]]
name = "x"
[[arm]]
name = "y"
tune = "frozen"
"""


def make_bench(folder: Path) -> None:
    """bench.toml and, without its cells, `set`; a cell names an absolute path, so each case fills its own."""
    (folder / "set").mkdir()
    make_manifest_set(folder / "set")
    (folder / "bench.toml").write_text(TOML.lstrip())
