"""What a person sees of a run in the terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from tqdm import tqdm

from simmat.terminal import escape
from simmat.training.watch import RunPlan, Watcher


class ConsoleWatcher(Watcher):
    """Shows what a run does on stderr: what it will train, a bar with loss, mIoU, speed and time left.

    Attributes:
        plan: what was known before the first step; None in processes that do not report.
        best: the best validation mIoU so far.
        best_step: the step it was reached at.
    """

    def __init__(self) -> None:
        self.plan: RunPlan | None = None
        self.best = float("nan")
        self.best_step = -1
        self._bar: tqdm[Any] | None = None
        self._phase: tqdm[Any] | None = None
        self._shown: dict[str, str] = {}

    def __enter__(self) -> ConsoleWatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_phase()
        if self._bar is not None:
            self._bar.close()

    def preparing(self, what: str, total: int) -> None:
        """Open a short bar for a phase."""
        self._end_phase()
        # Where nobody watches, a bar for each of many validations would only fill the log.
        self._phase = tqdm(total=total, desc=escape(what), leave=False, unit="image", disable=None, file=sys.stderr)

    def advanced(self, count: int) -> None:
        """Move the phase's bar."""
        if self._phase is not None:
            self._phase.update(count)

    def started(self, plan: RunPlan) -> None:
        """Say what will be trained, on what, and how much memory that takes."""
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
            tqdm.write(escape(f"going on after step {plan.first_step} of {plan.steps}"), file=sys.stderr)
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
        """Move the bar and show the loss."""
        if self._bar is not None:
            self._shown["loss"] = f"{losses['loss']:.3f}"
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(1)

    def validated(self, step: int, summary: dict[str, Any], *, best: bool) -> None:
        """Show the validation score beside the loss, and keep the best."""
        self._end_phase()
        if best:
            self.best, self.best_step = summary["miou_object"], step
        self._shown["val mIoU"] = f"{summary['miou_object']:.3f}" + ("*" if best else "")
        if self._bar is not None:
            self._bar.set_postfix(self._shown)

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._phase.close()
            self._phase = None


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(count / 2**20, 1):.0f} MiB"
