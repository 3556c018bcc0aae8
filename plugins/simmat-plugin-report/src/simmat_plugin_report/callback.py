"""Collect the content of the page of a run while it trains, and write the page."""

from __future__ import annotations

import math
import platform
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import simmat
from simmat.bundle import Bundle, BundleSpec, load_bundle, read_bundle_spec
from simmat.callbacks import Callback, RunInfo
from simmat.config import TrainConfig
from simmat.data.dataset import Dataset
from simmat.data.index import read_index
from simmat.errors import SimMATError
from simmat.evaluation import (
    ObjectScore,
    Protocol,
    Scores,
    find_protocol,
    validate,
    why_no_zero_shot,
)
from simmat.io.files import atomic_write_json
from simmat.model_spec import as_json
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.threads import usable_cpus
from simmat.training import RunFolder, open_data
from simmat_plugin_report.analysis import (
    analyse,
    analysis_of,
    pass_limits,
    zero_shot_scores,
)
from simmat_plugin_report.compare_page import write_page
from simmat_plugin_report.documents import Analysis, RunReport, read_report, view_of
from simmat_plugin_report.processor import cpu_name

PAUSE_FACTOR = 20
"""Pause before the page is written again, as a multiple of the time to write it: at most 1/20 of a training."""


class ReportCallback(Callback):
    """Keeps the scores of the best bundle in `report.json`, and writes the page after validations.

    Until the run ends the page uses the results of validation, without running the network again.
    """

    def __init__(self, config: TrainConfig, registry: Registry) -> None:
        self._folder, self._registry = (
            RunFolder(config.out, config.new_sensor),
            registry,
        )
        self._plan: RunInfo
        self._steps = 0
        self._began = time.monotonic()
        self._before = 0.0
        # time at which the page was written, and duration
        self._written_at, self._write_seconds = -math.inf, 0.0
        # of the bundle that this is the digest of:
        self._analysis: Analysis | None = None
        self._bundle_sha256 = ""
        self._zero_shot: tuple[ObjectScore, ...] | None = None
        self._no_zero_shot = ""  # why there are none

    def started(self, plan: RunInfo) -> None:
        """Continue the report of a resumed run."""
        self._plan = plan
        self._steps = plan.steps
        with suppress(SimMATError):  # a damaged report is replaced
            if (
                plan.best_step is not None
                and (report := read_report(self._folder)) is not None
            ):
                self._before, self._zero_shot = (
                    report.seconds,
                    report.analysis.zero_shot,
                )
                spec = read_bundle_spec(self._folder.bundle)
                # else the run was killed before it wrote the report
                if report.bundle_sha256 == spec.sha256:
                    self._analysis, self._bundle_sha256 = report.analysis, spec.sha256

    def ending(self, steps: int) -> None:
        """Note the number of steps."""
        self._steps = steps

    def validated(
        self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores
    ) -> None:
        """Store the scores of the best bundle, and write the page unless it was written recently."""
        if best:
            self._store_scores(scores)
            self._write_report()
        if time.monotonic() - self._written_at >= PAUSE_FACTOR * self._write_seconds:
            self._write_page(running=True)

    def stopped(self) -> None:
        """Write the page with the results so far."""
        self._write_page(running=False)

    def _write_page(self, *, running: bool) -> None:
        report = self._write_report()
        if report is None:
            return
        began, folder = time.monotonic(), self._folder
        view = view_of(
            self._plan.config, read_bundle_spec(folder.bundle), folder, report
        )
        write_page(folder.page, [replace(view, running=running)])
        self._written_at = time.monotonic()
        self._write_seconds = self._written_at - began

    def finished(self, bundle: Path) -> None:
        """Run the network of the best bundle for the rest of the page."""
        if self._analysis is None or not self._analysis.examples:
            loaded, dataset = self._load(bundle)
            scored = set(self._plan.val)
            samples = [sample for sample in dataset.split("val") if sample.id in scored]
            # the report of the resumed run is missing, or is that of an older bundle
            if self._analysis is None:
                self._store_scores(
                    validate(
                        Predictor.of_bundle(loaded), dataset, samples, self._protocol
                    )
                )
            if self._analysis is not None:
                self._analysis = analyse(
                    loaded,
                    dataset,
                    samples,
                    self._analysis,
                    self._pass_limits[1],
                    trained=self._plan.config,
                )
        self.stopped()

    def _load(self, path: Path) -> tuple[Bundle, Dataset]:
        """Load a bundle of the run, and open the data as the run has."""
        config = self._plan.config
        checkpoint = None if config.from_scratch else config.checkpoint
        bundle = load_bundle(
            path,
            self._registry,
            foundation=config.foundation,
            checkpoint=checkpoint,
            device=self._plan.device,
        )
        dataset = open_data(config, self._registry, bundle.modality)
        return bundle, read_index(dataset).dataset

    def _store_scores(self, scores: Scores) -> None:
        """Store the scores of the best bundle so far."""
        self._analysis = None
        spec = read_bundle_spec(self._folder.bundle)
        self._bundle_sha256 = spec.sha256
        if self._zero_shot is None and not self._no_zero_shot:
            self._no_zero_shot, self._zero_shot = self._untuned_scores(scores)
        self._analysis = analysis_of(
            self._plan.data,
            "val",
            len(self._plan.val),
            self._protocol,
            scores,
            zero_shot=self._zero_shot,
            why=self._no_zero_shot,
            class_names=spec.card.class_names,
        )

    def _untuned_scores(
        self, scores: Scores
    ) -> tuple[str, tuple[ObjectScore, ...] | None]:
        """Return the scores of the untuned model, or why there are none."""
        try:
            bundle, dataset = self._load(self._folder.bundle)
            if why := why_no_zero_shot(bundle.parts):
                return why, None
            passes = self._pass_limits[0]
            return "", zero_shot_scores(
                bundle, dataset, self._registry, self._protocol, passes, scores.objects
            )
        except torch.cuda.OutOfMemoryError:
            return (
                "the device does not have enough memory for the untuned model in addition to the model in training",
                None,
            )

    @property
    def _protocol(self) -> Protocol:
        return find_protocol(self._plan.config.protocol)

    @property
    def _pass_limits(self) -> tuple[int, int]:
        plan = self._plan
        validations = 1 + -(-plan.steps // plan.val_every)
        return pass_limits(
            3 * plan.steps * plan.config.batch_size + validations * len(plan.val)
        )

    def _write_report(self) -> RunReport | None:
        if self._analysis is None:
            return None
        plan = self._plan
        model = self._registry.foundation(plan.config.foundation, fetch=False)
        report = RunReport(
            steps=self._steps,
            seconds=self._before + time.monotonic() - self._began,
            trainable=plan.trainable,
            total=plan.total,
            train_images=plan.train_samples,
            machine=machine_facts(plan, read_bundle_spec(self._folder.bundle)),
            notes=plan.notes,
            recipe={
                "mat": model.mat,
                "mat_options": as_json(dict(model.mat_options)),
                "tune": model.tune,
            },
            bundle_sha256=self._bundle_sha256,
            analysis=self._analysis,
        )
        atomic_write_json(self._folder.report, report.model_dump(mode="json"))
        return report


def machine_facts(plan: RunInfo, spec: BundleSpec) -> dict[str, str]:
    """Return the hardware and the versions of a run: title -> text."""
    name = (
        torch.cuda.get_device_name(plan.device)
        if plan.device.startswith("cuda")
        else plan.device
    )
    packages = {
        "simmat": simmat.__version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    packages |= {package.distribution: package.version for package in spec.packages}
    return {
        "device": name if plan.processes == 1 else f"{plan.processes} x {name}",
        "processor": f"{cpu_name()}; {usable_cpus()} cores usable, torch threads: {torch.get_num_threads()}",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(
            f"{package} {number}" for package, number in packages.items()
        ),
    }
