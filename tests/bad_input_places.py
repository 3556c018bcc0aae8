"""The folder that each row of docs/bad-input.md is run in: a data set, a run, and what is wrong with them."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import bad_input_data
import bad_input_runs
import pytest
from bad_input_page import DOTS, Row
from runs import gray_set

from simmat.cli import run

LIBRARIES = {
    "Benches": ("bench",),
    "Foundation models of a library": ("timm", "transformers"),
    "Published data sets": ("aims",),
    "Simulated data": ("scenes",),
}
"""Section -> the plugins that its rows are run with; all others are run with the built-in parts alone."""

BREAK = {**bad_input_data.BREAK, **bad_input_runs.BREAK}
"""Row -> what is done to its folder first."""

CHEAP = "--device cpu --batch-size 2 --prompts-per-image 1"


class Places:
    """Folders to break things in, copied from what was made once.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        gray_set(root / "first/data", train=3, val=1, test=1)
        self._do("first", f"train {DOTS} {CHEAP} --out run")
        self._second = False

    def _do(self, place: str, command: str) -> None:
        with _plugins(()), chdir(self._root / place):
            assert run(command.split()) == 0, command

    def _two_sensors(self) -> None:
        """Make `d2` and `r2`, a set of two sensors and a run that takes missing channels."""
        if not self._second:
            self._second = True
            with chdir(self._root / "first"):
                bad_input_runs.two_sensors(Path("."))
            self._do("first", f"train {DOTS} {CHEAP} --modality rgb+gray --mat channel-attention --data d2 --out r2")

    @contextmanager
    def made(self, row: Row) -> Iterator[Path]:
        """Make a row's folder, without plugins but those of its section; it is gone afterwards."""
        if "r2" in row.command:
            self._two_sensors()
        place = self._root / "place"
        shutil.copytree(self._root / "first", place)
        for config in place.glob("*/config.toml"):
            config.write_text(config.read_text().replace(str(self._root / "first"), str(place)))
        try:
            with chdir(place), _plugins(LIBRARIES.get(row.section, ())), pytest.MonkeyPatch.context() as patch:
                patch.setenv("HOME", str(place / "home"))
                patch.delenv("XDG_CACHE_HOME", raising=False)
                patch.delenv("SIMMAT_CACHE", raising=False)
                for module in ("constants", "file_download.constants"):
                    patch.setattr(f"huggingface_hub.{module}.HF_HUB_CACHE", f"{place}/home/.cache/huggingface/hub")
                BREAK.get(row.key, lambda: None)()
                yield place
        finally:
            shutil.rmtree(place)


@contextmanager
def _plugins(names: tuple[str, ...]) -> Iterator[None]:
    """See these plugins alone, whatever is installed: the answers name what there is."""
    real = importlib.metadata.entry_points

    def some(**wanted: str) -> importlib.metadata.EntryPoints:
        found = real(**wanted)
        if wanted.get("group") != "simmat":
            return found
        return importlib.metadata.EntryPoints(entry for entry in found if entry.name in names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "entry_points", some)
        patch.delenv("SIMMAT_PLUGINS", raising=False)
        yield
