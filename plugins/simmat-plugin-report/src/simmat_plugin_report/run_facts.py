"""Blocks of a page: what a run was trained on and with, how to use it, and what would raise its scores."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from simmat.bundle.model_card import channel_row, data_rows, network_rows
from simmat.config import TrainConfig
from simmat.data.card import class_title
from simmat.drawing.colour_maps import display_style
from simmat.model_spec import as_json
from simmat.sensors.options import modality_parts
from simmat.types import MAX_SHRUNK, SMALL_SIDE, Channel
from simmat_plugin_report.data_report import SplitReport, texts_of
from simmat_plugin_report.documents import Analysis, RunReport, RunView
from simmat_plugin_report.page import Block, Code, Items, Table, Text
from simmat_plugin_report.run_scores import NONE, counted, duration, miou, most_frequent, setting

_IN_EVERY_RUN = ("modality", "data", "out")
_LISTED = 20
"""Most problems and notes to show."""


def steps_of(run: RunView, report: RunReport) -> str:
    """Return the steps of a run as text; if it is not complete, the finished steps."""
    if run.steps_done >= report.steps:
        return f"{report.steps} steps"
    done = f"{run.steps_done} of {report.steps} steps"
    return f"{done} so far" if run.running else f"stopped after {done}"


def data_blocks(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield what the data set holds, and its problems."""
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


def use_blocks(run: RunView) -> Iterator[Block]:
    """Yield commands and Python code that use the bundle."""
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
        lines += ["for one in model.segment_everything():", "    print(one.score, one.instance.box_xyxy)"]
    yield Code("\n".join(lines))


def setting_blocks(run: RunView) -> Iterator[Block]:
    """Yield the settings, the network, its channels and the data card."""
    yield _settings_table(run)
    report = run.report
    rows = [("trained", f"step {run.step} was kept")]
    if report is not None:
        rows = [
            (
                "trained",
                f"{steps_of(run, report)} on {counted(report.train_images, 'image')}, step {run.step} was kept",
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
    look = display_style(channel)
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
    defaults |= run.report.recipe if run.report is not None else {}
    rows = [
        (name, setting(value), "" if name in _IN_EVERY_RUN else setting(defaults[name]))
        for name, value in run.config.model_dump(mode="json").items()
        if name in _IN_EVERY_RUN or value != defaults[name]
    ]
    return Table(("setting", "value", "default"), rows, 3)


_FEW_IMAGES, _FEW_OBJECTS = 20, 10
"""A class with fewer is rare; so is one with less than a quarter of the mean over classes."""
_MAX_CLASSES = 8
_MANY_MISSED = 0.25


def advice(run: RunView, found: Analysis) -> Iterator[str]:
    """Yield what to change, what helps most first."""
    yield from _steps(run, found)
    yield from _labels(run, found)
    recipe, config = run.report.recipe if run.report is not None else {}, run.config.model_dump(mode="json")
    other = [
        f"{name} is {setting(config[name])}, by default {setting(recipe[name])}"
        for name in recipe
        if config[name] not in (None, recipe[name])
    ]
    if other:
        yield (
            f"This run changed what suits {run.spec.foundation}: {'; '.join(other)}. Train once with the "
            "defaults, then compare: simmat report RUN1 RUN2."
        )
    side, size = run.spec.image_side or 0, run.spec.image_size
    areas = [split.area_px[0] for split in (found.data_report.splits if found.data_report else ()) if split.area_px]
    if side > MAX_SHRUNK * size and (not areas or min(areas) < (SMALL_SIDE * side / size) ** 2):
        yield (
            f"Images of {side} pixels are shrunk to {size}, which loses small objects: train with --crop {size}, or "
            "with a larger --image-size."
        )


def _steps(run: RunView, found: Analysis) -> Iterator[str]:
    steps = run.report.steps if run.report is not None else run.steps_done
    validated = [int(record["step"]) for record in run.records if record.get("kind") == "val" and record["step"]]
    longer = f"--steps {2 * steps}"
    if run.running or not validated:
        return
    if run.step == 0:
        yield f"No later step was better than step 0: use another rate (--lr), or train longer ({longer})."
    elif run.step == validated[-1]:
        yield f"The last validation was the best, so more steps may help: train longer ({longer})."
    objects = sum(one["objects"] for one in found.mistakes.values())
    missed = sum(one["missed"] for one in found.mistakes.values())
    if objects and missed / objects >= _MANY_MISSED:
        yield (
            f"Without clicks, {missed} of {counted(objects, 'object')} are missed. This takes more steps and images "
            f"than masks of clicks: train longer ({longer}), and label more images completely."
        )


def _labels(run: RunView, found: Analysis) -> Iterator[str]:
    if run.report is not None and run.report.train_images < _FEW_IMAGES:
        yield (
            f"The training had {counted(run.report.train_images, 'image')}: label more. simmat annotate DIR shows "
            "those first that the model is least sure of."
        )
    splits = found.data_report.splits if found.data_report is not None else ()
    classes = next((split.classes for split in splits if split.name == "train"), {})
    ious: dict[int, list[float]] = {value: [] for value in classes}
    for score in found.scores:
        if score.class_id is not None and splits:
            ious.setdefault(score.class_id, []).append(score.iou)
    enough = max(_FEW_OBJECTS, sum(classes.values()) / max(len(ious), 1) / 4)
    few = {value: classes.get(value, 0) for value in ious if classes.get(value, 0) < enough}
    poor = [value for value in few if not ious[value] or fmean(ious[value]) < miou(found.scores)]
    if poor:
        said = [
            f"class {class_title(value, found.class_names)} ({counted(few[value], 'object')}"
            + (f", mean IoU {fmean(ious[value]):.3f})" if ious[value] else ")")
            for value in sorted(poor, key=lambda value: few[value])[:_MAX_CLASSES]
        ]
        yield f"Label more of what is rare in the training images: {', '.join(said)}."
