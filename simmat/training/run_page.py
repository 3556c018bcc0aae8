"""The page of a run, or of several side by side: what was run, how good it is, and what it sees."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Plot

from simmat.bundle import BundleSpec
from simmat.bundle.model_card import channel_row, data_rows, network_rows
from simmat.config import TrainConfig
from simmat.data.card import class_title
from simmat.evaluation import SIZES, ObjectScore, Scores
from simmat.evaluation.scores import mean_interval
from simmat.report.curves import curves_figure, figure_bytes
from simmat.report.overlay import FALSE_ALARM, HIT, MISS, POSITIVE, WHITE
from simmat.report.page import Block, Code, Figure, Grid, Items, Section, Table, Text, write_sections
from simmat.report.plots import calibration_figure, channels_figure
from simmat.sensors.options import modality_parts
from simmat.training.examine import Examination, SplitFindings, Withheld

NONE = "–"
_LEGEND = (
    (HIT, "hit"),
    (MISS, "missed"),
    (FALSE_ALARM, "false alarm"),
    (WHITE, "outline of the truth"),
    (POSITIVE, "click"),
)
_CALIBRATION = "Calibration of the predicted IoU"
_MOST_CLASSES = 40
"""Classes in a table, the most frequent ones."""
_IN_EVERY_RUN = ("modality", "data", "out")

Objects = Sequence[ObjectScore]


@dataclass(frozen=True)
class RunView:
    """What the page of a run shows.

    Attributes:
        name: of the run's folder.
        bundle: folder of its bundle.
        config: its settings.
        spec: of its bundle.
        records: its log.
        facts: steps, seconds, trainable, total and train_images, as far as known.
        machine: what it ran on: title -> text.
        notes: what training said of the data and the settings.
        trained: what training found on the validation split.
        examinations: what is shown, one for each data set.
    """

    name: str
    bundle: Path
    config: TrainConfig
    spec: BundleSpec
    records: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    trained: Examination | None = None
    examinations: Sequence[Examination] = ()

    @property
    def made_of(self) -> str:
        """Transfer layer, tuner and foundation model, in words."""
        return f"{self.spec.mat} and {self.spec.tune} on {self.spec.foundation}"

    @property
    def step(self) -> Any:
        """The step whose bundle was kept."""
        return self.spec.metrics.get("step", "?")


def write_page(out: Path, runs: Sequence[RunView]) -> Path:
    """Write the page of one run, or one that compares several.

    Raises:
        DataError: a picture in a report is damaged.
        OutputError: the page cannot be written.
    """
    if len(runs) == 1:
        return write_sections(
            out, f"{runs[0].name}: {runs[0].spec.modality}", _summary(runs[0]), list(_of_run(runs[0]))
        )
    named = dict(zip(_names(runs), runs, strict=True))
    summary = f"{len(runs)} runs. Differences are those to the first one, {next(iter(named))}."
    return write_sections(out, f"{len(runs)} runs side by side", summary, list(_of_several(named)))


def _summary(run: RunView) -> str:
    said = f"{run.made_of}, step {run.step}"
    if run.facts:
        said += f" of {run.facts['steps']}, trained on {_count(run.facts['train_images'], 'image')}"
        said += f" in {_duration(run.facts['seconds'])}"
    if run.examinations:
        found = run.examinations[0]
        common, zero = _common(found)
        miou = _miou(found.scores)
        said += f". With one click an object, its mean IoU is {miou:.3f} on {_place(found)}"
        if zero and len(common) == len(found.scores):
            said += f"; that of the untuned model is {_miou(zero):.3f}"
    return said + "."


def _of_run(run: RunView) -> Iterator[Section]:
    """Yield the sections of the page of one run."""
    several = len(run.examinations) > 1
    for place, found in enumerate(run.examinations):
        where = f": {Path(found.data).name}, {found.split}" if several else ""
        yield Section(f"Scores{where}", list(_scores(found, chosen=place == 0 and _is_own(run, found))))
        if place == 0:
            yield Section("Training", [_curves({"": run})])
        yield Section(f"Predictions{where}", list(_predictions(found)))
        yield Section(f"By size and class{where}", list(_groups(found)))
        yield Section(
            f"Does it know how good it is? Calibration of the predicted IoU{where}",
            list(_calibration({"tuned": found.scores})),
        )
        yield Section(f"Masks without clicks{where}", list(_dense(found)))
        yield Section(f"What the transfer layer shows the foundation model{where}", list(_seen(run, found)))
        yield Section(f"What each channel is worth{where}", list(_worth(run, found)))
        yield Section(f"The data{where}", list(_data(run, found)))
    if not run.examinations:
        yield Section("Training", [_curves({"": run})])
    yield Section("Use it", list(_use(run)))
    yield Section("What was run", list(_what(run)))


def _is_own(run: RunView, found: Examination) -> bool:
    return found.split == "val" and found.data == str(run.config.data)


# Scores


def _common(found: Examination) -> tuple[Objects, Objects]:
    """Return the scores of the tuned and of the untuned model of the objects that both have."""
    if found.zero_shot is None:
        return found.scores, ()
    known = {(score.sample, score.region) for score in found.zero_shot}
    return [score for score in found.scores if (score.sample, score.region) in known], found.zero_shot


def _miou(objects: Objects) -> float:
    return math.fsum(score.iou for score in objects) / max(len(objects), 1)


def _difference(objects: Objects, base: Objects) -> tuple[float, tuple[float, float] | None] | None:
    """Return the mean difference of IoU of the objects that both have, and its 95 % interval over images."""
    before = {(score.sample, score.region): score.iou for score in base}
    images: dict[str, list[float]] = {}
    for score in objects:
        if (score.sample, score.region) in before:
            images.setdefault(score.sample, []).append(score.iou - before[score.sample, score.region])
    if not images:
        return None
    values = [value for image in images.values() for value in image]
    return math.fsum(values) / len(values), mean_interval(images.values())


def _signed(change: tuple[float, tuple[float, float] | None] | None) -> str:
    if change is None:
        return NONE
    interval = "" if change[1] is None else " [{:+.3f}, {:+.3f}]".format(*change[1])
    return f"{change[0]:+.3f}{interval}"


def _figures(objects: Objects) -> dict[str, Any]:
    """Return title -> figure of some objects."""
    if not objects:
        return {}
    summary = Scores(tuple(objects)).summary()
    found = {
        "mean IoU over objects": summary["miou_object"],
        "95 % interval": summary["miou_object_interval"],
        "mean over images": summary["miou_image"],
        "mean over classes": summary["miou_class"],
        "boundary IoU": summary["boundary_iou"],
        "best alternative, by predicted IoU": summary["miou_best_predicted"],
        "best alternative, by true IoU": summary["miou_oracle"],
    }
    for least in (0.5, 0.75, 0.9):
        found[f"objects with IoU {least:g} or more"] = f"{np.mean([score.iou >= least for score in objects]):.0%}"
    return found


def _shown(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, str):
        return value
    return "{:.3f} to {:.3f}".format(*value) if isinstance(value, tuple) else f"{value:.3f}"


def _scores(found: Examination, *, chosen: bool) -> Iterator[Block]:
    common, zero = _common(found)
    tuned, untuned = _figures(common), _figures(zero)
    head = ("one click an object", *(["zero-shot"] if zero else []), "tuned")
    rows = [
        (title, *([_shown(untuned[title])] if zero else []), _shown(value))
        for title, value in tuned.items()
        if value is not None or untuned.get(title) is not None
    ]
    yield Table(head, rows, 1, {(0, len(head) - 1)} if not zero or _miou(common) >= _miou(zero) else {(0, 1)})
    if len(common) == len(found.scores):
        said = f"{_count(len(common), 'object')} in {_place(found)}."
    else:
        images = _count(len({score.sample for score in common}), "image")
        said = f"{_count(len(common), 'object')} in {images}, on which the untuned model was scored; on all "
        said += f"{_count(len(found.scores), 'object')} in {_place(found)} the tuned one has {_miou(found.scores):.3f}."
    if zero:
        said += f" Tuned minus zero-shot, object by object: {_signed(_difference(common, zero))} (95 % interval)."
    if found.no_zero_shot:
        said += f" There is no zero-shot score: {found.no_zero_shot}."
    yield Text(said + " Intervals: whole images are drawn with replacement.", faint=True)
    if chosen:
        yield Text(
            "These images also chose the step, so the score is a little too good. A split that was not used says more: "
            "simmat report RUN --data DIR.",
            faint=True,
        )
    if table := _unprompted(found):
        yield table


_UNPROMPTED = (
    ("everything", "ap", "every object: AP, IoU 0.5 to 0.95"),
    ("everything", "ap50", "every object: AP50"),
    ("everything", "pq", "every object: PQ"),
    ("everything", "f1", "every object: F1 at IoU 0.5"),
    ("semantic", "miou", "class map: mIoU"),
    ("semantic", "pixel_accuracy", "class map: pixel accuracy"),
)


def _unprompted(found: Examination) -> Table | None:
    rows = [
        (title, _shown(block[key]))
        for name, key, title in _UNPROMPTED
        if isinstance(block := found.unprompted.get(name), dict) and isinstance(block.get(key), float)
    ]
    return Table(("without clicks", "tuned"), rows, 1) if rows else None


def _place(found: Examination) -> str:
    """Return which images were scored: "40 images of the val split of set"."""
    some = "" if found.images == found.available else f" of {found.available}, spread evenly,"
    return f"{_count(found.images, 'image')}{some} of the {found.split} split of {Path(found.data).name}"


def _groups(found: Examination) -> Iterator[Block]:
    common, zero = _common(found)
    sizes: dict[str, Callable[[ObjectScore], bool]] = {}
    for name, (low, high) in SIZES.items():
        limit = f"from {math.isqrt(low)}² px" if high == math.inf else f"below {math.isqrt(int(high))}² px"
        sizes[f"{name} ({limit})"] = lambda score, low=low, high=high: low <= score.area < high  # type: ignore[misc]
    yield _group_table("size", sizes, common, zero)
    names = {int(value): name for value, name in found.class_names.items()}
    counts: dict[int, int] = {}
    for score in common:
        if score.class_id is not None:
            counts[score.class_id] = counts.get(score.class_id, 0) + 1
    most = sorted(sorted(counts, key=lambda value: -counts[value])[:_MOST_CLASSES])
    if len(counts) > 1:
        classes: dict[str, Callable[[ObjectScore], bool]] = {
            class_title(value, names): lambda score, value=value: score.class_id == value  # type: ignore[misc]
            for value in most
        }
        yield _group_table("class", classes, common, zero)
    if len(counts) > len(most):
        yield Text(f"The {len(most)} most frequent of {len(counts)} classes.", faint=True)


def _group_table(
    what: str, groups: Mapping[str, Callable[[ObjectScore], bool]], common: Objects, zero: Objects
) -> Table:
    rows = []
    for name, belongs in groups.items():
        objects, base = [score for score in common if belongs(score)], [score for score in zero if belongs(score)]
        if objects:
            both = [f"{_miou(base):.3f}"] if zero else []
            change = [_signed(_difference(objects, base)).replace(" [", "\n[")] if zero else []
            rows.append((name, str(len(objects)), *both, f"{_miou(objects):.3f}", *change))
    middle = ("zero-shot", "tuned", "difference") if zero else ("tuned",)
    return Table((what, "objects", *middle), rows, 1)


# Pictures and plots


def _both(draw: Callable[[bool], Plot], alt: str, caption: str = "") -> Figure:
    """Return a plot for a light page and for a dark one."""
    light, dark = (figure_bytes(draw(dark), "png") for dark in (False, True))
    return Figure(light, alt, caption, dark)


def _curves(runs: Mapping[str, RunView]) -> Figure:
    zero = [
        _miou(found.zero_shot)
        for run in runs.values()
        for found in (run.trained, *run.examinations)
        if found and found.zero_shot and _is_own(run, found) and len(_common(found)[0]) == len(found.scores)
    ]
    logs = {name: run.records for name, run in runs.items()}
    return _both(
        lambda dark: curves_figure(logs, zero_shot=zero, dark=dark), "Training loss and validation mIoU by step"
    )


def _predictions(found: Examination) -> Iterator[Block]:
    if not found.shown:
        yield Text(
            "Pictures are drawn when the training ends; simmat report RUN draws those of the best bundle so far.",
            faint=True,
        )
        return
    figures = []
    names = {int(value): name for value, name in found.class_names.items()}
    for one in found.shown:
        score = one.score
        kind = f", class {class_title(score.class_id, names)}" if score.class_id is not None else ""
        words = f"{one.rank}: IoU {score.iou:.3f}, predicted {score.predicted_iou:.3f}. {score.sample}{kind}"
        figures.append(Figure(one.pictures["sensor"], f"{words}: sensor image with the click", f"{words}"))
        figures.append(
            Figure(one.pictures["error"], f"{words}: truth and error", f"{score.area} px; shown: {one.display}")
        )
    yield Grid(figures, _LEGEND, columns=2)


def _calibration(models: Mapping[str, Objects]) -> Iterator[Block]:
    points = {
        name: (np.asarray([s.predicted_iou for s in scores]), np.asarray([s.iou for s in scores]))
        for name, scores in models.items()
        if scores
    }
    if not points:
        return
    yield _both(
        lambda dark: calibration_figure(points, dark=dark),
        "True IoU by predicted IoU, in ten bins",
        "A model that knows how good its masks are lies on the dashed line; above it, masks are better than it says. "
        "Larger dots are more objects.",
    )
    for name, (predicted, true) in points.items():
        bias = float(np.mean(predicted - true))
        way = "too high" if bias > 0 else "too low"
        start = f"{name}: the" if len(points) > 1 else "The"
        yield Text(f"{start} predicted IoU is {abs(bias):.3f} {way} on average.", faint=True)


def _dense(found: Examination) -> Iterator[Block]:
    if not found.dense:
        return
    figures = [
        Figure(picture, f"{name}: {sample}", f"{name}: {sample}")
        for sample, pictures in found.dense
        for name, picture in pictures.items()
    ]
    yield Grid(figures, columns=2)
    names = {int(value): name for value, name in found.class_names.items()}
    block = found.unprompted.get("semantic")
    by_class = block.get("iou_by_class") if isinstance(block, dict) else None
    if isinstance(by_class, dict) and by_class:
        titles = {0: "background", **names}
        rows = [(class_title(int(key), titles), _shown(value)) for key, value in list(by_class.items())[:_MOST_CLASSES]]
        yield Table(("class map", "IoU"), rows, 1)


def _seen(run: RunView, found: Examination) -> Iterator[Block]:
    if found.shown and not found.seen:
        yield Text(f"{run.spec.mat} gives features in place of the first layer, not a picture.", faint=True)
    if not found.seen:
        return
    titles = {
        "sensor": "the sensor image, as shown to people",
        "zero-shot": "what the untuned model would get",
        "mat": "what the tuned model gets",
    }
    figures = [
        Figure(
            picture, f"{titles[name]}: {one.sample}", titles[name] + (f" ({one.sample})" if name == "sensor" else "")
        )
        for one in found.seen
        for name, picture in one.pictures.items()
    ]
    yield Text(
        f"{run.spec.mat} turns the sensor's {_count(len(run.spec.channels), 'channel')} into three planes, which the "
        "foundation model takes for red, green and blue. They need not look natural to be useful. Each picture is "
        "stretched from the 2nd to the 98th percentile of its three planes together."
    )
    yield Grid(figures, columns=3)


def _worth(run: RunView, found: Examination) -> Iterator[Block]:
    if not found.withheld:
        if found.shown and len(run.spec.channels) > 1:
            yield Text(
                "Not computed at the end of so short a training; simmat report RUN scores with channels withheld.",
                faint=True,
            )
        return
    worth = [(_channels(one), one.miou - one.base, one.interval) for one in found.withheld]
    yield _both(
        lambda dark: channels_figure(worth, dark=dark),
        "Change of mIoU without each channel",
        "Bars to the left: the score falls without the channel. Lines are 95 % intervals.",
    )
    first = found.withheld[0]
    yield Text(
        f"With all channels, {_count(first.objects, 'object')} in {_count(first.images, 'image')} have a mean IoU "
        f"of {first.base:.3f}. A channel is withheld by setting it to its mean, as where nothing was measured, without "
        "training again: channels that say the same can stand in for each other.",
        faint=True,
    )
    rows = [(_channels(one), f"{one.miou:.3f}", _signed((one.miou - one.base, one.interval))) for one in found.withheld]
    yield Table(("without", "mIoU", "change"), rows, 1)


def _channels(one: Withheld) -> str:
    return one.channels[0] if len(one.channels) == 1 else f"{one.channels[0]} to {one.channels[-1]}"


# Data, use, settings


def _data(run: RunView, found: Examination) -> Iterator[Block]:
    data = found.findings
    if data is None:
        if run.notes and _is_own(run, found):
            yield Items(run.notes)
        return
    rows = []
    for split in data.splits:
        area = NONE if split.area_px is None else "{} / {} / {}".format(*split.area_px)
        sizes = ", ".join(f"{width}x{height}" for height, width, _ in split.sizes_hw[:2])
        more = ", …" if len(split.sizes_hw) > 2 else ""
        rows.append(
            (
                split.name,
                str(split.samples),
                str(split.empty),
                str(split.regions),
                str(split.dropped),
                area,
                f"{split.ignored:.1%}",
                sizes + more,
            )
        )
    yield Table(
        (
            "split",
            "images",
            "without objects",
            "objects",
            "too small",
            "px: smallest / median / largest",
            "not scored",
            "image sizes",
        ),
        rows,
        1,
    )
    noted = [*data.errors, *data.notes]
    noted += list(run.notes) if _is_own(run, found) else []
    if data.unlabelled:
        noted.append(f"{data.unlabelled} images have no mask and are not used.")
    for split in data.splits:
        if split.empty:
            some = ", ".join(split.first_empty[:5])
            noted.append(f"{split.name}: {split.empty} of {split.samples} images have no object: {some}")
    names = {int(value): name for value, name in found.class_names.items()}
    table = _class_counts(data.splits, names)
    yield Items(list(dict.fromkeys(noted))) if noted else Text("Nothing was found wrong with the files.", faint=True)
    if table is not None:
        yield table
    train = data.splits[0]
    yield Table(
        (f"channel ({train.name})", "unit", "lowest", "mean", "highest", "without measurement"),
        [
            (c.name, c.unit, *(_number(value) for value in (c.low, c.mean, c.high)), f"{c.invalid:.1%}")
            for c in train.channels
        ],
        2,
    )


def _class_counts(splits: Sequence[SplitFindings], names: Mapping[int, str]) -> Table | None:
    totals: dict[str, int] = {}
    for split in splits:
        for value, count in split.classes.items():
            totals[value] = totals.get(value, 0) + count
    if len(totals) < 2:
        return None
    kept = sorted(sorted(totals, key=lambda value: -totals[value])[:_MOST_CLASSES], key=int)
    every = sum(totals.values())
    rows = [
        (
            class_title(int(value), names),
            *(str(split.classes.get(value, 0)) for split in splits),
            f"{totals[value] / every:.1%}",
        )
        for value in kept
    ]
    return Table(("objects by class", *(split.name for split in splits), "share"), rows, 1)


def _use(run: RunView) -> Iterator[Block]:
    bundle, sources = str(run.bundle), run.spec.modality
    found = run.examinations[0] if run.examinations else None
    x, y = (320, 240) if found is None or not found.scores else (round(v) for v in found.example_xy)
    files = found.example if found is not None else {}
    several = len(files) > 1 or len(modality_parts(sources)) > 1
    file = next(iter(files.values()), "IMAGE")
    image = [f"--source {shlex.quote(f'{n}={f}')}" for n, f in files.items()] if several else [shlex.quote(file)]
    image = image or ["--source NAME=FILE …"]
    quoted = shlex.quote(bundle)
    commands = [f"simmat predict {quoted} {' '.join(image)} --point {x},{y} --out masks"]
    if run.spec.dense is not None:
        commands.append(f"simmat predict {quoted} FOLDER --everything --out masks")
    commands.append(f"simmat eval {quoted} --data {shlex.quote(str(run.config.data))}")
    commands.append(f"simmat bundle push {quoted} my-model.zip")
    yield Code("\n".join(commands))
    given = repr(dict(files)) if several and files else repr(file)
    lines = [
        "import simmat",
        "",
        f"model = simmat.load({bundle!r})",
        f"model.set_image({given})",
        f"found = model.predict([({x}, {y})])  # x, y of a click on the object, in pixels of the image",
        "print(found.score)  # predicted IoU",
        "print(found.mask.shape, found.mask.sum())  # (height, width) of bool, pixels of the object",
    ]
    if run.spec.dense is not None:
        lines += ["for one in model.segment_everything():", "    print(one.score, one.instance.box)  # y0, x0, y1, x1"]
    yield Code("\n".join(lines))


def _what(run: RunView) -> Iterator[Block]:
    yield _settings_table(run)
    facts = run.facts
    rows = [("trained", f"step {run.step} was kept")]
    if facts:
        rows = [
            (
                "trained",
                f"{facts['steps']} steps on {_count(facts['train_images'], 'image')}, step {run.step} was kept",
            ),
            ("time", _duration(facts["seconds"])),
            (
                "parameters",
                f"{facts['trainable']:,} of {facts['total']:,} trained "
                f"({100 * facts['trainable'] / max(facts['total'], 1):.2f} %)",
            ),
        ]
    yield Table(("", "what it ran on"), [*rows, *run.machine.items()], 2)
    yield Table(("", "network"), network_rows(run.spec), 2)
    head = ("channel", "quantity", "unit", "µm", "valid range", "mean", "std")
    yield Table(head, [channel_row(channel) for channel in run.spec.channels], 3)
    yield Table(("", "data card"), [("folder", str(run.config.data)), *data_rows(run.spec.card)], 2)


def _settings_table(run: RunView) -> Table:
    defaults = {name: field.default for name, field in TrainConfig.model_fields.items()}
    rows = [
        (name, _setting(value), "" if name in _IN_EVERY_RUN else _setting(defaults[name]))
        for name, value in run.config.model_dump(mode="json").items()
        if name in _IN_EVERY_RUN or value != _as_json(defaults[name])
    ]
    return Table(("setting", "value", "default"), rows, 3)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _setting(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_setting(item)}" for key, item in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# Several runs


def _names(runs: Sequence[RunView]) -> list[str]:
    """Return a name for each run: of its folder, with as many folders above it as tell the runs apart."""
    paths = [run.bundle.absolute().parent for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = [str(Path(*path.parts[-depth:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({place})" for place, path in enumerate(paths, start=1)]


def _of_several(runs: Mapping[str, RunView]) -> Iterator[Section]:
    places = dict.fromkeys((found.data, found.split) for run in runs.values() for found in run.examinations)
    for data, split in places:
        found = {
            name: one
            for name, run in runs.items()
            for one in run.examinations
            if (one.data, one.split) == (data, split)
        }
        where = f": {Path(data).name}, {split}"
        yield Section(f"Scores{where}", list(_compared(found)))
    yield Section("Training", [_curves(runs)])
    yield Section("Settings that differ", [_setting_differences(runs)])
    for data, split in places:
        scores = {
            name: one.scores
            for name, run in runs.items()
            for one in run.examinations
            if (one.data, one.split) == (data, split)
        }
        where = f": {Path(data).name}, {split}"
        yield Section(f"By size and class{where}", list(_compared_groups(runs, data, split)))
        yield Section(f"Do they know how good they are? {_CALIBRATION}{where}", list(_calibration(scores)))
    yield Section("Where they are", [Table(("run", "bundle"), [(n, str(r.bundle)) for n, r in runs.items()], 2)])


def _compared(found: Mapping[str, Examination]) -> Iterator[Block]:
    first = next(iter(found.values()))
    rows, best = [], max(_miou(one.scores) for one in found.values())
    marked = set()
    zero = next((_common(one) for one in found.values() if one.zero_shot), ((), ()))[1]
    if zero:
        rows.append(_compared_row("zero-shot", zero, {}, first, is_first=False))
    for name, one in found.items():
        if _miou(one.scores) == best:
            marked.add((len(rows), 2))
        rows.append(_compared_row(name, one.scores, one.unprompted, first, is_first=one is first))
    dense = any(one.unprompted for one in found.values())
    head = ("run", "objects", "mIoU", "difference", "95 % interval", "boundary", "IoU 0.75+")
    more = ("AP", "AP50", "PQ", "class mIoU") if dense else ()
    yield Table((*head, *more), [row[: len(head) + len(more)] for row in rows], 1, marked)
    said = f"One click an object, {_place(first)}. "
    same = len({tuple((s.sample, s.region) for s in one.scores) for one in found.values()}) == 1
    if not same:
        said += "Not all runs were scored on the same objects; differences are of those that both have. "
    yield Text(said + "Differences are object by object, with 95 % intervals over images.", faint=True)


def _compared_row(
    name: str, scores: Objects, unprompted: Mapping[str, Any], first: Examination, *, is_first: bool
) -> tuple[str, ...]:
    figures = _figures(scores)
    blocks = {key: value for key in ("everything", "semantic") if isinstance(value := unprompted.get(key), dict)}
    dense = [
        blocks.get(block, {}).get(key)
        for block, key in (("everything", "ap"), ("everything", "ap50"), ("everything", "pq"), ("semantic", "miou"))
    ]
    return (
        name,
        str(len(scores)),
        _shown(figures["mean IoU over objects"]),
        NONE if is_first else _signed(_difference(scores, first.scores)).replace(" [", "\n["),
        _shown(figures["95 % interval"]),
        _shown(figures["boundary IoU"]),
        figures["objects with IoU 0.75 or more"],
        *(_shown(value) for value in dense),
    )


def _compared_groups(runs: Mapping[str, RunView], data: str, split: str) -> Iterator[Block]:
    found = {
        name: one for name, run in runs.items() for one in run.examinations if (one.data, one.split) == (data, split)
    }
    names = {int(key): name for one in found.values() for key, name in one.class_names.items()}
    groups: list[tuple[str, Callable[[ObjectScore], bool]]] = []
    for size, (low, high) in SIZES.items():
        groups.append((size, lambda score, low=low, high=high: low <= score.area < high))  # type: ignore[misc]
    counts: dict[int, int] = {}
    for one in found.values():
        for score in one.scores:
            if score.class_id is not None:
                counts[score.class_id] = counts.get(score.class_id, 0) + 1
    for value in sorted(sorted(counts, key=lambda key: -counts[key])[:_MOST_CLASSES]) if len(counts) > 1 else ():
        title = f"class {class_title(value, names)}"
        groups.append((title, lambda score, value=value: score.class_id == value))  # type: ignore[misc]
    rows = []
    for title, belongs in groups:
        parts = [[score for score in one.scores if belongs(score)] for one in found.values()]
        if any(parts):
            rows.append((title, *(f"{_miou(part):.3f} ({len(part)})" if part else NONE for part in parts)))
    yield Table(("mIoU (objects)", *found), rows, 1)


def _setting_differences(runs: Mapping[str, RunView]) -> Table:
    dumps = [run.config.model_dump(mode="json") for run in runs.values()]
    rows = [
        (name, *(_setting(dump[name]) for dump in dumps))
        for name in TrainConfig.model_fields
        if name != "out" and any(dump[name] != dumps[0][name] for dump in dumps)
    ]
    rows.append(("step that was kept", *(str(run.step) for run in runs.values())))
    for title, key in (("training images", "train_images"), ("trained parameters", "trainable")):
        rows.append((title, *(f"{run.facts[key]:,}" if run.facts else NONE for run in runs.values())))
    rows.append(("time", *(_duration(run.facts["seconds"]) if run.facts else NONE for run in runs.values())))
    titles = dict.fromkeys(title for run in runs.values() for title in run.machine)
    for title in titles:
        texts = [run.machine.get(title, NONE) for run in runs.values()]
        if len(set(texts)) > 1:
            rows.append((title, *texts))
    return Table(("", *runs), rows, len(runs) + 1)


# Words


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.5g}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
