"""The folder that each case of bad input is run in: a data set and a run, copied for each case."""

from __future__ import annotations

import contextlib
import io
import shutil
from contextlib import chdir
from pathlib import Path

import bad_input_runs
import pytest
from bad_input_case import DOTS, Case
from runs import gray_set

from simmat.cli import run

CHEAP = "--device cpu --batch-size 2 --prompts-per-image 1"


class Places:
    """Folders to break things in, copied from what is made once.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self._first, self._place = root / "first", root / "place"
        gray_set(self._first / "data", train=3, val=1, test=1)
        self._do(f"train {DOTS} {CHEAP} --out run")

    def _do(self, command: str) -> None:
        with chdir(self._first):
            assert run(command.split()) == 0, command

    def answer(self, case: Case) -> tuple[int, str, set[Path]]:
        """Run a case in a fresh copy.

        Returns:
            exit code, all that was said, and the files that are there afterwards and were not before.
        """
        if case.needs_two_sensors and not (self._first / "r2").exists():
            bad_input_runs.two_sensors(self._first)
            self._do(
                f"train {DOTS} {CHEAP} --modality rgb+gray --mat channel-attention --data d2 --out r2"
            )
        shutil.copytree(self._first, self._place)
        for config in self._place.glob("*/config.toml"):
            config.write_text(
                config.read_text().replace(str(self._first), str(self._place))
            )
        said = io.StringIO()
        try:
            with chdir(self._place), pytest.MonkeyPatch.context() as patch:
                patch.setenv("HOME", str(self._place / "home"))
                patch.delenv("XDG_CACHE_HOME", raising=False)
                patch.delenv("SIMMAT_CACHE", raising=False)
                case.spoil()
                before = self._files()
                with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                    code = run(case.arguments)
                return code, self._shown(said.getvalue()), self._files() - before
        finally:
            shutil.rmtree(self._place)

    def _shown(self, text: str) -> str:
        """Take the folders in front of paths, and backticks, out of a message."""
        return (
            text.replace(f"{self._place}/home", "~")
            .replace(f"{self._place}/", "")
            .replace("`", "'")
        )

    def _files(self) -> set[Path]:
        """All that lies there but what programs keep for their next start."""
        return {
            path
            for path in self._place.rglob("*")
            if not {"__pycache__", ".simmat", "home"} & set(path.parts)
        }
