"""Train in the background: run `simmat train` in a process, then compare its bundle with the present model."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import time
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from simmat.bundle import find_bundle
from simmat.errors import DataError, OutputError, SimMATError
from simmat.io.files import require_inside
from simmat.io.reading import read_json, read_log_from
from simmat_plugin_annotate import child
from simmat_plugin_annotate.models import BusyError, ServedModel
from simmat_plugin_annotate.state import RUNS

METRIC = "miou_object"


def first_steps(images: int) -> int:
    """Return the steps of a training on so many images; fewer than `simmat train` takes, because a person waits."""
    return min(100 + 2 * images, 1000)


_LOG_LINES = 40
_POLL_INTERVAL_S = 1.0
_MAX_POINTS = 120
"""Most points of a curve in the page."""

_log = logging.getLogger(__name__)

Point = tuple[int, float]
"""A step, and the loss or the validation score there."""
State = Literal["idle", "running", "done", "failed", "stopped"]
_SHOWN = (
    "state",
    "step",
    "steps",
    "message",
    "score",
    "before",
    "adopted",
    "images",
    "stopping",
    "warnings",
    "losses",
    "scores",
)
"""Attributes of a training that the page shows."""


@dataclass
class Training:
    """The training of a folder, one at a time.

    Attributes:
        arguments: returns the arguments of `simmat train` except folder, steps and out.
        adopt: makes a bundle the present model.
    """

    root: Path
    arguments: Callable[[], list[str]]
    changed: Callable[[], None]
    adopt: Callable[[Path], Awaitable[None]]
    state: State = "idle"
    step: int = 0
    steps: int = first_steps(0)
    message: str = ""
    score: float | None = None
    before: float | None = None
    adopted: bool | None = None
    images: int = 0
    stopping: bool = False
    run: Path | None = None
    warnings: tuple[str, ...] = ()
    losses: tuple[Point, ...] = ()
    scores: tuple[Point, ...] = ()
    _all_losses: list[Point] = field(default_factory=list, repr=False)
    """The loss of every step, of which `losses` are means."""
    _bytes_read: int = 0
    """How far the metrics were read, see `read_log_from`."""
    _first: tuple[int, float] | None = None
    """The first step that was seen, and when: what comes before it (start, a validation) says nothing of a step."""
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)
    _task: asyncio.Task[None] | None = field(default=None, repr=False)
    _stopped: bool = False
    _discard: bool = False
    """Whether the files of a stopped run are removed."""

    def document(self) -> dict[str, Any]:
        """Return the state as a json document for the page."""
        return {name: getattr(self, name) for name in _SHOWN} | {
            "left_s": self._left_s()
        }

    async def start(
        self,
        steps: int | None,
        images: int,
        model: ServedModel,
        more: Sequence[str] = (),
        *,
        planned: int | None = None,
    ) -> None:
        """Start a run.

        Args:
            steps: training steps; None for the default.
            images: labelled images.
            planned: the default.
            model: the present model, with which the new bundle is compared.
            more: further arguments of `simmat train`; they replace those of `arguments`.

        Raises:
            BusyError: a run is already going on.
            DataError: too few images are labelled.
        """
        if self.state == "running":
            raise BusyError("a training is already running; stop it first")
        if images < 3:
            raise DataError(
                f"{images} of the images are labelled; at least 3 are needed, for training, validation and test"
            )
        self.run = new_run(self.root)
        # a number, which the page shows before the first step
        steps = steps or planned or first_steps(images)
        self.state, self.step, self.steps, self.message = (
            "running",
            0,
            steps,
            "loading the model and reading the images",
        )
        self.score = self.before = self.adopted = self._first = None
        self.warnings = self.losses = self.scores = ()
        self._all_losses, self._bytes_read = [], 0
        self.images = images
        self._stopped = self._discard = self.stopping = False
        self._task = asyncio.create_task(self._follow(steps, model, more))
        self.changed()

    async def stop(self) -> None:
        """Stop the run and remove its files, which nothing uses."""
        self._discard = True
        await self._end()

    async def close(self) -> None:
        """Stop the run when the server stops; its files stay, for `simmat train --resume`."""
        if self.state == "running":
            await self._end()
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _end(self) -> None:
        """Ask the run to end, and wait a while until it has."""
        self._stopped = True
        if self.state == "running":
            self.stopping = True
            self.changed()
        self._ask_to_end()
        if self._task is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._task), 10)

    def _ask_to_end(self) -> None:
        """Close the stdin of the command, if one runs, which then ends, see `child`."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def _follow(
        self, steps: int, model: ServedModel, more: Sequence[str]
    ) -> None:
        try:
            self.state, self.message = await self._train(steps, model, more)
        # any error of run, evaluation or loading, such as out of memory
        except Exception as error:
            if not self._stopped and not isinstance(error, SimMATError | OSError):
                _log.exception("the training failed")
            self.state, self.message = "failed", str(error) or type(error).__name__
        if self._stopped and not self.adopted:
            self.state, self.message = "stopped", "stopped"
            if self._discard and self.run is not None:
                await asyncio.to_thread(_remove_run, self.root, self.run)
        self.stopping = False
        self.changed()

    async def _train(
        self, steps: int, model: ServedModel, more: Sequence[str]
    ) -> tuple[State, str]:
        """Run `simmat train`, and use the new bundle if it is better; return how that ended."""
        assert self.run is not None
        command = [
            "train",
            *self.arguments(),
            *more,
            "--data",
            str(self.root),
            "--out",
            str(self.run),
            "--steps",
            str(steps),
        ]
        if code := await self.run_simmat(command, self.run.with_suffix(".log")):
            return "failed", _reason(self._log(), code)
        self.message = "comparing with the present model"
        self.changed()
        new = await self._scores(self.run)
        old = new["zero_shot_scores"]
        if model.path is not None:
            try:
                old = (await self._scores(model.path))["scores"]
            # a bundle of another data set may not fit this one, or was trained on all these images
            except DataError:
                old = None
        self.score, self.before, shared = compare_scores(new["scores"], old)
        if self._stopped:
            return "stopped", "stopped"
        self.adopted = self.score is not None and (
            self.before is None or self.score > self.before
        )
        new_score = "" if self.score is None else f"{self.score:.3f}"
        old_score = "unknown" if self.before is None else f"{self.before:.3f}"
        if self.before is not None and shared < len(new["scores"]):
            old_score += f" (on {shared} of {len(new['scores'])} objects, whose images neither was trained on)"
        if not self.adopted:
            return (
                "done",
                f"not better: {new_score}, before {old_score}; the page keeps its model",
            )
        await self.adopt(self.run)
        return "done", f"better: {new_score}, before {old_score}; the page uses it now"

    async def _scores(self, bundle: Path) -> Mapping[str, Any]:
        """Return the scores of a bundle, with those of every object, of the validation images it was not trained on."""
        assert self.run is not None
        out = self.run.with_suffix(".eval.json")
        command = [
            "eval",
            str(bundle),
            "--data",
            str(self.root),
            "--split",
            "val",
            "--out",
            str(out),
        ]
        code = await self.run_simmat(command, self.run.with_suffix(".log"))
        text = out.read_text(encoding="utf-8") if out.exists() else ""
        out.unlink(missing_ok=True)
        if code != 0:
            raise DataError(_reason(self._log(), code))
        found: Mapping[str, Any] = json.loads(text)
        return found

    async def run_simmat(self, command: list[str], log: Path) -> int:
        """Run a command of SimMAT; append what it says to `log`.

        The command ends when this process ends, even if killed: its stdin is a pipe, which then closes.
        """
        if self._stopped:
            return -signal.SIGTERM
        require_inside(self.root, log)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as messages:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", child.__name__, *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=messages,
                stderr=messages,
                start_new_session=True,
            )
        if self._stopped:  # `stop` was called while the process started
            self._ask_to_end()
        waiting = asyncio.create_task(self._process.wait())
        while not waiting.done():
            await asyncio.wait([waiting], timeout=_POLL_INTERVAL_S)
            self.read_metrics()
        return waiting.result()

    def read_metrics(self) -> None:
        """Read the metrics of the run so far."""
        assert self.run is not None
        self._read_start()
        with suppress(SimMATError):
            before = self.step
            read_before = self._bytes_read
            new_scores: list[Point] = []
            log = self.run / "metrics.jsonl"
            for record, end in read_log_from(log, read_before):
                self._bytes_read = end
                step = int(record["step"])
                self.step = max(self.step, step)
                if "loss" in record:
                    self._all_losses.append((step, record["loss"]))
                if METRIC in record:
                    new_scores.append((step, record[METRIC]))
            if self._bytes_read != read_before:
                self.losses = _thinned(self._all_losses)
                self.scores += tuple(new_scores)
            if self.step != before:
                self._first = self._first or (self.step, time.monotonic())
                self.message = f"step {self.step} of {self.steps}"
                self.warnings = self.warnings or tuple(
                    line for line in self._log() if line.startswith("Warning: ")
                )
                self.changed()

    def _read_start(self) -> None:
        """Read how many steps the run takes, and how far it is before the first one."""
        assert self.run is not None
        if self.step or self.state != "running":
            return
        with suppress(OSError, tomllib.TOMLDecodeError):
            settings = tomllib.loads(
                (self.run / "config.toml").read_text(encoding="utf-8")
            )
            message = "scoring the model before the first step"
            if self.scores:
                message = "the first step"
            if message != self.message:
                self.steps = int(settings.get("steps", self.steps))
                self.message = message
                self.changed()

    def _left_s(self) -> float | None:
        """Return the seconds that the steps left take at the pace of those so far; None before the second one."""
        if self._first is None or self.step <= self._first[0]:
            return None
        step, seen = self._first
        return round(
            (time.monotonic() - seen) / (self.step - step) * (self.steps - self.step), 1
        )

    def _log(self) -> list[str]:
        if self.run is None:
            return []
        with suppress(OSError):
            text = self.run.with_suffix(".log").read_text(
                encoding="utf-8", errors="replace"
            )
            return [
                line[-300:]
                for line in text.replace("\r", "\n").splitlines()
                if line.strip()
            ][-_LOG_LINES:]
        return []


def new_run(root: Path) -> Path:
    """Return the folder of the next run: runs/annotate-001, and so on."""
    runs = (root / RUNS / f"annotate-{number:03d}" for number in count(1))
    return next(
        run
        for run in runs
        if not any(os.path.lexists(f"{run}{end}") for end in ("", ".log", ".eval.json"))
    )


def runs_with_bundles(root: Path) -> list[Path]:
    """Return the runs of a data set that have a bundle, newest first; those of folds are in a folder of their own."""
    found = []
    for pattern in ("*", "*/fold-*"):
        for run in (root / RUNS).glob(pattern):
            bundle = find_bundle(run) if run.is_dir() else None
            if bundle is not None:
                found.append((bundle.stat().st_mtime_ns, run))
    return [run for _, run in sorted(found, reverse=True)]


def _remove_run(root: Path, run: Path) -> None:
    """Remove the folder of a run below `root`, and its log; what a link leads to stays."""
    with suppress(OSError, OutputError):
        require_inside(root, run, run.parent)
        if not run.is_symlink():
            shutil.rmtree(run, ignore_errors=True)
        run.with_suffix(".log").unlink(missing_ok=True)


def last_pace(root: Path) -> dict[str, float] | None:
    """Return how fast the last finished training of the page was; None if there was none.

    That is the seconds of a step with all that is between, and the side of the images in pixels.
    """
    for run in sorted((root / RUNS).glob("annotate-*/"), reverse=True):
        with suppress(OSError, SimMATError, ValueError, KeyError, TypeError):
            report = read_json(run / "report.json")
            settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
            return {
                "step_s": float(report["seconds"]) / int(report["steps"]),
                "image_size": int(settings["image_size"]),
            }
    return None


def _thinned(points: list[Point]) -> tuple[Point, ...]:
    """Return at most `_MAX_POINTS` points: means over runs of equal length, each at its last step."""
    size = -(-len(points) // _MAX_POINTS) or 1
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple(
        (run[-1][0], sum(value for _, value in run) / len(run)) for run in runs
    )


def compare_scores(
    new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]] | None
) -> tuple[float | None, float | None, int]:
    """Return the mean IoU of two models over the objects that both have a score of, and their number.

    Without a common object, the second mean is None, and the first is over all.
    """
    own, other = (
        {(one["sample"], one["region"]): float(one["iou"]) for one in scores or ()}
        for scores in (new, old)
    )
    shared = own.keys() & other.keys()
    if not shared:
        return (fmean(own.values()) if own else None), None, 0
    return (
        fmean(own[key] for key in shared),
        fmean(other[key] for key in shared),
        len(shared),
    )


def _reason(log: list[str], code: int) -> str:
    """Return why a process failed: its error message, or its last lines."""
    starts = [place for place, line in enumerate(log) if line.startswith("error:")]
    lines = log[starts[-1] :] if starts else log[-3:]
    return (
        "\n".join(lines) or f"the process ended with exit code {code} without a message"
    )
