"""The pages of one run, and of several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from simmat.config import TrainConfig
from simmat_plugin_report.documents import Analysis, RunView
from simmat_plugin_report.page import Block, Items, Section, Table, Text, write_sections
from simmat_plugin_report.run_facts import advice, data_blocks, setting_blocks, steps_of, use_blocks
from simmat_plugin_report.run_pictures import dense_blocks, importance_blocks, prediction_blocks, transfer_blocks
from simmat_plugin_report.run_scores import (
    NONE,
    UNPROMPTED,
    Objects,
    calibration,
    common,
    counted,
    curves,
    difference,
    duration,
    figures,
    group_blocks,
    groups_of,
    image_blocks,
    miou,
    place_of,
    score_blocks,
    setting,
    signed,
    unprompted_figures,
)


def write_page(out: Path, runs: Sequence[RunView]) -> Path:
    """Write the page of one run, or one that compares several.

    Raises:
        DataError: a picture in a report is damaged.
        OutputError: the page cannot be written.
    """
    if len(runs) == 1:
        (run,) = runs
        return write_sections(out, f"{run.name}: {run.spec.modality}", summary_of(run), list(run_sections(run)))
    named = dict(zip(names_of(runs), runs, strict=True))
    summary = f"{len(runs)} runs. Differences are those to the first one, {next(iter(named))}."
    return write_sections(out, f"{len(runs)} runs side by side", summary, list(compare_sections(named)))


_SAME_IOU = 0.01
"""Largest difference of IoU of any object for two models that count as the same."""


def summary_of(run: RunView) -> str:
    """Return the sentence below the title."""
    said, report = f"{run.made_of}, step {run.step}", run.report
    if report is not None:
        said += f" of {report.steps}" if run.steps_done >= report.steps else f", {steps_of(run, report)}"
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


def run_sections(run: RunView) -> Iterator[Section]:
    """Yield the sections of the page of one run."""
    several = len(run.analyses) > 1
    for place, found in enumerate(run.analyses):
        where = f": {Path(found.data).name}, {found.split}" if several else ""
        yield Section(f"Scores{where}", list(score_blocks(found, chosen=place == 0 and run.is_own(found))))
        if place == 0:
            said = list(advice(run, found))
            yield Section("What would help", [Items(said)] if said else [])
            yield Section("Training", [curves({"": run})])
        yield Section(f"Images, worst first{where}", list(image_blocks(found)))
        yield Section(f"Predictions{where}", list(prediction_blocks(found)))
        yield Section(f"By size and class{where}", list(group_blocks(found)))
        yield Section(f"Calibration{where}", list(calibration({"tuned": found.scores})))
        yield Section(f"Masks without clicks{where}", list(dense_blocks(run, found)))
        yield Section(f"Transfer layer{where}", list(transfer_blocks(run, found)))
        yield Section(f"Channel importance{where}", list(importance_blocks(run, found)))
        yield Section(f"The data{where}", list(data_blocks(run, found)))
    if not run.analyses:
        yield Section("Training", [curves({"": run})])
    yield Section("Use it", list(use_blocks(run)))
    yield Section("What was run", list(setting_blocks(run)))


Analyses = Mapping[str, Analysis]
"""Name of a run -> its analysis of one split of one data set."""


def names_of(runs: Sequence[RunView]) -> list[str]:
    """Return a name for each run: its folder, with as many parent folders as needed to distinguish the runs."""
    paths = [run.bundle.absolute().parent for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = [str(Path(*path.parts[-depth:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({place})" for place, path in enumerate(paths, start=1)]


def compare_sections(runs: Mapping[str, RunView]) -> Iterator[Section]:
    """Yield the sections of a page that compares runs."""
    places: dict[tuple[str, str], dict[str, Analysis]] = {}
    for name, run in runs.items():
        for one in run.analyses:
            places.setdefault((one.data, one.split), {})[name] = one
    where = {place: f": {Path(place[0]).name}, {place[1]}" for place in places}
    for place, found in places.items():
        yield Section(f"Scores{where[place]}", list(_compared(runs, found)))
    yield Section("Training", [curves(runs)])
    yield Section("Settings that differ", [_setting_differences(runs)])
    for place, found in places.items():
        yield Section(f"By size and class{where[place]}", [_groups(found)])
        scores = {name: one.scores for name, one in found.items()}
        yield Section(f"Calibration{where[place]}", list(calibration(scores)))
    yield Section("Where they are", [Table(("run", "bundle"), [(n, str(r.bundle)) for n, r in runs.items()], 2)])


def _compared(runs: Mapping[str, RunView], found: Analyses) -> Iterator[Block]:
    first = next(iter(found.values()))
    dense = [short for *_, short in UNPROMPTED if short] if any(one.unprompted for one in found.values()) else []
    rows: list[list[str]] = []
    best = max(miou(one.scores) for one in found.values())
    marked = set()
    models: list[tuple[str, Objects, Mapping[str, object]]] = [
        *((name, one.zero_shot or (), {}) for name, one in _untuned(runs, found).items()),
        *((name, one.scores, one.unprompted) for name, one in found.items()),
    ]
    for name, scores, blocks in models:
        if name in found and miou(scores) == best:
            marked.add((len(rows), 2))
        without_clicks = {short: value for _, short, value in unprompted_figures(blocks)}
        rows.append([*_row(name, scores, first), *(without_clicks.get(short, NONE) for short in dense)])
    head = ("run", "objects", "mIoU", "difference", "95 % interval", "boundary", "IoU 0.75+", *dense)
    yield Table(head, rows, 1, marked)
    yield from (Text(f"{name}: {one.seen}") for name, one in found.items() if one.seen)
    said = f"One click per object, {place_of(first)}. "
    if len({tuple((s.sample, s.region) for s in one.scores) for one in found.values()}) > 1:
        said += "Not all runs were scored on the same objects; differences are of those that both have. "
    yield Text(said + "Differences are object by object, with 95 % intervals over images.", faint=True)


def _untuned(runs: Mapping[str, RunView], found: Analyses) -> Analyses:
    """Return the analyses with scores of the different untuned models, of runs where they have those of all objects.

    A model is another one where its foundation model, its sensor or its input differ.
    """
    models: dict[object, tuple[str, Analysis]] = {}
    for name, one in found.items():
        spec = runs[name].spec
        if one.zero_shot and len(common(one.scores, one.zero_shot)) == len(one.scores):
            key = (spec.foundation, spec.foundation_sha256, spec.modality, spec.picks, spec.image_size, one.protocol)
            models.setdefault(key, (f"zero-shot of {spec.foundation}, as in {name}", one))
    found_models = list(models.values())
    return {"zero-shot": found_models[0][1]} if len(found_models) == 1 else dict(found_models)


def _row(name: str, scores: Objects, first: Analysis) -> list[str]:
    found = figures(scores)
    return [
        name,
        str(len(scores)),
        found["mean IoU over objects"],
        NONE if scores is first.scores else signed(difference(scores, first.scores)).replace(" [", "\n["),
        found["95 % interval"],
        found["boundary IoU"],
        found["objects with IoU 0.75 or more"],
    ]


def _groups(found: Analyses) -> Table:
    names = {value: name for one in found.values() for value, name in one.class_names.items()}
    rows = [
        (
            name if what == "size" else f"{what} {name}",
            *(f"{miou(part):.3f} ({len(part)})" if part else NONE for part in parts),
        )
        for what, name, parts in groups_of([one.scores for one in found.values()], names)
    ]
    return Table(("mIoU (objects)", *found), rows, 1)


def _setting_differences(runs: Mapping[str, RunView]) -> Table:
    dumps = [run.config.model_dump(mode="json") for run in runs.values()]
    rows = [
        (name, *(setting(dump[name]) for dump in dumps))
        for name in TrainConfig.model_fields
        if name != "out" and any(dump[name] != dumps[0][name] for dump in dumps)
    ]
    rows.append(("step that was kept", *(str(run.step) for run in runs.values())))
    reports = [run.report for run in runs.values()]
    rows.append(("training images", *(f"{one.train_images:,}" if one else NONE for one in reports)))
    rows.append(("trained parameters", *(f"{one.trainable:,}" if one else NONE for one in reports)))
    rows.append(("time", *(duration(one.seconds) if one else NONE for one in reports)))
    for title in dict.fromkeys(title for one in reports if one for title in one.machine):
        texts = [one.machine.get(title, NONE) if one else NONE for one in reports]
        if len(set(texts)) > 1:
            rows.append((title, *texts))
    return Table(("", *runs), rows, len(runs) + 1)
