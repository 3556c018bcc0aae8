"""The data of a run's page: `report.json`, and with it settings, log and bundle from its folder."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer

from simmat.bundle import BundleSpec, read_bundle_spec
from simmat.calibration import Kind
from simmat.config import TrainConfig, load_config
from simmat.documents import FromLists, StrictModel, of_dataclass, parse
from simmat.errors import BundleError, ConfigError
from simmat.evaluation import ObjectScore
from simmat.io.reading import read_json
from simmat.training import RunFolder
from simmat_plugin_report.checks import ClassNumber, DataReport

_SHOWN_KEYS = ("kind", "step", "loss", "miou_object", "score")
"""Values of a record in a log that the page shows."""

Jpeg = Annotated[
    bytes,
    BeforeValidator(
        lambda value: (
            base64.b64decode(value, validate=True) if isinstance(value, str) else value
        )
    ),
    PlainSerializer(
        lambda data: base64.b64encode(data).decode("ascii"),
        return_type=str,
        when_used="json",
    ),
]
"""A JPEG file, base64 in json."""


Scored = Annotated[ObjectScore, of_dataclass(ObjectScore)]
Pictures = FromLists[tuple[str, dict[str, Jpeg]]]
"""Id of a sample, and title -> picture."""
Rank = Literal["best", "median", "worst"]


class ExamplePrediction(StrictModel):
    """An object whose prediction is shown.

    Attributes:
        display: description of how the sensor image is displayed.
        sensor: the sensor image with the click.
        error: hits, misses and false alarms.
        untuned: the same of the untuned model; None if it was not asked.
    """

    rank: Rank
    score: Scored
    display: str
    sensor: Jpeg
    error: Jpeg
    untuned: Jpeg | None = None


class ChannelAblation(StrictModel):
    """Scores without some channels.

    Attributes:
        miou: mean IoU over objects without the channels.
        base: mean IoU of the same objects with all channels.
        interval: 95 % interval of `miou - base`, from a bootstrap over images; None for a single image.
    """

    channels: FromLists[tuple[str, ...]]
    images: int
    objects: int
    miou: float
    base: float
    interval: FromLists[tuple[float, float]] | None


class Analysis(StrictModel):
    """The results of a network on one split of a data set.

    Attributes:
        available: number of images in the split.
        seen: which of its images the bundle knows, see `simmat.evaluation.seen_note`; "" for none.
        scores: score of each object with one click.
        zero_shot: of the untuned foundation model, of the same images or some of them.
        no_zero_shot: why there are no zero-shot scores; "" if there are.
        unprompted: blocks "everything" and "semantic", see `Scores.summary`, but for `class_iou`; without a dense head
            there are none.
        mistakes: sample id -> what is wrong with the objects found without clicks, see `ImageMatches.mistakes`.
        class_iou: class -> IoU of the class map; None for a class without a pixel.
        confidence: kind of score without prompts -> its rows, see `AutomaticScores.confidence`.
        views: sample id, and title -> picture of the output of the transfer layer; empty if it is not an image.
        dense: the same of the results of the dense head.
        training_labels: the same of labels that the model was trained on.
        data_report: report on the data; None if the data were not checked.
        example: source -> file of an image, for commands that can be copied.
        example_xy: a click in it.
    """

    data: str
    split: str
    images: int
    available: int
    seen: str = ""
    protocol: str
    scores: FromLists[tuple[Scored, ...]]
    zero_shot: FromLists[tuple[Scored, ...]] | None = None
    no_zero_shot: str = ""
    class_names: dict[ClassNumber, str] = Field(default_factory=dict)
    unprompted: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    class_iou: dict[ClassNumber, float | None] = Field(default_factory=dict)
    confidence: dict[
        Kind, FromLists[tuple[FromLists[tuple[str | float, ...]], ...]]
    ] = Field(default_factory=dict)
    mistakes: dict[str, dict[str, int]] = Field(default_factory=dict)
    examples: FromLists[tuple[ExamplePrediction, ...]] = ()
    views: FromLists[tuple[Pictures, ...]] = ()
    ablations: FromLists[tuple[ChannelAblation, ...]] = ()
    dense: FromLists[tuple[Pictures, ...]] = ()
    training_labels: FromLists[tuple[Pictures, ...]] = ()
    data_report: DataReport | None = None
    example: dict[str, str] = Field(default_factory=dict)
    example_xy: FromLists[tuple[float, float]] = (0.0, 0.0)


class RunReport(StrictModel):
    """`report.json` of a run: the content of its page besides settings, log and bundle.

    Attributes:
        steps: optimiser steps of the whole run.
        seconds: training time over all resumes.
        machine: hardware and versions, title -> text.
        recipe: transfer layer, its options and tuner that suit the foundation model; {} if unknown.
        bundle_sha256: digest of the analysed bundle.
        analysis: analysis of that bundle on the validation split.
    """

    format: Literal[3] = 3
    steps: int
    seconds: float
    trainable: int
    total: int
    train_images: int
    machine: dict[str, str]
    notes: FromLists[tuple[str, ...]]
    recipe: dict[str, JsonValue] = Field(default_factory=dict)
    bundle_sha256: str
    analysis: Analysis


def read_report(folder: RunFolder) -> RunReport | None:
    """Read `report.json` of a run; None if there is none.

    Raises:
        ConfigError: the file is damaged, or of an earlier version.
        DataError: the file cannot be read.
    """
    if not folder.report.exists():
        return None
    values = read_json(folder.report, "report of a run")
    try:
        return parse(RunReport, values, str(folder.report))
    except ConfigError as error:
        raise ConfigError(
            f"{error}; remove it, and simmat report scores the bundle again"
        ) from error


@dataclass(frozen=True)
class RunView:
    """The content of the page of a run.

    Attributes:
        report: results of training; None if there are none.
        analysis: the analysis to show; None if there is none of this bundle.
        running: True if the training is still running.
    """

    name: str
    bundle: Path
    config: TrainConfig
    spec: BundleSpec
    records: Sequence[Mapping[str, Any]]
    report: RunReport | None
    analysis: Analysis | None
    running: bool = False

    @property
    def step(self) -> Any:
        """The step whose bundle was kept."""
        return self.spec.metrics.get("step", "?")

    @property
    def steps_done(self) -> int:
        """The last step in the log; all steps without a log."""
        if not self.records:
            return self.report.steps if self.report is not None else 0
        return max(int(record["step"]) for record in self.records)

    @property
    def trained(self) -> Analysis | None:
        """The analysis of this bundle on the validation split by training; None if there is none."""
        report = self.report
        return (
            report.analysis
            if report is not None and report.bundle_sha256 == self.spec.sha256
            else None
        )

    @property
    def is_complete(self) -> bool:
        """True if it has pictures, and for several channels their importance."""
        found = self.analysis
        return (
            found is not None
            and bool(found.examples)
            and (bool(found.ablations) or len(self.spec.channels) < 2)
        )

    def is_own(self, found: Analysis) -> bool:
        """Return whether an analysis is on the images that validated the run."""
        return found.split == "val" and found.data == str(self.config.data)


def open_run(root: Path) -> RunView:
    """Read the content of the page of a run.

    Raises:
        SimMATError: there is no run, it has no bundle yet, or its files are damaged.
    """
    # absolute, because users copy paths from the page
    folder = RunFolder(root.absolute())
    if not folder.config.is_file():
        hint = (
            f"; its run is {root.parent}"
            if (root.parent / "config.toml").is_file()
            else ""
        )
        raise ConfigError(
            f"{root}: no run there (no config.toml); give the folder that --out named{hint}"
        )
    config = load_config(folder.config, {"out": root})
    folder = RunFolder(folder.root, config.new_sensor)
    try:
        spec = read_bundle_spec(folder.bundle)
    except BundleError as error:
        if folder.bundle_file.exists():
            raise
        raise ConfigError(
            f"{root} has no bundle yet; wait for its first validation, or start it again"
        ) from error
    return view_of(config, spec, folder, read_report(folder))


def _shown_records(folder: RunFolder) -> list[dict[str, Any]]:
    """Return of each record of the log what the page shows: other values of a long run would fill the memory."""
    shown = []
    for record in folder.records():
        shown.append({key: record[key] for key in _SHOWN_KEYS if key in record})
    return shown


def view_of(
    config: TrainConfig, spec: BundleSpec, folder: RunFolder, report: RunReport | None
) -> RunView:
    """Return the content of the page of a run, with the analysis of its report if that is of this bundle."""
    name = folder.root.name or str(folder.root)
    view = RunView(
        name,
        folder.bundle,
        config,
        spec,
        _shown_records(folder),
        report,
        None,
        folder.running,
    )
    return replace(view, analysis=view.trained)
