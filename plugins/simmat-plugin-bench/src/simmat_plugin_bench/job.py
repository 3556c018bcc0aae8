"""The process of one cell: `python -m simmat_plugin_bench.job CELL [--test] [--everything]`.

It trains or resumes, writes `result.json`, and with --test scores the test split once with the best bundle by
validation. A bundle with a dense head is scored without prompts, too; with --everything other models are as well, by
a grid of clicks. All its state is on disk, so it may be killed at any moment.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

import simmat
from simmat import training
from simmat.assemble import assemble
from simmat.bundle import load_bundle
from simmat.config import TrainConfig, dump_toml, load_config
from simmat.errors import DataError, OutputError, SimMATError
from simmat.evaluation import (
    EvalRequest,
    Scores,
    evaluate,
    evaluate_bundle,
    find_protocol,
    seen_note,
)
from simmat.io.files import (
    atomic_write_json,
    atomic_write_text,
    locked,
    remove_temporary,
)
from simmat.model import count_parameters
from simmat.nn.device import pick_device
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.terminal import echo, escaped_streams
from simmat.threads import peak_memory_bytes
from simmat.training import (
    Callback,
    RunFolder,
    RunInfo,
    TrainingPlan,
    fingerprint_in,
    plan_run,
)
from simmat.types import is_finite_number
from simmat_plugin_bench.cells import (
    FORMAT,
    CellFolder,
    CellResult,
    CellSettings,
    Clock,
    read_cell_file,
)

LOCK_SECONDS = 120
"""Longest wait for the process of a killed bench to finish its step."""


class JobCallback(Callback):
    """Count the time across interruptions, and write a line into the log at each validation.

    Attributes:
        plan: the run's plan; None until it starts.
    """

    def __init__(self, clock: Path) -> None:
        self.plan: RunInfo | None = None
        self.steps = 0
        self._clock = clock
        self._before = (
            read_cell_file(clock, Clock)["seconds"] if clock.is_file() else 0.0
        )
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far; before an interruption they count up to the last validation."""
        return float(self._before) + time.monotonic() - self._began

    def started(self, plan: RunInfo) -> None:
        """Print the plan."""
        self.plan = plan
        self.steps = plan.steps
        for note in plan.notes:
            echo(note)
        echo(
            f"from step {plan.first_step} of {plan.steps}, {plan.trainable:,} parameters train, on {plan.device}"
        )

    def ending(self, steps: int) -> None:
        """Note the number of steps."""
        self.steps = steps

    def validated(
        self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores
    ) -> None:
        """Print the score, and save the time."""
        echo(
            f"step {step}: validation mIoU {summary['miou_object']:.4f}{' (best)' if best else ''}"
        )
        atomic_write_json(self._clock, {"format": FORMAT, "seconds": self.seconds})


@escaped_streams()
def main(arguments: list[str]) -> int:
    """Run the cell; an error in data or settings gives one line in the log and exit code 2."""
    folder, test, everything = (
        CellFolder(Path(arguments[0])),
        "--test" in arguments,
        "--everything" in arguments,
    )
    _end_with_parent()
    try:
        with locked(folder.root, timeout_s=LOCK_SECONDS) as free:
            if not free:
                raise OutputError(
                    f"another process is running in {folder.root}; wait for it, or stop it"
                )
            remove_temporary(folder.root, older_than_s=0)
            _run_cell(folder, load_plugins(), test=test, everything=everything)
    except training.Interrupted as error:
        echo(error)
        return 130
    except SimMATError as error:
        echo(f"error: {error}")
        return 2
    return 0


def _run_cell(
    folder: CellFolder, registry: Registry, *, test: bool, everything: bool
) -> None:
    kind = read_cell_file(folder.settings, CellSettings)["kind"]
    config = load_config(folder.config)
    if not folder.result.is_file():
        _write(
            folder,
            _zero_shot(config, registry)
            if kind == "zero-shot"
            else _train(folder, config, registry),
        )
    # large, and not needed after the last step
    RunFolder(folder.run).state.unlink(missing_ok=True)
    result = read_cell_file(folder.result, CellResult)
    if test and result["test"] is None and not result["diverged"]:
        began = time.monotonic()
        if kind == "zero-shot":
            scores, _ = _score_untrained(
                plan_run(config, registry), registry, "test", everything=everything
            )
        else:
            scores = _test(folder, config, registry, everything=everything)
        tested = {"test": scores.summary(), "test_ious": scores.by_sample()}
        _write(folder, result | tested | {"test_seconds": time.monotonic() - began})


def _write(folder: CellFolder, result: dict[str, Any]) -> None:
    atomic_write_json(
        folder.result,
        {
            "format": FORMAT,
            "digest": read_cell_file(folder.settings, CellSettings)["digest"],
            **result,
        },
    )


def _train(
    folder: CellFolder, config: TrainConfig, registry: Registry
) -> dict[str, Any]:
    run, callback = RunFolder(folder.run), JobCallback(folder.clock)
    diverged = ""
    try:
        if run.config.is_file():
            # paths and free settings may have changed
            atomic_write_text(run.config, dump_toml(config))
            training.resume(run.root, registry, callback)
        else:
            # A run without a config was killed before its first step and cannot be resumed.
            shutil.rmtree(run.root, ignore_errors=True)
            training.train(config, registry, callback)
    except training.Diverged as error:
        diverged = str(error)
        echo(diverged)
    assert callback.plan is not None  # `resume` and `train` call `started`
    curve = []
    for record in run.records():
        is_validation = record.get("kind") == "val"
        if is_validation and is_finite_number(record.get("miou_object")):
            curve.append(record)
    if not curve:
        raise DataError(
            f"{run.metrics} is damaged: it has no validation; remove {folder.root} and run the bench again"
        )
    kept = curve[-1]
    if callback.plan.config.keep != "last":
        # With a dense head the bundle is chosen by the mean of all scores.
        kept = max(
            curve,
            key=lambda record: (
                record.get("score", record["miou_object"]),
                -record["step"],
            ),
        )
    return {
        "data": {"path": str(config.data), "fingerprint": fingerprint_in(run.state)},
        "diverged": diverged,
        "val": None if diverged else kept,
        "curve": [
            {"step": record["step"], "miou_object": record["miou_object"]}
            for record in curve
        ],
        "test": None,
        "trainable": callback.plan.trainable,
        "total": callback.plan.total,
        "steps": callback.steps,
        "train_samples": callback.plan.train_samples,
        "seconds": callback.seconds,
        **_machine(callback.plan.device),
    }


def _test(
    folder: CellFolder, config: TrainConfig, registry: Registry, *, everything: bool
) -> Scores:
    device = pick_device(config.device)
    bundle = load_bundle(
        folder.run, registry, checkpoint=config.checkpoint, device=device
    )
    dense = bundle.spec.dense is not None
    tuned, _ = evaluate_bundle(
        bundle,
        config.data,
        "test",
        overrides=config.card_overrides(),
        request=EvalRequest(
            protocol=find_protocol(config.protocol),
            everything=everything or dense,
            semantic=dense,
        ),
    )
    if tuned.seen is not None and (note := seen_note(tuned.seen)):
        echo(f"test split: {note}")
    return tuned


def _zero_shot(config: TrainConfig, registry: Registry) -> dict[str, Any]:
    began = time.monotonic()
    plan = plan_run(config, registry)
    scores, parameters = _score_untrained(plan, registry, "val")
    summary = scores.summary()
    echo(f"zero-shot: validation mIoU {summary['miou_object']:.4f}")
    return {
        "data": {"path": str(config.data), "fingerprint": plan.contents.fingerprint},
        "diverged": "",
        "val": {"kind": "val", "step": 0, **summary},
        "curve": [],
        "test": None,
        "trainable": 0,
        "total": parameters,
        "steps": 0,
        "train_samples": 0,
        "seconds": time.monotonic() - began,
        **_machine(str(pick_device(config.device))),
    }


def _score_untrained(
    plan: TrainingPlan, registry: Registry, split: str, *, everything: bool = False
) -> tuple[Scores, int]:
    """Score the network of a plan as it is before its first step, without its dense head; also return its parameters.

    Its validation samples are those of a training. `everything` also finds every object by a grid of clicks.
    """
    config = plan.config
    spec = plan.spec.model_copy(update={"dense": None})
    model = assemble(spec, plan.parts).to(pick_device(config.device))
    samples = plan.val if split == "val" else plan.dataset.split(split)
    predictor = Predictor(
        model,
        plan.pipeline,
        image_side=spec.image_side,
        takes_windows=bool(spec.card.crop),
    )
    protocol = find_protocol(config.protocol)
    scores = evaluate(
        predictor,
        plan.dataset,
        samples,
        request=EvalRequest(protocol=protocol, everything=everything),
        registry=registry,
    )
    return scores, count_parameters(model)[1]


def _machine(device: str) -> dict[str, Any]:
    on_gpu = torch.cuda.is_available() and device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if on_gpu else device,
        "threads": torch.get_num_threads(),
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_device_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "versions": {
            "simmat": simmat.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _end_with_parent() -> None:
    """Stop as with SIGTERM when the bench ends: then standard input closes, even if the bench was killed."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        # not os.kill, which on Windows ends the process at once
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
