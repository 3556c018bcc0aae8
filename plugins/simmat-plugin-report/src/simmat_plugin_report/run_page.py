"""The page of one run: settings, scores and pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from simmat.bundle.model_card import channel_row, data_rows, network_rows
from simmat.config import TrainConfig
from simmat.data.card import class_title
from simmat.model_spec import as_json
from simmat.report.colour_maps import look_of
from simmat.report.overlay import POSITIVE, WHITE
from simmat.sensors.options import modality_parts
from simmat.types import Channel
from simmat_plugin_report.blocks import both, calibration, counted, curves, duration, place_of, setting
from simmat_plugin_report.comparison import FALSE_ALARM, HIT, MISS
from simmat_plugin_report.data_report import SplitReport, texts_of
from simmat_plugin_report.documents import Analysis, ChannelAblation, RunReport
from simmat_plugin_report.object_scores import (
    MOST_CLASSES,
    NONE,
    class_counts,
    common,
    difference,
    figures,
    groups_of,
    miou,
    most_frequent,
    shown,
    signed,
    unprompted_figures,
)
from simmat_plugin_report.page import Block, Code, Figure, Grid, Items, Section, Table, Text
from simmat_plugin_report.plots import channels_figure
from simmat_plugin_report.run_view import RunView

_LEGEND = (
    (HIT, "hit"),
    (MISS, "missed"),
    (FALSE_ALARM, "false alarm"),
    (WHITE, "outline of the truth"),
    (POSITIVE, "click"),
)
_IN_EVERY_RUN = ("modality", "data", "out")
_SAME_IOU = 0.01
"""Largest difference of IoU of any object for two models that count as the same."""
_LISTED = 20
"""Most problems and notes to show."""


def summary_of(run: RunView) -> str:
    """Return the sentence below the title."""
    said, report = f"{run.made_of}, step {run.step}", run.report
    if report is not None:
        said += f" of {report.steps}" if run.steps_done >= report.steps else f", {_steps(run, report)}"
        said += f", trained on {counted(report.train_images, 'image')} in {duration(report.seconds)}"
    if run.analyses:
        found = run.analyses[0]
        zero = found.zero_shot or ()
        said += f". With one click per object, its mean IoU is {miou(found.scores):.3f} on {place_of(found)}"
        if zero and len(common(found.scores, zero)) == len(found.scores):
            said += f"; that of the untuned model is {miou(zero):.3f}"
    return f"{said}. {_step_0(run)}".rstrip()


def _step_0(run: RunView) -> str:
    """Return the explanation if step 0 was kept; "" if a later step was, or there was none yet."""
    if run.step != 0 or not run.steps_done:
        return ""
    validated = any(record.get("kind") == "val" and record["step"] > 0 for record in run.records)
    why = "no later step was better on validation" if validated else "no later step was scored on validation"
    model = "like the untuned model" if _is_untuned(run) else "as before training"
    return f"Step 0 was kept: {why}, so this bundle answers prompts {model}."


def _is_untuned(run: RunView) -> bool:
    """Return whether the bundle is known to have the scores of the untuned model for every object."""
    found = run.analyses[0] if run.analyses else None
    if found is None or not found.zero_shot:
        return False
    untuned = {(score.sample, score.region): score.iou for score in found.zero_shot}
    same = common(found.scores, found.zero_shot)
    return all(abs(score.iou - untuned[score.sample, score.region]) < _SAME_IOU for score in same)


def _steps(run: RunView, report: RunReport) -> str:
    """Return the steps of a run as text; if it is not complete, the finished steps."""
    if run.steps_done >= report.steps:
        return f"{report.steps} steps"
    done = f"{run.steps_done} of {report.steps} steps"
    return f"{done} so far" if run.running else f"stopped after {done}"


def run_sections(run: RunView) -> Iterator[Section]:
    """Yield the sections of the page of one run."""
    several = len(run.analyses) > 1
    for place, found in enumerate(run.analyses):
        where = f": {Path(found.data).name}, {found.split}" if several else ""
        yield Section(f"Scores{where}", list(_scores(found, chosen=place == 0 and run.is_own(found))))
        if place == 0:
            yield Section("Training", [curves({"": run})])
        yield Section(f"Predictions{where}", list(_predictions(found)))
        yield Section(f"By size and class{where}", list(_groups(found)))
        yield Section(f"Calibration of the predicted IoU{where}", list(calibration({"tuned": found.scores})))
        yield Section(f"Masks without clicks{where}", list(_dense(found)))
        yield Section(f"What the transfer layer shows the foundation model{where}", list(_views(run, found)))
        yield Section(f"Channel importance{where}", list(_importance(run, found)))
        yield Section(f"The data{where}", list(_data(run, found)))
    if not run.analyses:
        yield Section("Training", [curves({"": run})])
    yield Section("Use it", list(_use(run)))
    yield Section("What was run", list(_what(run)))


# Scores


def _scores(found: Analysis, *, chosen: bool) -> Iterator[Block]:
    zero = found.zero_shot or ()
    objects = common(found.scores, zero) if zero else found.scores
    tuned, untuned = figures(objects), figures(zero)
    head = ("one click per object", *(["zero-shot"] if zero else []), "tuned")
    rows = [
        (title, *([untuned[title]] if zero else []), value)
        for title, value in tuned.items()
        if {value, untuned.get(title, NONE)} != {NONE}
    ]
    yield Table(head, rows, 1, {(0, len(head) - 1)} if not zero or miou(objects) >= miou(zero) else {(0, 1)})
    if len(objects) == len(found.scores):
        said = f"{counted(len(objects), 'object')} in {place_of(found)}."
    else:
        images = counted(len({score.sample for score in objects}), "image")
        said = f"{counted(len(objects), 'object')} in {images}, on which the untuned model was scored; on all "
        said += (
            f"{counted(len(found.scores), 'object')} in {place_of(found)} the tuned one has {miou(found.scores):.3f}."
        )
    if zero:
        said += f" Tuned minus zero-shot, object by object: {signed(difference(objects, zero))} (95 % interval)."
    if found.no_zero_shot:
        said += f" There is no zero-shot score: {found.no_zero_shot}."
    yield Text(said + " Intervals: whole images are drawn with replacement.", faint=True)
    if chosen:
        yield Text(
            "These images also chose the step, so the score is a little optimistic. A split that was not used says "
            "more: simmat report RUN --data DIR.",
            faint=True,
        )
    yield from _scores_without_clicks(found)


def _scores_without_clicks(found: Analysis) -> Iterator[Block]:
    tuned = {title: value for title, _, value in unprompted_figures(found.unprompted)}
    if not tuned:
        return
    if not found.zero_shot_unprompted:
        yield Table(("without clicks", "tuned"), list(tuned.items()), 1)
        if "everything" in found.unprompted and found.zero_shot:
            yield Text("simmat report RUN --data DIR finds every object by the untuned model, too.", faint=True)
        return
    untuned = {title: value for title, _, value in unprompted_figures(found.zero_shot_unprompted)}
    rows = [(title, untuned.get(title, NONE), value) for title, value in tuned.items()]
    yield Table(("without clicks", "zero-shot", "tuned"), rows, 1)
    said = "The untuned model has no dense head: its objects are found by a grid of clicks, and it knows no classes."
    yield Text(said, faint=True)


def _groups(found: Analysis) -> Iterator[Block]:
    zero = found.zero_shot or ()
    objects = common(found.scores, zero) if zero else found.scores
    tables: dict[str, list[tuple[str, ...]]] = {}
    for what, name, (own, base) in groups_of([objects, zero], found.class_names):
        if own:
            both_of = [f"{miou(base):.3f}"] if zero else []
            change = [signed(difference(own, base)).replace(" [", "\n[")] if zero else []
            tables.setdefault(what, []).append((name, str(len(own)), *both_of, f"{miou(own):.3f}", *change))
    middle = ("zero-shot", "tuned", "difference") if zero else ("tuned",)
    for what, rows in tables.items():
        yield Table((what, "objects", *middle), rows, 1)
    counts = class_counts([objects])
    if len(counts) > (shown_count := len(most_frequent(counts))):
        yield Text(f"The {shown_count} most frequent of {len(counts)} classes.", faint=True)


# Pictures and plots


def _predictions(found: Analysis) -> Iterator[Block]:
    if not found.examples:
        yield Text(
            "Pictures are drawn when the training ends; simmat report RUN draws those of the best bundle so far.",
            faint=True,
        )
        return
    figures = []
    for one in found.examples:
        score = one.score
        kind = f", class {class_title(score.class_id, found.class_names)}" if score.class_id is not None else ""
        words = f"{one.rank}: IoU {score.iou:.3f}, predicted {score.predicted_iou:.3f}. {score.sample}{kind}"
        figures.append(Figure(one.pictures["sensor"], f"{words}: sensor image with the click", f"{words}"))
        figures.append(
            Figure(one.pictures["error"], f"{words}: truth and error", f"{score.area} px; shown: {one.display}")
        )
    yield Grid(figures, _LEGEND, columns=2)


def _dense(found: Analysis) -> Iterator[Block]:
    if not found.dense:
        return
    figures = [
        Figure(picture, f"{name}: {sample}", f"{name}: {sample}")
        for sample, pictures in found.dense
        for name, picture in pictures.items()
    ]
    yield Grid(figures, columns=2)
    block = found.unprompted.get("semantic")
    by_class = block.get("iou_by_class") if isinstance(block, dict) else None
    if isinstance(by_class, dict) and by_class:
        titles = {0: "background", **found.class_names}
        rows = [(class_title(int(key), titles), shown(value)) for key, value in list(by_class.items())[:MOST_CLASSES]]
        yield Table(("class map", "IoU"), rows, 1)


def _views(run: RunView, found: Analysis) -> Iterator[Block]:
    if found.examples and not found.views:
        yield Text(f"{run.spec.mat} gives features in place of the first layer, not a picture.", faint=True)
    if not found.views:
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
        for one in found.views
        for name, picture in one.pictures.items()
    ]
    yield Text(
        f"{run.spec.mat} turns the sensor's {counted(len(run.spec.channels), 'channel')} into three planes, which the "
        "foundation model takes for red, green and blue. They need not look natural to be useful. Each picture is "
        "stretched from the 2nd to the 98th percentile of its three planes together."
    )
    yield Grid(figures, columns=3)


def _importance(run: RunView, found: Analysis) -> Iterator[Block]:
    if not found.ablations:
        if found.examples and len(run.spec.channels) > 1:
            yield Text(
                "Not computed at the end of so short a training; simmat report RUN scores with channels withheld.",
                faint=True,
            )
        return
    changes = [(_channels(one), one.miou - one.base, one.interval) for one in found.ablations]
    yield both(
        lambda dark: channels_figure(changes, dark=dark),
        "Change of mIoU without each channel",
        "Bars to the left: the score falls without the channel. Lines are 95 % intervals.",
    )
    first = found.ablations[0]
    yield Text(
        f"With all channels, {counted(first.objects, 'object')} in {counted(first.images, 'image')} have a mean IoU "
        f"of {first.base:.3f}. A channel is withheld by setting it to its mean, as where nothing was measured, without "
        "training again: channels that say the same can stand in for each other.",
        faint=True,
    )
    rows = [(_channels(one), f"{one.miou:.3f}", signed((one.miou - one.base, one.interval))) for one in found.ablations]
    yield Table(("without", "mIoU", "change"), rows, 1)


def _channels(one: ChannelAblation) -> str:
    return one.channels[0] if len(one.channels) == 1 else f"{one.channels[0]} to {one.channels[-1]}"


# Data, use, settings


def _data(run: RunView, found: Analysis) -> Iterator[Block]:
    report, notes = found.data_report, run.report.notes if run.report is not None and run.is_own(found) else ()
    if report is None:
        if notes:
            yield Items(notes)
        return
    rows = [
        {
            "split": split.name,
            "images": str(split.samples),
            "without objects": str(len(split.without_region)),
            "objects": str(split.regions),
            "too small": str(split.dropped),
            "px: smallest / median / largest": NONE if split.area_px is None else "{} / {} / {}".format(*split.area_px),
            "not scored": f"{split.ignored:.1%}",
            "image sizes": ", ".join(f"{width}x{height}" for height, width, _ in split.sizes_hw[:2])
            + (", …" if len(split.sizes_hw) > 2 else ""),
        }
        for split in report.splits
    ]
    yield Table(list(rows[0]), [list(row.values()) for row in rows], 1)
    noted = texts_of([one for one in report.findings if one.severity == "error"])[:_LISTED]
    noted += texts_of([one for one in report.findings if one.severity != "error"])[:_LISTED]
    noted += notes
    if report.unlabelled:
        noted.append(f"{len(report.unlabelled)} images have no mask and are not used.")
    for split in report.splits:
        if empty := split.without_region:
            some = ", ".join(empty[:5])
            noted.append(f"{split.name}: {len(empty)} of {split.samples} images have no object: {some}")
    yield Items(list(dict.fromkeys(noted))) if noted else Text("Nothing was found wrong with the files.", faint=True)
    if (table := _class_counts(report.splits, found.class_names)) is not None:
        yield table
    train = report.splits[0]
    yield Table(
        (f"channel ({train.name})", "unit", "lowest", "mean", "highest", "without measurement"),
        [
            (
                c.name,
                c.look.unit,
                *(NONE if value is None else c.look.text(value, 5) for value in (c.low, c.mean, c.high)),
                f"{c.invalid:.1%}",
            )
            for c in train.channels
        ],
        2,
    )


def _class_counts(splits: Sequence[SplitReport], names: Mapping[int, str]) -> Table | None:
    totals: dict[int, int] = {}
    for split in splits:
        for value, count in split.classes.items():
            totals[value] = totals.get(value, 0) + count
    if len(totals) < 2:
        return None
    rows = [
        (
            class_title(value, names),
            *(str(split.classes.get(value, 0)) for split in splits),
            f"{totals[value] / sum(totals.values()):.1%}",
        )
        for value in sorted(most_frequent(totals))
    ]
    return Table(("objects by class", *(split.name for split in splits), "share"), rows, 1)


def _use(run: RunView) -> Iterator[Block]:
    bundle, sources = str(run.bundle), run.spec.modality
    found = run.analyses[0] if run.analyses else None
    files = found.example if found is not None else {}
    x, y = (round(v) for v in found.example_xy) if found is not None and files else (320, 240)
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
    report = run.report
    rows = [("trained", f"step {run.step} was kept")]
    if report is not None:
        rows = [
            (
                "trained",
                f"{_steps(run, report)} on {counted(report.train_images, 'image')}, step {run.step} was kept",
            ),
            ("time", duration(report.seconds)),
            (
                "parameters",
                f"{report.trainable:,} of {report.total:,} trained "
                f"({100 * report.trainable / max(report.total, 1):.2f} %)",
            ),
            *report.machine.items(),
        ]
    yield Table(("", "what it ran on"), rows, 2)
    yield Table(("", "network"), network_rows(run.spec), 2)
    head = ("channel", "quantity", "unit", "µm", "valid range", "mean", "std")
    yield Table(head, [channel_row(_as_shown(channel)) for channel in run.spec.channels], 3)
    yield Table(("", "data card"), [("folder", str(run.config.data)), *data_rows(run.spec.card)], 2)


def _as_shown(channel: Channel) -> Channel:
    """Return a channel with its numbers in the unit of pictures, such as °C for kelvin."""
    look = look_of(channel)
    mean, std = channel.mean, channel.std
    return replace(
        channel,
        unit=look.unit,
        valid_range=channel.valid_range and (look.shown(channel.valid_range[0]), look.shown(channel.valid_range[1])),
        mean=None if mean is None else look.shown(mean),
        std=None if std is None else look.factor * std,
    )


def _settings_table(run: RunView) -> Table:
    defaults = as_json({name: field.default for name, field in TrainConfig.model_fields.items()})
    rows = [
        (name, setting(value), "" if name in _IN_EVERY_RUN else setting(defaults[name]))
        for name, value in run.config.model_dump(mode="json").items()
        if name in _IN_EVERY_RUN or value != defaults[name]
    ]
    return Table(("setting", "value", "default"), rows, 3)
