"""The page of one run."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from simmat.calibration import calibrated
from simmat.config import TrainConfig
from simmat.data.card import class_title
from simmat.drawing.overlay import POSITIVE, WHITE, Colour, class_colour
from simmat.evaluation import ObjectScore
from simmat.model_spec import as_json
from simmat.sensors.options import modality_parts
from simmat.types import MAX_DOWNSCALE, SMALL_SIDE
from simmat_plugin_report.checks import texts_of
from simmat_plugin_report.documents import (
    Analysis,
    ExamplePrediction,
    RunReport,
    RunView,
)
from simmat_plugin_report.page import Block, Code, Figure, FigureGrid, Table
from simmat_plugin_report.pictures import FALSE_ALARM, HIT, MISS
from simmat_plugin_report.scores import (
    MAX_CLASSES,
    NONE,
    class_counts,
    common,
    confidence_blocks,
    curves,
    difference,
    duration,
    groups_of,
    metric_texts,
    miou,
    plural,
    scored_images,
    setting,
    shown,
    signed,
    unprompted_metrics,
)

CONFIDENCE = "Confidence"
"""Heading of the section that is folded."""
MAX_IMAGES = 200
"""Images in a table, the worst ones."""
_MAX_FINDINGS = 20
"""Most problems of the data to show."""
_WRONG_IOU = 0.75
"""IoU below which the mask of a click is called wrong."""
_IN_EVERY_RUN = ("modality", "data", "out")
_FEW_IMAGES, _FEW_OBJECTS = 20, 10
"""A class with fewer is rare; so is one with less than a quarter of the mean over classes."""
_MANY_MISSED = 0.25
_MISTAKES = {
    "objects": "",
    "missed": "missed",
    "extra": "extra",
    "wrong_class": "of a wrong class",
}
"""Keys of the mistakes in an image, and what each is called."""


def summary_of(run: RunView) -> str:
    """Return the sentences below the title."""
    spec, report, found = run.spec, run.report, run.analysis
    said = f"{spec.mat} and {spec.tune} on {spec.foundation}, step {run.step}"
    if report is not None:
        said += (
            f" of {report.steps}"
            if run.steps_done >= report.steps
            else f", {_steps_of(run, report)}"
        )
        said += f", trained on {plural(report.train_images, 'image')} in {duration(report.seconds)}"
    if found is not None:
        said += f". With one click per object, its mean IoU is {miou(found.scores):.3f} on {scored_images(found)}"
        if found.zero_shot and len(found.zero_shot) == len(found.scores):
            said += f"; the untuned model's is {miou(found.zero_shot):.3f}"
    if run.step == 0 and run.steps_done:
        validated = any(
            record.get("kind") == "val" and record["step"] > 0 for record in run.records
        )
        said += f". Step 0 was kept: no later step was {'better' if validated else 'scored'} on validation"
    return f"{said}. {spec.card.notes}".strip()


def run_sections(run: RunView) -> Iterator[tuple[str, list[Block]]]:
    """Yield heading and blocks of each section of the page of one run: pictures, scores, what would help, the rest."""
    found = run.analysis
    if found is not None:
        yield "Predictions", list(_predictions(run, found))
        yield "Training labels", list(_training_labels(run, found))
        yield "Masks without clicks", list(_without_clicks(run, found))
        chosen = run.is_own(found) and run.config.keep != "last"
        yield "Scores", list(_scores(found, chosen=chosen))
        said = list(advice(run, found))
        yield "What would help", [said] if said else []
        yield "Images, worst first", list(worst_images(found))
    yield "Training", [curves({"": run})]
    if found is not None:
        yield "By size and class", list(_groups(found))
        yield CONFIDENCE, list(confidence_blocks(run, found))
        yield "Transfer layer", list(_transfer_layer(run, found))
        yield "Channel importance", list(_channel_importance(run, found))
        yield "The data", list(_data(run, found))
    yield "Use it", list(_usage(run))
    yield "What was run", list(settings_blocks(run))


def _scores(found: Analysis, *, chosen: bool) -> Iterator[Block]:
    """Yield the mean scores, with those of the untuned model beside them."""
    zero = found.zero_shot or ()
    objects = common(found.scores, zero) if zero else found.scores
    tuned, untuned = metric_texts(objects), metric_texts(zero)
    head = ("one click per object", *(["zero-shot"] if zero else []), "tuned")
    rows = [
        (title, *([untuned[title]] if zero else []), value)
        for title, value in tuned.items()
        if {value, untuned.get(title, NONE)} != {NONE}
    ]
    yield Table(
        head,
        rows,
        1,
        {(0, len(head) - 1)} if not zero or miou(objects) >= miou(zero) else {(0, 1)},
    )
    said = f"{plural(len(objects), 'object')} in {scored_images(found)}."
    if len(objects) != len(found.scores):
        said = (
            f"{plural(len(objects), 'object')} that the untuned model was scored on; on all {len(found.scores):,} "
            f"in {scored_images(found)} the tuned one has {miou(found.scores):.3f}."
        )
    if zero:
        said += f" Tuned minus zero-shot, object by object: {signed(difference(objects, zero))} (95 % interval)."
    if found.no_zero_shot:
        said += f" There is no zero-shot score: {found.no_zero_shot}."
    yield said + " Intervals: whole images are drawn with replacement."
    if found.seen:
        yield found.seen
    elif chosen:
        yield (
            "These images also chose the step, so the score is a little optimistic. For a score on a split that "
            "was not used: simmat report RUN --data DIR."
        )
    if without_clicks := unprompted_metrics(found.unprompted):
        yield Table(("without clicks", "tuned"), list(without_clicks.items()), 1)


def advice(run: RunView, found: Analysis) -> Iterator[str]:
    """Yield what to change, what helps most first."""
    yield from _advice_on_steps(run, found)
    if _is_taught(run):
        return
    yield from _advice_on_labels(run, found)
    config = run.config.model_dump(mode="json")
    recipe: Mapping[str, Any] = {}
    # with --init, layer and tuner are those of the bundle that it begins with
    if run.report is not None and run.config.init is None:
        recipe = run.report.recipe
    other = [
        f"{name} is {setting(config[name])}, by default {setting(recipe[name])}"
        for name in recipe
        if config[name] not in (None, recipe[name])
    ]
    if other:
        yield (
            f"This run changed defaults of {run.spec.foundation}: {'; '.join(other)}. Train once with the "
            "defaults, then compare: simmat report RUN1 RUN2."
        )
    side, size = run.spec.image_side or 0, run.spec.image_size
    areas = [
        split.area_px[0]
        for split in (found.data_report.splits if found.data_report else ())
        if split.area_px
    ]
    if side > MAX_DOWNSCALE * size and (
        not areas or min(areas) < (SMALL_SIDE * side / size) ** 2
    ):
        yield (
            f"Images of {side} pixels are scaled down to {size}, which loses small objects: train with --crop "
            f"{size}, or "
            "with a larger --image-size."
        )


def _advice_on_steps(run: RunView, found: Analysis) -> Iterator[str]:
    steps = run.report.steps if run.report is not None else run.steps_done
    validated = [
        int(record["step"])
        for record in run.records
        if record.get("kind") == "val" and record["step"]
    ]
    longer = f"--steps {2 * steps}"
    if run.running or not validated:
        return
    if run.step == 0:
        advice = f"No later step was better than step 0: use another rate (--lr), or train longer ({longer})"
        if run.config.init is not None:
            advice += ", or take the last state if a difference over so few objects may be chance (--keep last)"
        yield f"{advice}."
    elif run.step == validated[-1] and run.config.keep != "last":
        yield f"The last validation was the best, so more steps may help: train longer ({longer})."
    objects, missed = (
        sum(one.get(key, 0) for one in found.mistakes.values())
        for key in ("objects", "missed")
    )
    if objects and missed / objects >= _MANY_MISSED:
        yield (
            f"Without clicks, {missed} of {plural(objects, 'object')} are missed. Finding objects takes more "
            f"steps and images than masks of clicks: train longer ({longer}), and label more images completely."
        )


def _advice_on_labels(run: RunView, found: Analysis) -> Iterator[str]:
    if run.report is not None and run.report.train_images < _FEW_IMAGES:
        yield f"The training had {plural(run.report.train_images, 'image')}: label more, with simmat annotate DIR."
    classes = _train_classes(found)
    ious = {
        value: [score.iou for score in found.scores if score.class_id == value]
        for value in classes
    }
    enough = max(_FEW_OBJECTS, sum(classes.values()) / max(len(classes), 1) / 4)
    poor = [
        value
        for value, count in sorted(classes.items(), key=lambda item: item[1])
        if count < enough
        and (not ious[value] or fmean(ious[value]) < miou(found.scores))
    ]
    if poor:
        said = [
            f"class {class_title(one, found.class_names)} ({plural(classes[one], 'object')})"
            for one in poor
        ]
        yield f"Label more images with what is rare in training: {', '.join(said[:8])}."


def worst_images(found: Analysis) -> Iterator[Block]:
    """Yield a table of all images, worst first, with what is wrong in each."""
    scores: dict[str, list[ObjectScore]] = {}
    for score in found.scores:
        scores.setdefault(score.sample, []).append(score)
    names = sorted(
        {**scores, **found.mistakes},
        key=lambda name: _quality(scores.get(name), found.mistakes.get(name)),
    )
    without = ("without clicks",) if found.mistakes else ()
    rows = [
        (
            name,
            _after_click(scores.get(name, ())),
            *((_mistakes_text(found.mistakes.get(name)),) if without else ()),
            str(len(scores.get(name, ()))),
            f"{miou(scores[name]):.3f}" if name in scores else NONE,
        )
        for name in names[:MAX_IMAGES]
    ]
    yield Table(
        ("image", "after one click", *without, "objects", "mean IoU"),
        rows,
        2 + len(without),
        tall=True,
    )
    said = (
        f"The worst {MAX_IMAGES} of {len(names):,} images. "
        if len(names) > MAX_IMAGES
        else ""
    )
    said += f"A mask with an IoU below {_WRONG_IOU:g} is too large or too small if its area is a quarter off or more"
    yield said + (
        "; without clicks an object counts as found from an IoU of 0.5 on."
        if without
        else "."
    )


def _quality(
    scores: Sequence[ObjectScore] | None, mistakes: Mapping[str, int] | None
) -> float:
    """Return the mean of the mean IoU and of the F1 with classes of an image, as far as it has them; else 1."""
    found = [miou(scores)] if scores else []
    objects, missed, extra, wrong_class = (
        (mistakes or {}).get(key, 0) for key in _MISTAKES
    )
    if objects or extra:
        hits = objects - missed
        found.append(2 * (hits - wrong_class) / max(2 * hits + missed + extra, 1))
    return fmean(found) if found else 1.0


def _after_click(scores: Sequence[ObjectScore]) -> str:
    """Return how many masks are wrong, and how: "2 too large, 1 too small"; "" if none is."""
    counts: Counter[str] = Counter()
    for score in scores:
        ratio = 1.0 if score.area_ratio is None else score.area_ratio
        if score.iou < _WRONG_IOU:
            counts[
                "too large"
                if ratio >= 1.25
                else "too small"
                if ratio <= 0.75
                else "inexact"
            ] += 1
    return ", ".join(
        f"{count} {what}" if len(scores) > 1 else what
        for what, count in counts.most_common()
    )


def _mistakes_text(mistakes: Mapping[str, int] | None) -> str:
    """Return what is wrong with the objects found without clicks: "1 missed, 2 extra"; "" if nothing is."""
    if mistakes is None:
        return NONE
    return ", ".join(
        f"{mistakes[key]} {what}"
        for key, what in _MISTAKES.items()
        if what and mistakes.get(key)
    )


def _places(examples: Sequence[ExamplePrediction]) -> list[str]:
    """Return what each of the pictures, best first, is: "best", "second best", …; no two are called the same."""
    ranks = [one.rank for one in examples]
    places: list[str] = list(ranks)
    for position in range(1, len(ranks)):
        if ranks[position] != ranks[position - 1]:
            continue
        if ranks[position] == "worst":
            places[position - 1] = "second worst"
        elif ranks[position] == "best":
            places[position] = "second best"
        else:
            places[position] = "below the median"
    return places


def _predictions(run: RunView, found: Analysis) -> Iterator[Block]:
    if not found.examples:
        yield "Pictures are drawn when the training ends; simmat report RUN draws them now, for the best bundle so far."
        return
    drawn: list[Figure] = []
    before = {
        (one.sample, one.region): f"untuned: IoU {one.iou:.3f}"
        for one in found.zero_shot or ()
    }
    best_first = zip(_places(found.examples), found.examples, strict=True)
    for place, one in reversed(list(best_first)):
        score = one.score
        kind = (
            ""
            if score.class_id is None
            else f", class {class_title(score.class_id, found.class_names)}"
        )
        own = calibrated(run.spec.calibration, "click", score.predicted_iou)
        words = (
            f"{place}: IoU {score.iou:.3f}, predicted {own:.3f}. {score.sample}{kind}"
        )
        drawn.append(Figure(one.sensor, f"{words}: sensor image with the click", words))
        if one.untuned is not None:
            drawn.append(
                Figure(
                    one.untuned,
                    f"{words}: untuned",
                    before.get((score.sample, score.region), "untuned"),
                )
            )
        drawn.append(
            Figure(
                one.error,
                f"{words}: truth and error",
                f"{score.area} px; shown: {one.display}",
            )
        )
    legend = {
        HIT: "hit",
        MISS: "missed",
        FALSE_ALARM: "false alarm",
        WHITE: "outline of the truth",
        POSITIVE: "click",
    }
    yield FigureGrid(drawn, list(legend.items()), len(drawn) // len(found.examples))


def _training_labels(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield pictures of the labels that the model was trained on; none if its training drew none."""
    of_run = found if found.training_labels else run.trained
    if of_run is None or not of_run.training_labels:
        return
    if _is_taught(run):
        yield "Some of the training images, with the outlines of the teacher's masks."
    else:
        yield (
            "Some of the training images, with the outlines of their labels. The model learns these outlines: correct "
            "a label if its outline does not follow the object."
        )
    drawn = [
        Figure(picture, f"{name}: {words}", f"{name}: {words}")
        for name, pictures in of_run.training_labels
        for words, picture in pictures.items()
    ]
    yield FigureGrid(drawn, _class_legend(_train_classes(of_run), of_run.class_names))


def _is_taught(run: RunView) -> bool:
    """Return whether the run has no labels, but the answers of a teacher."""
    return run.config.data.is_relative_to(run.config.out)


def _train_classes(found: Analysis) -> Mapping[int, int]:
    """Return class -> number of objects in the training split; {} if the objects have no classes."""
    splits = found.data_report.splits if found.data_report is not None else ()
    return next((split.classes for split in splits if split.name == "train"), {})


def _class_legend(
    classes: Iterable[int], names: Mapping[int, str]
) -> list[tuple[Colour, str]]:
    """Return the colour and the title of each class, of the first `MAX_CLASSES`."""
    return [
        (class_colour(one), f"class {class_title(one, names)}")
        for one in list(classes)[:MAX_CLASSES]
    ]


def _groups(found: Analysis) -> Iterator[Block]:
    """Yield the scores by size and class."""
    zero = found.zero_shot or ()
    objects = common(found.scores, zero) if zero else found.scores
    tables: dict[str, list[tuple[str, ...]]] = {}
    for what, name, (own, base) in groups_of([objects, zero], found.class_names):
        if own:
            untuned = (f"{miou(base):.3f}",) if zero else ()
            change = (signed(difference(own, base), "\n"),) if zero else ()
            tables.setdefault(what, []).append(
                (name, str(len(own)), *untuned, f"{miou(own):.3f}", *change)
            )
    middle = ("zero-shot", "tuned", "difference") if zero else ("tuned",)
    for what, rows in tables.items():
        yield Table((what, "objects", *middle), rows, 1)
    if (count := len(class_counts([objects]))) > MAX_CLASSES:
        yield f"The {MAX_CLASSES} most frequent of {count} classes."


def _without_clicks(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield pictures of what is found without clicks, and the IoU of each class of the class map."""
    if not found.dense:
        return
    drawn = []
    for sample, pictures in found.dense:
        wrong = _mistakes_text(found.mistakes.get(sample))
        for name, picture in pictures.items():
            words = f"{name}: {sample}" + (
                f"; {wrong} in the image" if name == "found objects" and wrong else ""
            )
            drawn.append(Figure(picture, words, words))
    classes = [
        value
        for value in (run.spec.dense.classes if run.spec.dense else ())
        if value is not None
    ]
    yield FigureGrid(drawn, _class_legend(classes, found.class_names))
    if found.class_iou:
        titles = {0: "background", **found.class_names}
        rows = [
            (class_title(one, titles), shown(iou))
            for one, iou in list(found.class_iou.items())[:MAX_CLASSES]
        ]
        yield Table(("class map", "IoU"), rows, 1)


def _transfer_layer(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield the planes that the transfer layer makes of an image."""
    if not found.views:
        if found.examples:
            yield f"{run.spec.mat} gives features instead of the first layer's, not a picture."
        return
    yield (
        f"{run.spec.mat} turns the sensor's {plural(len(run.spec.channels), 'channel')} into three planes, "
        "which the foundation model treats as red, green and blue. They need not look natural to be useful. "
        "Each picture is "
        "stretched from the 2nd to the 98th percentile of its three planes together."
    )
    pictures = [
        (sample, title, picture)
        for sample, views in found.views
        for title, picture in views.items()
    ]
    yield FigureGrid(
        [
            Figure(picture, f"{title}: {name}", f"{title} ({name})")
            for name, title, picture in pictures
        ],
        (),
        3,
    )


def _channel_importance(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield how the score falls without each channel."""
    if not found.ablations:
        if found.examples and len(run.spec.channels) > 1:
            yield "Not computed, because the training was short; simmat report RUN computes it."
        return
    rows = []
    for one in found.ablations:
        names = " to ".join(dict.fromkeys((one.channels[0], one.channels[-1])))
        rows.append(
            (names, f"{one.miou:.3f}", signed((one.miou - one.base, one.interval)))
        )
    yield Table(("without", "mIoU", "change"), rows, 1)
    first = found.ablations[0]
    yield (
        f"With all channels, {plural(first.objects, 'object')} in {plural(first.images, 'image')} have a mean IoU "
        f"of {first.base:.3f}. A channel is withheld by setting it to its mean, without training again. "
        "Redundant channels can replace each other, so each of them may look unimportant."
    )


def _data(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield the problems of the data set; `simmat data check` shows its content."""
    report = found.data_report
    noted = texts_of(report.findings)[:_MAX_FINDINGS] if report is not None else []
    noted += run.report.notes if run.report is not None and run.is_own(found) else ()
    if noted:
        yield list(dict.fromkeys(noted))
    elif report is not None:
        yield "Nothing was found wrong with the files."
    yield Code(
        f"simmat data check {shlex.quote(found.data)} --modality {shlex.quote(run.spec.modality)}"
    )


def _usage(run: RunView) -> Iterator[Block]:
    """Yield commands and Python code that use the bundle."""
    found, quoted = run.analysis, shlex.quote(str(run.bundle))
    files = found.example if found is not None else {}
    x, y = (
        (round(v) for v in found.example_xy)
        if found is not None and files
        else (320, 240)
    )
    file: Any = next(iter(files.values()), "IMAGE")
    image = shlex.quote(file)
    if len(files) > 1 or len(modality_parts(run.spec.modality)) > 1:
        image = (
            " ".join(f"--source {shlex.quote(f'{n}={f}')}" for n, f in files.items())
            or "--source NAME=FILE …"
        )
        file = dict(files) or file
    every = run.spec.dense is not None
    yield Code(
        f"simmat bundle show {quoted}\n"
        f"simmat predict {quoted} {image} --point {x},{y} --out masks\n"
        + (
            f"simmat predict {quoted} FOLDER --everything --out masks\n"
            if every
            else ""
        )
        + f"simmat eval {quoted} --data {shlex.quote(str(run.config.data))}\n"
        f"simmat bundle push {quoted} my-model.safetensors"
    )
    yield Code(
        "import simmat\n\n"
        f"model = simmat.load({str(run.bundle)!r})\n"
        f"model.set_image({file!r})\n"
        f"found = model.predict([({x}, {y})])  # x, y of a click on the object, in pixels of the image\n"
        "print(found.score)  # predicted IoU\n"
        "print(found.mask.shape, found.mask.sum())  # (height, width) of bool, pixels of the object"
        + (
            "\nfor one in model.segment_everything():\n    print(one.score, one.instance.box_xyxy)"
            if every
            else ""
        )
    )


def settings_blocks(run: RunView) -> Iterator[Block]:
    """Yield the settings that differ from their defaults, and what the run took."""
    defaults = as_json(
        {name: field.default for name, field in TrainConfig.model_fields.items()}
    )
    report = run.report
    if report is not None:
        defaults |= report.recipe
    rows = [
        (name, setting(value), "" if name in _IN_EVERY_RUN else setting(defaults[name]))
        for name, value in run.config.model_dump(mode="json").items()
        if name in _IN_EVERY_RUN or value != defaults[name]
    ]
    yield Table(("setting", "value", "default"), rows, 3)
    if report is not None:
        steps = f"{_steps_of(run, report)} on {plural(report.train_images, 'image')}, step {run.step} was kept"
        share = 100 * report.trainable / max(report.total, 1)
        facts = {
            "trained": steps,
            "time": duration(report.seconds),
            "parameters": f"{report.trainable:,} of {report.total:,} trained ({share:.2f} %)",
            **report.machine,
        }
        yield Table(("", "what it ran on"), list(facts.items()), 2)


def _steps_of(run: RunView, report: RunReport) -> str:
    """Return the steps of a run as text; if it is not complete, the finished steps."""
    if run.steps_done >= report.steps:
        return f"{report.steps} steps"
    done = f"{run.steps_done} of {report.steps} steps"
    return f"{done} so far" if run.running else f"stopped after {done}"
