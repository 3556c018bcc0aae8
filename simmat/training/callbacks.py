"""Callbacks of a training run: of the caller, of plugins, and the one that writes to the console."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from simmat.terminal import escape

if TYPE_CHECKING:
    from simmat.evaluation import Processes, Scores
    from simmat.model import SimMAT
    from simmat.plugins.registry import Registry
    from simmat.training.setup import Setup


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is known before the first step.

    Attributes:
        first_step: 0, or the number of steps that a resumed run has done.
        memory_bytes: estimated memory of weights, optimiser and one batch's activations.
        best_miou: validation mIoU of the best bundle of a resumed run; None if it has none.
        best_step: step of that validation.
        notes: sentences for the user, such as how the data was split.
    """

    first_step: int
    steps: int
    train_samples: int
    val_samples: int
    trainable: int
    total: int
    memory_bytes: int
    device: str
    processes: int
    best_miou: float | None = None
    best_step: int | None = None
    notes: tuple[str, ...] = ()
    data: Path = Path()
    splits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run as its callbacks may see it; what they change in it changes the training.

    Attributes:
        setup: its data and settings.
        model: its network.
        registry: what is installed.
        processes: those of the run.
        resumes: a bundle is there already.
    """

    setup: Setup
    model: SimMAT
    registry: Registry
    processes: Processes
    resumes: bool


class Callback:
    """A callback that does nothing; override the methods you need. Only the main process calls them."""

    def preparing(self, what: str, total: int) -> None:
        """A phase of `total` items begins ("statistics", "validation")."""

    def advanced(self, count: int) -> None:
        """`count` items of the phase are done."""

    def started(self, plan: RunPlan) -> None:
        """The first step is about to run."""

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Step `step` (from 1) is done; `losses` has the learning rate too, as "lr"."""

    def validated(self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores) -> None:
        """A validation after `step` steps is done.

        Args:
            step: 0 before the first one.
            summary: that of the scores; with a dense head, it also has "everything" and "semantic", and the "score"
                that `best` compares.
            best: it is the best so far, and its bundle is written.
            scores: of each object.
        """

    def stopped(self) -> None:
        """The run was asked to stop, and its state is saved."""

    def finished(self, bundle: Path) -> None:
        """All steps are done; the folder has the best bundle."""


class Callbacks(Callback):
    """Several callbacks, called in their order; those of plugins last, and in isolation.

    A callback of a plugin that fails is left out with a warning: the training is worth more.
    """

    def __init__(self, *members: Callback, of_plugins: Iterable[tuple[str, Callback]] = ()) -> None:
        """Take callbacks, and those of plugins with the package of each."""
        self._members, self._of_plugins = members, list(of_plugins)
        for name in ("preparing", "advanced", "started", "stepped", "validated", "stopped", "finished"):
            setattr(self, name, partial(self._tell, name))

    @classmethod
    def with_plugins(cls, callback: Callback, run: LiveRun) -> Callbacks:
        """Return a callback together with those that plugins have for a run."""
        found: list[tuple[str, Callback]] = []
        for package, hook in run.registry.callback_hooks():
            with _warned(package):
                given = hook.make(config=run.setup.config, run=run)
                found += [(package, member) for members in given for member in members]
        return cls(callback, of_plugins=found)

    def _tell(self, name: str, *args: Any, **kwargs: Any) -> None:
        for member in self._members:
            getattr(member, name)(*args, **kwargs)
        works = []
        for package, member in self._of_plugins:
            with _warned(package):
                getattr(member, name)(*args, **kwargs)
                works.append((package, member))
        self._of_plugins = works


@contextmanager
def _warned(package: str) -> Iterator[None]:
    """Turn what a plugin raises into a warning."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = f"warning: {package} failed ({type(error).__name__}: {error}); the training goes on without it"
        tqdm.write(escape(line), file=sys.stderr)


class ConsoleCallback(Callback):
    """Show a run on stderr: its plan, then a progress bar with loss, mIoU, speed and remaining time.

    Attributes:
        plan: the run's plan; None until it starts, and in processes other than the main one.
        best: the validation mIoU of the best bundle so far.
    """

    def __init__(self) -> None:
        self.plan: RunPlan | None = None
        self.best = float("nan")
        self.best_step = -1
        self._bar: tqdm[Any] | None = None
        self._phase: tqdm[Any] | None = None
        self._shown: dict[str, str] = {}

    def __enter__(self) -> ConsoleCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_phase()
        if self._bar is not None:
            self._bar.close()

    def preparing(self, what: str, total: int) -> None:
        """Open a progress bar for a phase."""
        self._end_phase()
        # disable=None: no bar without a terminal, where one per validation would fill the log.
        self._phase = tqdm(total=total, desc=escape(what), leave=False, unit="image", disable=None, file=sys.stderr)

    def advanced(self, count: int) -> None:
        """Advance the phase's bar."""
        if self._phase is not None:
            self._phase.update(count)

    def started(self, plan: RunPlan) -> None:
        """Print what will be trained, on how many samples, and how much memory it needs."""
        self._end_phase()
        self.plan = plan
        if plan.best_miou is not None and plan.best_step is not None:
            self.best, self.best_step = plan.best_miou, plan.best_step
        share = 100 * plan.trainable / max(plan.total, 1)
        for line in (
            *plan.notes,
            f"{plan.train_samples} training and {plan.val_samples} validation samples",
            f"{plan.trainable:,} of {plan.total:,} parameters train ({share:.2f} %)",
            f"about {_bytes(plan.memory_bytes)} of memory on {plan.device}"
            + (f" in each of {plan.processes} processes" if plan.processes > 1 else ""),
        ):
            tqdm.write(escape(line), file=sys.stderr)
        if plan.first_step:
            tqdm.write(escape(f"resuming after step {plan.first_step} of {plan.steps}"), file=sys.stderr)
        self._bar = tqdm(
            total=plan.steps,
            initial=plan.first_step,
            desc="train",
            unit="step",
            file=sys.stderr,
            mininterval=0.5,
            dynamic_ncols=True,
        )

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Advance the bar and show the loss."""
        if self._bar is not None:
            self._shown["loss"] = f"{losses['loss']:.3f}"
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(1)

    def validated(self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores) -> None:
        """Show the validation score next to the loss, and remember the best."""
        self._end_phase()
        if best:
            self.best, self.best_step = summary["miou_object"], step
        shown = [f"{summary['miou_object']:.3f}"]
        for name, block, key in (("AP50", "everything", "ap50"), ("class mIoU", "semantic", "miou")):
            value = (summary.get(block) or {}).get(key)
            shown += [] if value is None else [f"{name} {value:.3f}"]
        self._shown["val mIoU"] = " ".join(shown) + (" (best)" if best else "")
        if self._bar is not None:
            self._bar.set_postfix(self._shown)

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._phase.close()
            self._phase = None


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(count / 2**20, 1):.0f} MiB"
