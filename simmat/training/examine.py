"""Run a trained network for its report: predictions, pictures of the transfer layer, scores without each channel.

The cost is bounded, and counted in images encoded: see `Passes`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, PlainSerializer

from simmat.data.augment import cut_image, cut_label
from simmat.data.checks import ChannelReport
from simmat.data.dataset import Dataset
from simmat.data.dense_targets import class_map
from simmat.data.instances import FoundObject, Label
from simmat.data.pipeline import Pipeline, PreparedImage
from simmat.data.samples import Sample
from simmat.documents import Document, as_tuples, of_dataclass
from simmat.evaluation import ObjectScore, Protocol, evaluate
from simmat.evaluation.interaction import ScoredImage, score_objects
from simmat.evaluation.scores import mean_interval
from simmat.evaluation.targets import find_targets
from simmat.everything import EverythingSettings, label_values
from simmat.model import SimMAT, assemble, zero_shot_of
from simmat.model_spec import DenseSpec, ModelSpec
from simmat.nn.resize import restore_logits
from simmat.plugins.registry import Registry
from simmat.predictor import EncodedImage, Predictor
from simmat.report.colour_maps import PictureArray
from simmat.report.display import describe_display, display_rgb, stretch
from simmat.report.overlay import draw_comparison, draw_overlay
from simmat.results import ImageResult
from simmat.results.overlay import draw_result
from simmat.results.result import LabelMap
from simmat.specs import FoundationSpec
from simmat.training.validation import MOST_CLICKS
from simmat.types import BoolArray, Frame, Prompt, SensorImage, Window

PICTURES = 6
"""Objects whose predictions are shown: two of the best, the median and the worst each."""
CHECK = 2
"""Images encoded to see whether step 0 is the untuned model: one, by both."""
MOST_PASSES = 97
"""Images that the report of a training encodes at most, pictures and check among them."""
MOST_GROUPS = 16
"""Channels are withheld one by one, or where there are more, in this many groups of neighbours."""
MOST_OBJECTS = 16
"""Objects of an image that are scored with channels withheld; one decoding answers them."""
_PICTURE_PX = 320
"""Longer side of a picture on the page."""
_QUALITY = 88


@dataclass(frozen=True)
class Passes:
    """How many images a report may encode, after scoring.

    Attributes:
        zero_shot: to score the untuned model, where the scores of step 0 are not already its own.
        withheld: to score with channels withheld.
    """

    zero_shot: int
    withheld: int

    @classmethod
    def after_training(cls, trained: int) -> Passes:
        """Return what a training may spend: with `PICTURES` and `CHECK` a twentieth of it, and at most `MOST_PASSES`.

        Args:
            trained: images that the training encodes, those of training steps three times for the backward pass.
        """
        allowed = min(trained // 20, MOST_PASSES) - PICTURES - CHECK
        return cls(max(allowed // 3, 1), max(allowed - allowed // 3, 0))


FULL = Passes(0, 64)
"""What `simmat report` spends after scoring both models."""


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


ClassKey = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
"""The number of a class, as json has keys."""
Scored = Annotated[ObjectScore, of_dataclass(ObjectScore)]
Rank = Literal["best", "median", "worst"]


class Shown(Document):
    """An object whose prediction is shown.

    Attributes:
        rank: among all objects by IoU.
        score: its score.
        pictures: what it shows -> JPEG.
    """

    rank: Rank
    score: Scored
    display: str
    pictures: Annotated[dict[str, Jpeg], _with_keys("sensor", "error")]


class Withheld(Document):
    """Scores without some channels.

    Attributes:
        channels: their names.
        images: images scored.
        objects: objects scored.
        miou: mean IoU over objects without the channels.
        base: of the same objects with all channels.
        interval: 95 % interval of `miou - base`, drawn over images; None of one image.
    """

    channels: Annotated[tuple[str, ...], BeforeValidator(as_tuples)]
    images: int
    objects: int
    miou: float
    base: float
    interval: Annotated[tuple[float, float], BeforeValidator(as_tuples)] | None


class Seen(Document):
    """What the transfer layer shows the foundation model of one image.

    Attributes:
        sample: id of the sample.
        pictures: what it is -> JPEG.
    """

    sample: str
    pictures: Annotated[dict[str, Jpeg], _with_keys("sensor", "zero-shot", "mat")]


class SplitFindings(Document):
    """What a split of a data set holds, see `simmat.data.checks.SplitReport`.

    Attributes:
        empty: number of images without a region.
        first_empty: ids of the first of them.
        sizes_hw: (height, width, number of images), most frequent first.
    """

    name: str
    samples: int
    regions: int
    dropped: int
    area_px: Annotated[tuple[int, int, int], BeforeValidator(as_tuples)] | None
    classes: dict[ClassKey, int]
    ignored: float
    empty: int
    first_empty: Annotated[tuple[str, ...], BeforeValidator(as_tuples)]
    sizes_hw: Annotated[tuple[tuple[int, int, int], ...], BeforeValidator(as_tuples)]
    channels: Annotated[tuple[Annotated[ChannelReport, of_dataclass(ChannelReport)], ...], BeforeValidator(as_tuples)]


class Findings(Document):
    """What was found in a data set, see `simmat.data.checks.DataReport`; long lists are cut.

    Attributes:
        unlabelled: number of images without a mask.
    """

    regions: str
    split_note: str
    splits: Annotated[tuple[SplitFindings, ...], BeforeValidator(as_tuples), Field(min_length=1)]
    errors: Annotated[tuple[str, ...], BeforeValidator(as_tuples)]
    notes: Annotated[tuple[str, ...], BeforeValidator(as_tuples)]
    unlabelled: int


class Examination(Document):
    """What a network does on one split of a data set.

    Attributes:
        data: folder of the data set.
        split: the split.
        images: images of it that were scored.
        available: images that it has.
        protocol: how it was scored.
        scores: of each object, by one click.
        zero_shot: of the untuned foundation model, of the same images or some of them.
        no_zero_shot: why there are none; "" where there are some.
        class_names: class -> name.
        unprompted: blocks "everything" and "semantic", see `Scores.summary`; without a dense head there are none.
        shown: predictions.
        seen: what the transfer layer does; None where it gives no picture.
        withheld: what channels are worth.
        dense: id of a sample -> pictures of what the dense head finds in it.
        findings: None where the data were not looked at.
        example: source -> file of an image, for commands that can be copied.
        example_xy: a click in it.
    """

    data: str
    split: str
    images: int
    available: int
    protocol: str
    scores: Annotated[tuple[Scored, ...], BeforeValidator(as_tuples)]
    zero_shot: Annotated[tuple[Scored, ...], BeforeValidator(as_tuples)] | None = None
    no_zero_shot: str = ""
    class_names: dict[ClassKey, str] = Field(default_factory=dict)
    unprompted: Annotated[dict[str, JsonValue], AfterValidator(_checked_scores)] = Field(default_factory=dict)
    shown: Annotated[tuple[Shown, ...], BeforeValidator(as_tuples)] = ()
    seen: Annotated[tuple[Seen, ...], BeforeValidator(as_tuples)] = ()
    withheld: Annotated[tuple[Withheld, ...], BeforeValidator(as_tuples)] = ()
    dense: Annotated[tuple[tuple[str, dict[str, Jpeg]], ...], BeforeValidator(as_tuples)] = ()
    findings: Findings | None = None
    example: dict[str, str] = Field(default_factory=dict)
    example_xy: Annotated[tuple[float, float], BeforeValidator(as_tuples)] = (0.0, 0.0)


@dataclass(frozen=True)
class Subject:
    """What is examined: a network with its data.

    Attributes:
        model: the network, in eval mode.
        spec: of the network.
        foundation: its foundation model.
        pipeline: image -> network input.
        dataset: the data.
        protocol: how objects were scored.
    """

    model: SimMAT
    spec: ModelSpec
    foundation: FoundationSpec
    pipeline: Pipeline
    dataset: Dataset
    protocol: Protocol


def spread(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """Return at most `count` samples, spread evenly."""
    if count >= len(samples):
        return tuple(samples)
    return tuple(samples[index * len(samples) // count] for index in range(count))


def zero_shot_scores(
    subject: Subject,
    registry: Registry,
    weights: Any,
    samples: Sequence[Sample],
    passes: Passes,
    start: Sequence[ObjectScore],
) -> tuple[ObjectScore, ...]:
    """Return the scores of the untuned model: those of step 0 where that is the untuned model, else of some images.

    Args:
        subject: the network before its first step.
        registry: where the zero-shot map and the frozen tuner are found.
        weights: the foundation model's weight file.
        samples: validation samples.
        passes: how many images may be encoded.
        start: scores of step 0.
    """
    device = next(subject.model.parameters()).device
    model = assemble(*zero_shot_of(subject.spec, registry, weights)).to(device).eval()
    by_id = {sample.id: sample for sample in samples}
    prepared = subject.pipeline(subject.dataset.image(by_id[start[0].sample]))
    x, y = start[0].click_xy
    click = Prompt.points([(max(x, 0.0), max(y, 0.0))])
    one, other = (EncodedImage(each, prepared).decode([click]).logits for each in (subject.model, model))
    if torch.allclose(one, other, rtol=1e-3, atol=1e-3):
        return tuple(start)
    scored = list(dict.fromkeys(score.sample for score in start))
    some = spread([by_id[name] for name in scored], passes.zero_shot)
    return evaluate(model, subject.pipeline, subject.dataset, some, protocol=subject.protocol).objects


def examine(subject: Subject, samples: Sequence[Sample], found: Examination, passes: Passes) -> Examination:
    """Add pictures and what channels are worth to the scores of a network.

    Args:
        subject: the network whose scores they are.
        samples: of the split.
        found: the scores.
        passes: how many images may be encoded, beside `PICTURES`, and with a dense head as many again for images that
            it cuts into windows.
    """
    by_id = {sample.id: sample for sample in samples}
    chosen = _chosen(found.scores)
    shown, seen, dense = _pictures(subject, by_id, chosen)
    first = chosen[0][1]
    sample = by_id[first.sample]
    x0, y0 = (sample.window.x0, sample.window.y0) if sample.window is not None else (0, 0)
    return found.model_copy(
        update={
            "example": {source: str(file) for source, file in sample.files.items()},
            "example_xy": (first.click_xy[0] + x0, first.click_xy[1] + y0),
            "shown": shown,
            "seen": seen,
            "dense": dense,
            "withheld": _withheld(subject, by_id, found.scores, passes.withheld),
        }
    )


def _chosen(scores: Sequence[ObjectScore]) -> list[tuple[Rank, ObjectScore]]:
    """Return two objects each of the best, the median and the worst, of different images as far as possible."""
    ranked = sorted(scores, key=lambda score: -score.iou)
    middle = sorted(range(len(ranked)), key=lambda place: (abs(place - (len(ranked) - 1) / 2), place))
    orders: dict[Rank, list[int]] = {
        "best": list(range(len(ranked))),
        "worst": list(range(len(ranked)))[::-1],
        "median": middle,
    }
    taken: set[int] = set()
    images: set[str] = set()
    found: list[tuple[Rank, ObjectScore]] = []
    for rank, order in orders.items():
        for _ in range(PICTURES // 3):
            free = [place for place in order if place not in taken]
            near = free[: max(len(ranked) // 4, 1)]
            place = next((one for one in near if ranked[one].sample not in images), free[0] if free else None)
            if place is not None:
                taken.add(place)
                images.add(ranked[place].sample)
                found.append((rank, ranked[place]))
    names = ["best", "median", "worst"]
    return sorted(found, key=lambda one: (names.index(one[0]), -one[1].iou))


def _pictures(
    subject: Subject,
    by_id: Mapping[str, Sample],
    chosen: Sequence[tuple[Rank, ObjectScore]],
) -> tuple[tuple[Shown, ...], tuple[Seen, ...], tuple[tuple[str, dict[str, bytes]], ...]]:
    """Encode the image of each chosen object once, and draw what the network makes of it."""
    shown: dict[int, Shown] = {}
    seen: list[Seen] = []
    dense: list[tuple[str, dict[str, bytes]]] = []
    for name in dict.fromkeys(score.sample for _, score in chosen):
        places = [place for place, (_, score) in enumerate(chosen) if score.sample == name]
        image = subject.dataset.image(by_id[name])
        label = subject.dataset.label(by_id[name], image)
        encoded = EncodedImage(subject.model, subject.pipeline(image), subject.spec.dense)
        for place in places:
            shown[place] = _shown(*chosen[place], image, label, encoded)
        if len(seen) < PICTURES // 2 and (one := _seen(subject, name, image, encoded.prepared)) is not None:
            seen.append(one)
        if subject.spec.dense is not None and len(dense) < PICTURES // 2:
            first = label.regions[chosen[places[0]][1].region].box
            dense.append((name, _dense(subject, subject.spec.dense, image, label, encoded, first)))
    return tuple(shown[place] for place in sorted(shown)), tuple(seen), tuple(dense)


def _shown(rank: Rank, score: ObjectScore, image: SensorImage, label: Label, encoded: EncodedImage) -> Shown:
    truth = label.regions[score.region].mask(label.size_hw)
    x, y = (max(value, 0.0) for value in score.click_xy)  # a click may lie left of the first pixel's centre
    logits = encoded.decode([Prompt.points([(x, y)])]).logits[:, :1].float()
    mask: BoolArray = (restore_logits(logits, encoded.prepared.frame)[0, 0] > 0).cpu().numpy()
    window = _around(truth | mask if mask.sum() < 4 * truth.sum() else truth, image.size_hw)
    (height, width), inside = window.size_hw, window.slices
    xy = (min(max(x - window.x0, 0.0), width - 1.0), min(max(y - window.y0, 0.0), height - 1.0))
    click, picture, size_wh = Prompt.points([xy]), display_rgb(image)[inside], _size_wh(window)
    error = draw_comparison(picture, truth[inside], mask[inside], click, ignore=label.ignore[inside], size_wh=size_wh)
    return Shown(
        rank=rank,
        score=score,
        display=describe_display(image.channels),
        pictures={"sensor": _jpeg(draw_overlay(picture, None, click, size_wh=size_wh)), "error": _jpeg(error)},
    )


def _around(mask: BoolArray, size_hw: tuple[int, int]) -> Window:
    """Return a window around a mask, three times as large as it, and at least a third of the image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    longest = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    side = max(3 * longest, max(size_hw) // 3, min(64, *size_hw))
    ends = []
    for places, extent in ((rows, size_hw[0]), (columns, size_hw[1])):
        length = min(side, extent)
        start = min(max((int(places[0]) + int(places[-1]) + 1 - length) // 2, 0), extent - length)
        ends.append((start, start + length))
    (y0, y1), (x0, x1) = ends
    return Window(y0, x0, y1, x1)


def _size_wh(window: Window) -> tuple[int, int]:
    """Return the size of a picture of a window: its longer side is `_PICTURE_PX`."""
    height, width = window.size_hw
    scale = _PICTURE_PX / max(height, width)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _fitted(picture: PictureArray) -> bytes:
    image = Image.fromarray(picture)
    scale = _PICTURE_PX / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return _jpeg(image.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX))


def _seen(subject: Subject, name: str, image: SensorImage, prepared: PreparedImage) -> Seen | None:
    """Draw the three planes that the foundation model gets in place of red, green and blue."""
    model, device = subject.model, next(subject.model.parameters()).device
    if model.output == "features":
        return None
    with torch.inference_mode():
        planes, content = prepared.planes[None].to(device), prepared.content[None].to(device)
        planes_seen = model.mat(planes) if model.output == "image" else model.mat(planes, content)[0]
        fixed = torch.einsum("kc,bchw->bkhw", torch.tensor(subject.spec.zero_shot, device=device), planes)
    height, width = prepared.frame.scaled_hw
    mean, std = (
        np.asarray(numbers, np.float32)[:, None, None]
        for numbers in (subject.foundation.pixel_mean, subject.foundation.pixel_std)
    )
    drawn = {}
    for title, tensor in (("zero-shot", fixed), ("mat", planes_seen)):
        values = (tensor[0, :, :height, :width].float().cpu().numpy() * std + mean).astype(np.float32)
        flat = values.reshape(1, -1)  # (1, 3 * height * width): stretched together, so that the colours stay
        stretched = stretch(flat, np.isfinite(flat)).reshape(values.shape)
        drawn[title] = _fitted(np.rint(stretched * 255).astype(np.uint8).transpose(1, 2, 0))
    return Seen(sample=name, pictures={"sensor": _fitted(display_rgb(image)), **drawn})


def _dense(
    subject: Subject, dense: DenseSpec, image: SensorImage, label: Label, encoded: EncodedImage, box: tuple[int, ...]
) -> dict[str, bytes]:
    """Draw what is found without prompts beside the truth; of an image that is cut into windows one around a box."""
    spec = subject.spec
    side = Predictor(subject.model, subject.pipeline, dense=dense, image_side=spec.image_side).tile_of(image.size_hw)
    if side < max(image.size_hw):
        y0, x0 = (
            min(max((box[axis] + box[axis + 2] - side) // 2, 0), max(image.size_hw[axis] - side, 0)) for axis in (0, 1)
        )
        height, width = (min(side, extent) for extent in image.size_hw)
        window = (y0, x0, y0 + height, x0 + width)
        image, label = cut_image(image, window), cut_label(label, window, keep=0)
        encoded = EncodedImage(subject.model, subject.pipeline(image), dense)
    picture = display_rgb(image)

    def drawn(objects: Sequence[FoundObject] | None = None, classes: LabelMap | None = None) -> bytes:
        result = ImageResult(
            name="",
            file_name="",
            size_hw=image.size_hw,
            georeference=None,
            class_names={value: "" for value in dense.classes if value is not None},  # one colour in all pictures
            objects=None if objects is None else tuple(objects),
            classes=classes,
            nodata=None,
            picture=lambda: picture,
            background=0 if dense.background else None,
        )
        return _fitted(np.asarray(draw_result(result, words=False)))

    # The object of the highest score is in front; of true ones, as in the class map, the smallest.
    true = [FoundObject(region, 1 / region.area, (0.0, 0.0)) for region in label.regions]
    found = {
        "true objects": drawn(true),
        "found objects": drawn(encoded.find_objects(EverythingSettings(most=MOST_CLICKS))),
    }
    if subject.dataset.has_classes and (chances := encoded.class_map()) is not None:
        values = label_values(dense.background, dense.classes)
        found["true classes"] = drawn(classes=class_map(label))
        found["class map"] = drawn(classes=values[chances.argmax(axis=0)])
    return found


def _withheld(
    subject: Subject, by_id: Mapping[str, Sample], scores: Sequence[ObjectScore], passes: int
) -> tuple[Withheld, ...]:
    """Score some images with channels at 0, which is their mean, as if nothing had been measured there."""
    channels = subject.pipeline.channels
    groups = np.array_split(np.arange(len(channels)), min(len(channels), MOST_GROUPS))
    names = list(dict.fromkeys(score.sample for score in scores))
    count = min(passes // max(len(groups), 1), len(names))
    if len(groups) < 2 or count < 1:
        return ()
    known = {(score.sample, score.region): score.iou for score in scores}
    base: list[list[float]] = []
    ious: list[list[list[float]]] = [[] for _ in groups]  # by group, image and object
    protocol = replace(subject.protocol, clicks=1, draws=0, alternatives=False)
    for sample in spread([by_id[name] for name in names], count):
        image = subject.dataset.image(sample)
        label = subject.dataset.label(sample, image)
        pipeline = subject.pipeline
        targets = find_targets(label, Frame(label.size_hw, pipeline.size, pipeline.aspect), protocol)
        targets = replace(targets, found=targets.found[:MOST_OBJECTS])
        base.append([known[sample.id, target.index] for target in targets.found])
        prepared = pipeline(image)
        for group, found in zip(groups, ious, strict=True):
            planes = prepared.planes.clone()
            planes[torch.from_numpy(group)] = 0
            with torch.inference_mode():
                without = ScoredImage(subject.model, prepared._replace(planes=planes), targets, protocol)
                found.append([score.iou for score in score_objects(without, sample.id, protocol)])
    return tuple(
        Withheld(
            channels=tuple(channels[place].name for place in group),
            images=len(base),
            objects=sum(map(len, base)),
            miou=fmean(iou for image in found for iou in image),
            base=fmean(iou for image in base for iou in image),
            interval=mean_interval(
                [[iou - before for iou, before in zip(*pair, strict=True)] for pair in zip(found, base, strict=True)]
            ),
        )
        for group, found in zip(groups, ious, strict=True)
    )
