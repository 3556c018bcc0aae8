"""Collect the content of the page of a run while it trains, and write the page."""

from __future__ import annotations

import math
import platform
import time
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import simmat
from simmat.bundle import Bundle, load_bundle, read_bundle_spec
from simmat.bundle.model_card import needed_packages
from simmat.errors import SimMATError
from simmat.evaluation import ObjectScore, Scores, find_protocol, why_no_zero_shot
from simmat.io.files import atomic_write_json
from simmat.model import count_parameters
from simmat.model_spec import as_json
from simmat.threads import cpu_name, usable_cpus
from simmat.training import Callback, LiveRun, RunFolder
from simmat_plugin_report.analysis import Budget, analyse, analysis_of, scores_of, zero_shot_scores
from simmat_plugin_report.documents import Analysis, RunReport, read_report
from simmat_plugin_report.pages import write_page
from simmat_plugin_report.run_view import is_of, view_of

_REST = 20
"""Pause before the page is written again, as a multiple of the time to write it: at most 1/20 of a training."""


class ReportCallback(Callback):
    """Keeps the scores of the best bundle in `report.json`, and writes the page after validations.

    Until the run ends the page uses the results of validation, without running the network again.
    """

    def __init__(self, run: LiveRun) -> None:
        """Continue the report of a resumed run."""
        self._run, self._setup = run, run.setup
        self._folder = RunFolder(run.setup.config.out)
        self._parameters = count_parameters(run.model)
        self._began = time.monotonic()
        self._before = 0.0
        self._written_at, self._write_seconds = -math.inf, 0.0  # time at which the page was written, and duration
        self._analysis: Analysis | None = None  # of the bundle whose weights these are:
        self._weights_sha256 = ""
        self._zero_shot: tuple[ObjectScore, ...] | None = None
        if run.resumes:
            with suppress(SimMATError):  # a damaged report is replaced
                self._continue()

    def _continue(self) -> None:
        kept = read_report(self._folder)
        if kept is None:
            return
        self._before, self._zero_shot = kept.seconds, kept.analysis.zero_shot
        spec = read_bundle_spec(self._folder.bundle)
        if is_of(kept, spec):  # otherwise the run was killed between writing bundle and report
            self._analysis, self._weights_sha256 = kept.analysis, spec.weights_sha256

    def validated(self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores) -> None:
        """Store the scores of the best bundle, and write the page unless it was written recently."""
        if best:
            self._store_scores(scores)
            self._write_report()
        if time.monotonic() - self._written_at >= _REST * self._write_seconds:
            self._write_page(running=True)

    def stopped(self) -> None:
        """Write the page with the results so far."""
        self._write_page(running=False)

    def _write_page(self, *, running: bool) -> None:
        report = self._write_report()
        if report is None:
            return
        began, folder = time.monotonic(), self._folder
        view = view_of(self._setup.config, read_bundle_spec(folder.bundle), folder, report, (report.analysis,))
        write_page(folder.page, [replace(view, running=running)])
        self._written_at = time.monotonic()
        self._write_seconds = self._written_at - began

    def finished(self, bundle: Path) -> None:
        """Run the network of the best bundle for the rest of the page."""
        setup = self._setup
        if self._analysis is None or not self._analysis.examples:
            loaded = self._load(bundle)
            if self._analysis is None:  # the report of the resumed run is missing, or is that of an older bundle
                protocol = find_protocol(setup.config.protocol)
                self._store_scores(scores_of(loaded, setup.dataset, setup.val, protocol))
            if self._analysis is not None:
                self._analysis = analyse(loaded, setup.dataset, setup.val, self._analysis, self._budget)
        self.stopped()

    def _load(self, bundle: Path) -> Bundle:
        config = self._setup.config
        checkpoint = config.checkpoint if self._setup.parts.weights is not None else None
        return load_bundle(
            bundle,
            self._run.registry,
            foundation=config.foundation,
            checkpoint=checkpoint,
            device=self._run.processes.device,
        )

    def _store_scores(self, scores: Scores) -> None:
        """Store the scores of the best bundle so far."""
        setup, why = self._setup, why_no_zero_shot(self._setup.parts)
        self._analysis = None
        self._weights_sha256 = read_bundle_spec(self._folder.bundle).weights_sha256
        if self._zero_shot is None and not why:
            try:
                self._zero_shot = zero_shot_scores(self._run, self._budget, scores.objects)
            except torch.cuda.OutOfMemoryError:
                why = "the device has not enough memory for the untuned model besides the one in training"
        self._analysis = analysis_of(
            setup.dataset,
            "val",
            setup.val,
            find_protocol(setup.config.protocol),
            scores,
            zero_shot=self._zero_shot,
            why=why,
            names={},
        )

    @property
    def _budget(self) -> Budget:
        setup = self._setup
        validations = 1 + -(-setup.steps // setup.val_every)
        return Budget.after_training(3 * setup.steps * setup.config.batch_size + validations * len(setup.val))

    def _write_report(self) -> RunReport | None:
        if self._analysis is None:
            return None
        setup, model = self._setup, self._setup.parts.foundation
        report = RunReport(
            steps=setup.steps,
            seconds=self._before + time.monotonic() - self._began,
            trainable=self._parameters[0],
            total=self._parameters[1],
            train_images=len(setup.train),
            machine=machine_facts(self._run),
            notes=setup.notes,
            recipe={"mat": model.mat, "mat_options": as_json(dict(model.mat_options)), "tune": model.tune},
            weights_sha256=self._weights_sha256,
            analysis=self._analysis,
        )
        atomic_write_json(self._folder.report, report.model_dump(mode="json"))
        return report


def machine_facts(run: LiveRun) -> dict[str, str]:
    """Return the hardware and the versions of a run: title -> text."""
    processes, device = run.processes, run.processes.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    packages = {"simmat": simmat.__version__, "torch": torch.__version__, "Python": platform.python_version()}
    for package in needed_packages(run.setup.spec, run.registry):
        with suppress(PackageNotFoundError):
            packages[package] = version(package)
    return {
        "device": name if processes.count == 1 else f"{processes.count} x {name}",
        "processor": f"{cpu_name()}; {usable_cpus()} cores usable, torch threads: {torch.get_num_threads()}",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(f"{package} {number}" for package, number in packages.items()),
    }
