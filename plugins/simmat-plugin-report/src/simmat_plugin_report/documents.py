"""The data of a run's page: `report.json`."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, PlainSerializer

from simmat.documents import Document, as_tuples, of_dataclass, parse
from simmat.evaluation import Mistakes, ObjectScore
from simmat.io.files import read_json
from simmat.training import RunFolder
from simmat_plugin_report.data_report import ClassNumber, DataReport, Listed

_MOST_BYTES = 2**30


def _decoded(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


Jpeg = Annotated[
    bytes,
    BeforeValidator(_decoded),
    PlainSerializer(lambda data: base64.b64encode(data).decode("ascii"), return_type=str, when_used="json"),
]
"""A JPEG file, base64 in json."""


def _with_keys(*names: str) -> AfterValidator:
    def checked(pictures: dict[str, bytes]) -> dict[str, bytes]:
        if set(pictures) != set(names):
            raise ValueError(f"must have the keys {', '.join(names)}")
        return pictures

    return AfterValidator(checked)


def _checked_scores(blocks: dict[str, JsonValue]) -> dict[str, JsonValue]:
    semantic = blocks.get("semantic")
    by_class = semantic.get("iou_by_class") if isinstance(semantic, dict) else None
    for key, value in by_class.items() if isinstance(by_class, dict) else ():
        if not key.isdecimal() or not (value is None or isinstance(value, float)):
            raise ValueError("must have class numbers and IoUs in iou_by_class")
    return blocks


Scored = Annotated[ObjectScore, of_dataclass(ObjectScore)]
Rank = Literal["best", "median", "worst"]


class ExamplePrediction(Document):
    """An object whose prediction is shown.

    Attributes:
        rank: rank among all objects by IoU.
        score: its score.
        display: description of how the sensor image is displayed.
        pictures: title -> JPEG.
    """

    rank: Rank
    score: Scored
    display: str
    pictures: Annotated[dict[str, Jpeg], _with_keys("sensor", "error")]


class ChannelAblation(Document):
    """Scores without some channels.

    Attributes:
        channels: names of the withheld channels.
        images: number of scored images.
        objects: number of scored objects.
        miou: mean IoU over objects without the channels.
        base: mean IoU of the same objects with all channels.
        interval: 95 % interval of `miou - base`, from a bootstrap over images; None for a single image.
    """

    channels: Listed[str]
    images: int
    objects: int
    miou: float
    base: float
    interval: Annotated[tuple[float, float], BeforeValidator(as_tuples)] | None


class TransferLayerView(Document):
    """The output of the transfer layer for one image.

    Attributes:
        sample: id of the sample.
        pictures: title -> JPEG.
    """

    sample: str
    pictures: Annotated[dict[str, Jpeg], _with_keys("sensor", "zero-shot", "mat")]


class Analysis(Document):
    """The results of a network on one split of a data set.

    Attributes:
        data: folder of the data set.
        split: the split.
        images: number of scored images.
        available: number of images in the split.
        seen: which of its images the bundle knows, see `SeenImages.note`; "" for none.
        protocol: protocol of the scores.
        scores: score of each object with one click.
        zero_shot: of the untuned foundation model, of the same images or some of them.
        no_zero_shot: why there are no zero-shot scores; "" if there are.
        class_names: class -> name.
        unprompted: blocks "everything" and "semantic", see `Scores.summary`; without a dense head there are none.
        mistakes: sample id -> what is wrong with the objects found without clicks.
        examples: predictions.
        views: outputs of the transfer layer; empty if its output is not an image.
        ablations: importance of channels.
        dense: sample id -> pictures of the results of the dense head.
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
    scores: Listed[Scored]
    zero_shot: Listed[Scored] | None = None
    no_zero_shot: str = ""
    class_names: dict[ClassNumber, str] = Field(default_factory=dict)
    unprompted: Annotated[dict[str, JsonValue], AfterValidator(_checked_scores)] = Field(default_factory=dict)
    mistakes: dict[str, Annotated[Mistakes, of_dataclass(Mistakes)]] = Field(default_factory=dict)
    examples: Listed[ExamplePrediction] = ()
    views: Listed[TransferLayerView] = ()
    ablations: Listed[ChannelAblation] = ()
    dense: Listed[tuple[str, dict[str, Jpeg]]] = ()
    data_report: DataReport | None = None
    example: dict[str, str] = Field(default_factory=dict)
    example_xy: Annotated[tuple[float, float], BeforeValidator(as_tuples)] = (0.0, 0.0)


class RunReport(Document):
    """`report.json` of a run: the content of its page besides settings, log and bundle.

    Attributes:
        format: format number of the file.
        steps: optimiser steps of the whole run.
        seconds: training time over all resumes.
        trainable: number of trained parameters.
        total: number of all parameters.
        train_images: number of training images.
        machine: hardware and versions, title -> text.
        notes: notes of training on data and settings.
        recipe: transfer layer, its options and tuner that suit the foundation model; {} if unknown.
        weights_sha256: sha256 of the weights of the analysed bundle.
        analysis: analysis of that bundle on the validation split.
    """

    format: Literal[1] = 1
    steps: int
    seconds: float
    trainable: int
    total: int
    train_images: int
    machine: dict[str, str]
    notes: Listed[str]
    recipe: dict[str, JsonValue] = Field(default_factory=dict)
    weights_sha256: str
    analysis: Analysis


def read_report(folder: RunFolder) -> RunReport | None:
    """Read `report.json` of a run; None if there is none.

    Raises:
        ConfigError: the file is damaged.
        DataError: the file cannot be read.
    """
    if not folder.report.exists():
        return None
    return parse(RunReport, read_json(folder.report, "report of a run", limit=_MOST_BYTES), str(folder.report))
