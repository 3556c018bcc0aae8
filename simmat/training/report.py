"""The report of a run: what is kept for its page while it trains, and the page at its end."""

from __future__ import annotations

import itertools
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, cast

import torch
from pydantic import BeforeValidator
from tqdm import tqdm

import simmat
from simmat.bundle import Bundle, BundleSpec, load_tensors, read_bundle_spec
from simmat.bundle.files import read_weights
from simmat.bundle.model_card import needed_packages
from simmat.config import TrainConfig, load_config
from simmat.data.checks import check_dataset, texts_of
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.index import read_index
from simmat.documents import Document, as_tuples, parse
from simmat.errors import BundleError, ConfigError, SimMATError
from simmat.evaluation import (
    ONE_CLICK,
    ObjectScore,
    Processes,
    Scores,
    evaluate,
    evaluate_unprompted,
    find_protocol,
    why_no_zero_shot,
)
from simmat.evaluation.job import trained_card
from simmat.everything import EverythingSettings
from simmat.io.files import atomic_write_json, read_json
from simmat.model import SimMAT, assemble, count_parameters, zero_shot_of
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.terminal import escape
from simmat.threads import cpu_name, usable_cpus
from simmat.training.examine import (
    FULL,
    Examination,
    Findings,
    Passes,
    SplitFindings,
    Subject,
    examine,
    spread,
    zero_shot_scores,
)
from simmat.training.run_folder import RunFolder
from simmat.training.run_page import RunView, write_page
from simmat.training.setup import Setup
from simmat.training.validation import MOST_CLICKS, validate

_MOST_BYTES = 2**30
_REST = 20
"""The page is written again after this many times the time that it took: a twentieth of a training at most."""
_LISTED = 20
"""Most problems, notes and names of images that are kept."""


class RunReport(Document):
    """`report.json` of a run: what its page shows beside settings, log and bundle.

    Attributes:
        format: of this file.
        steps: optimiser steps of the whole run.
        seconds: that it has trained, over all resumes.
        trainable: number of trained parameters.
        total: number of all parameters.
        train_images: number of training images.
        machine: what it ran on: title -> text.
        notes: what training said of the data and the settings.
        weights_sha256: of the weights of the bundle that was examined.
        examination: of that bundle on the validation split.
    """

    format: Literal[1] = 1
    steps: int
    seconds: float
    trainable: int
    total: int
    train_images: int
    machine: dict[str, str]
    notes: Annotated[tuple[str, ...], BeforeValidator(as_tuples)]
    weights_sha256: str
    examination: Examination


def read_report(folder: RunFolder) -> RunReport | None:
    """Read `report.json` of a run; None where there is none.

    Raises:
        ConfigError: it is damaged.
        DataError: it cannot be read.
    """
    if not folder.report.exists():
        return None
    return parse(RunReport, read_json(folder.report, "report of a run", limit=_MOST_BYTES), str(folder.report))


def open_run(root: Path, examinations: tuple[Examination, ...] | None = None) -> RunView:
    """Read what the page of a run shows.

    Args:
        root: the folder of the run.
        examinations: shown in place of the one that training made.

    Raises:
        SimMATError: there is no run, it has no bundle yet, or its files are damaged.
    """
    folder = RunFolder(root.absolute())  # the page shows paths that can be copied
    if not folder.config.is_file():
        hint = f"; its run is {root.parent}" if (root.parent / "config.toml").is_file() else ""
        raise ConfigError(f"{root}: no run there (no config.toml); give the folder that --out named{hint}")
    config = load_config(folder.config, {"out": root})
    try:
        spec = read_bundle_spec(folder.bundle)
    except BundleError as error:
        if folder.bundle.exists():
            raise
        raise ConfigError(f"{root} has no bundle yet; wait for its first validation, or start it again") from error
    report = read_report(folder)
    if examinations is None:
        examinations = (report.examination,) if report is not None and _is_of(report, spec) else ()
    return view_of(config, spec, folder, report, examinations)


def _is_of(report: RunReport, spec: BundleSpec) -> bool:
    """Return whether a report has the scores of a bundle, not of one that was kept before it."""
    return report.weights_sha256 == spec.weights_sha256


def view_of(
    config: TrainConfig,
    spec: BundleSpec,
    folder: RunFolder,
    report: RunReport | None,
    examinations: tuple[Examination, ...],
) -> RunView:
    """Return what the page of a run shows."""
    shown_elsewhere = {"format", "examination", "machine", "notes", "weights_sha256"}
    facts = report.model_dump(exclude=shown_elsewhere) if report else {}
    return RunView(
        name=folder.root.name or str(folder.root),
        bundle=folder.bundle,
        config=config,
        spec=spec,
        records=folder.records(),
        facts=facts,
        machine=report.machine if report else {},
        notes=report.notes if report else (),
        trained=report.examination if report and _is_of(report, spec) else None,
        examinations=examinations,
    )


def is_complete(run: RunView) -> bool:
    """Return whether training found all that a page shows."""
    found = run.examinations[0] if run.examinations else None
    return found is not None and bool(found.shown) and (bool(found.withheld) or len(run.spec.channels) < 2)


class Reporter:
    """Keeps what the page of a run shows, and writes the page after validations.

    Until the run ends the page is made of what validation found, without running the network again. A report that
    fails is left out with a warning: the training is worth more.
    """

    def __init__(self, setup: Setup, model: SimMAT, registry: Registry, processes: Processes, *, resumes: bool) -> None:
        """Make a reporter.

        Args:
            setup: of the run.
            model: its network.
            registry: the installed plugins.
            processes: those of the run.
            resumes: continue the report of a run.
        """
        self._setup, self._registry, self._processes = setup, registry, processes
        self._folder = RunFolder(setup.config.out)
        self._parameters = count_parameters(model)
        self._began = time.monotonic()
        self._before = 0.0
        self._written, self._took = -math.inf, 0.0  # when the page was written, and how long that took
        self._works = True
        self._found: Examination | None = None  # of the bundle whose weights these are:
        self._weights_sha256 = ""
        self._zero_shot: tuple[ObjectScore, ...] | None = None
        if resumes:
            with suppress(SimMATError):  # a damaged report is made again
                self._continue()

    def _continue(self) -> None:
        kept = read_report(self._folder)
        if kept is None:
            return
        self._before, self._zero_shot = kept.seconds, kept.examination.zero_shot
        spec = read_bundle_spec(self._folder.bundle)
        if _is_of(kept, spec):  # else the run was killed between writing the bundle and the report
            self._found, self._weights_sha256 = kept.examination, spec.weights_sha256

    def validated(self, model: SimMAT, scores: Scores, *, better: bool) -> None:
        """Take note of a validation, and write the page if that was not just done.

        Args:
            model: the validated network.
            scores: of the validation.
            better: the best one so far, of which the bundle is kept.
        """
        self._try(lambda: self._validated(model, scores, better=better))

    def finish(self, model: SimMAT) -> None:
        """Run the best bundle's network for the rest of the page; `model` gets its weights."""
        self._try(lambda: self._finish(model))

    def write(self) -> None:
        """Write the page of what is known."""
        self._try(self._write)

    def _try(self, act: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            act()
        except Exception as error:  # of files, pictures, fonts, the device's memory
            self._works = False
            line = (
                f"warning: the run's report cannot be made ({type(error).__name__}: {error}); the training goes on "
                f"without it. `simmat report {self._folder.root}` makes it from the bundle"
            )
            tqdm.write(escape(line), file=sys.stderr)

    def _validated(self, model: SimMAT, scores: Scores, *, better: bool) -> None:
        if better:
            self._take(model, scores)
            self._write_report()
        if time.monotonic() - self._written >= _REST * self._took:
            self._write()

    def _finish(self, model: SimMAT) -> None:
        spec = read_bundle_spec(self._folder.bundle)
        load_tensors(model, read_weights(self._folder.bundle, spec.weights_sha256), str(self._folder.bundle))
        model.eval()
        if self._found is None:  # the report of a run that was resumed is gone, or that of an older bundle
            here = Processes(self._processes.device)
            self._take(model, validate(model, self._setup, here, lambda count: None))
        found = cast(Examination, self._found)
        if not found.shown:
            found = examine(self._subject(model), self._setup.val, found, self._passes)
            self._found = found.model_copy(update={"findings": findings_of(self._setup.dataset)})
        self._write()

    def _take(self, model: SimMAT, scores: Scores) -> None:
        """Take the scores of the bundle."""
        self._found = None
        self._weights_sha256 = read_bundle_spec(self._folder.bundle).weights_sha256
        self._found = self._examination(model, scores)

    @property
    def _passes(self) -> Passes:
        setup = self._setup
        validations = 1 + -(-setup.steps // setup.val_every)
        trained = 3 * setup.steps * setup.config.batch_size + validations * len(setup.val)
        return Passes.after_training(trained)

    def _subject(self, model: SimMAT) -> Subject:
        setup = self._setup
        protocol = find_protocol(setup.config.protocol)
        return Subject(model, setup.spec, setup.parts.foundation, setup.pipeline, setup.dataset, protocol)

    def _examination(self, model: SimMAT, scores: Scores) -> Examination:
        setup = self._setup
        why = why_no_zero_shot(setup.parts)
        if self._zero_shot is None and not why:
            subject = self._subject(model)
            try:
                self._zero_shot = zero_shot_scores(
                    subject, self._registry, setup.parts.weights, setup.val, self._passes, scores.objects
                )
            except torch.cuda.OutOfMemoryError:
                why = "the device has no memory for the untuned model beside the one in training"
        summary = scores.unprompted.summary() if scores.unprompted is not None else {}
        return Examination(
            data=str(setup.dataset.root),
            split="val",
            images=len(setup.val),
            available=len(setup.val),
            protocol=setup.config.protocol,
            scores=scores.objects,
            zero_shot=self._zero_shot,
            no_zero_shot=why,
            class_names={str(value): name for value, name in setup.dataset.class_names.items()},
            unprompted=summary,
        )

    def _write_report(self) -> RunReport:
        setup = self._setup
        report = RunReport(
            steps=setup.steps,
            seconds=self._before + time.monotonic() - self._began,
            trainable=self._parameters[0],
            total=self._parameters[1],
            train_images=len(setup.train),
            machine=machine_facts(self._processes, setup, self._registry),
            notes=setup.notes,
            weights_sha256=self._weights_sha256,
            examination=cast(Examination, self._found),
        )
        atomic_write_json(self._folder.report, report.model_dump(mode="json"))
        return report

    def _write(self) -> None:
        if self._found is None:
            return
        began = time.monotonic()
        folder, report = self._folder, self._write_report()
        view = view_of(self._setup.config, read_bundle_spec(folder.bundle), folder, report, (self._found,))
        write_page(folder.page, [view])
        self._written = time.monotonic()
        self._took = self._written - began


def examine_bundle(
    bundle: Bundle,
    data: Path,
    split: str | None,
    registry: Registry,
    *,
    images: int,
    overrides: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Examination:
    """Score a bundle and its untuned foundation model on some images of a data set, and draw what it does.

    Args:
        bundle: a loaded bundle.
        data: folder of the data set.
        split: "train", "val" or "test"; None is test where there is one, else val.
        registry: where the zero-shot map and the frozen tuner are found.
        images: at most so many images are scored; of a larger split those with regions, spread evenly.
        overrides: fields of the data card; None is not set.
        progress: called with (done, total) passes over an image.

    Raises:
        DataError: the data cannot be read, or no image has a region.
    """
    dataset = open_dataset(data.absolute(), bundle.sensor, overrides, defaults=trained_card(bundle.spec.card))
    if split is None:
        split = "test" if any(sample.split == "test" for sample in dataset.samples) else "val"
    every = dataset.split(split)
    if images < len(every):  # in a sparse set most images of a few would hold nothing to click on
        index = read_index(dataset)
        every = index.with_regions([one for one in every if one.id not in index.faults], "scoring") or every
    samples = spread(every, images)
    protocol = find_protocol(str(bundle.spec.metrics.get("protocol", ONE_CLICK.name)))
    why, dense = why_no_zero_shot(bundle.parts), bundle.spec.dense is not None
    total, done = len(samples) * (1 + dense + (not why)), itertools.count(1)

    def advance(_: int) -> None:
        if progress is not None:
            progress(next(done), total)

    def scored(model: SimMAT) -> Scores:
        return evaluate(
            model,
            bundle.pipeline,
            dataset,
            samples,
            protocol=protocol,
            check=bundle.check_image,
            progress=advance,
        )

    tuned, zero_shot, unprompted = scored(bundle.model), None, {}
    if not why:
        device = next(bundle.model.parameters()).device
        model = assemble(*zero_shot_of(bundle.spec, registry, bundle.parts.weights)).to(device)
        zero_shot = scored(model).objects
    if dense:
        unprompted = evaluate_unprompted(
            Predictor.of_bundle(bundle),
            dataset,
            samples,
            everything=not all(dataset.may_have_unmarked(sample) for sample in samples),
            settings=EverythingSettings(most=MOST_CLICKS),
            progress=advance,
        ).summary()
    found = Examination(
        data=str(dataset.root),
        split=split,
        images=len(samples),
        available=len(every),
        protocol=protocol.name,
        scores=tuned.objects,
        zero_shot=zero_shot,
        no_zero_shot=why,
        class_names={str(value): name for value, name in (dataset.class_names or bundle.spec.card.class_names).items()},
        unprompted=unprompted,
    )
    subject = Subject(bundle.model, bundle.spec, bundle.parts.foundation, bundle.pipeline, dataset, protocol)
    found = examine(subject, samples, found, FULL)
    return found.model_copy(update={"findings": findings_of(dataset)})


def findings_of(dataset: Dataset) -> Findings:
    """Return what was found in a data set; long lists are cut."""
    found = check_dataset(dataset)
    splits = tuple(
        SplitFindings(
            name=split.name,
            samples=split.samples,
            regions=split.regions,
            dropped=split.dropped,
            area_px=split.area_px,
            classes={str(number): count for number, count in split.classes.items()},
            ignored=split.ignored,
            empty=len(split.without_region),
            first_empty=split.without_region[:_LISTED],
            sizes_hw=tuple((*size, count) for size, count in split.sizes_hw.items())[:_LISTED],
            channels=split.channels,
        )
        for split in found.splits
    )
    return Findings(
        regions=found.regions,
        split_note=found.split_note,
        splits=splits,
        errors=tuple(texts_of([one for one in found.findings if one.severity == "error"])[:_LISTED]),
        notes=tuple(texts_of([one for one in found.findings if one.severity != "error"])[:_LISTED]),
        unlabelled=len(found.unlabelled),
    )


def machine_facts(processes: Processes, setup: Setup, registry: Registry) -> dict[str, str]:
    """Return the hardware and the versions of a run: title -> text."""
    device = processes.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    packages = {"simmat": simmat.__version__, "torch": torch.__version__, "Python": platform.python_version()}
    for package in needed_packages(setup.spec, registry):
        with suppress(PackageNotFoundError):
            packages[package] = version(package)
    return {
        "device": name if processes.count == 1 else f"{processes.count} x {name}",
        "processor": f"{cpu_name()}; {usable_cpus()} cores usable, torch threads: {torch.get_num_threads()}",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(f"{package} {number}" for package, number in packages.items()),
    }
