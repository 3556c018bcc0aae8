"""The page of a run, or of several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from simmat.config import TrainConfig
from simmat_plugin_report.documents import Analysis, RunView
from simmat_plugin_report.page import Block, Table, write_sections
from simmat_plugin_report.run_page import CONFIDENCE, run_sections, summary_of
from simmat_plugin_report.scores import (
    NONE,
    UNPROMPTED,
    Objects,
    curves,
    difference,
    duration,
    groups_of,
    metric_texts,
    miou,
    scored_images,
    setting,
    signed,
    unprompted_metrics,
)

Analyses = Mapping[str, Analysis]
"""Name of a run -> its analysis of one split of one data set."""


def write_page(out: Path, runs: Sequence[RunView]) -> Path:
    """Write the page of one run, or one that compares several.

    Raises:
        OutputError: the page cannot be written.
    """
    if len(runs) == 1:
        (run,) = runs
        return write_sections(
            out,
            f"{run.name}: {run.spec.modality}",
            summary_of(run),
            run_sections(run),
            folded=[CONFIDENCE],
        )
    named = dict(zip(_names_of(runs), runs, strict=True))
    summary = f"{len(runs)} runs. Differences are relative to the first run, {next(iter(named))}."
    return write_sections(
        out, f"{len(runs)} runs side by side", summary, _sections(named)
    )


def _names_of(runs: Sequence[RunView]) -> list[str]:
    """Return a name for each run: its folder, with as many parent folders as needed to distinguish the runs."""
    paths = [run.config.out.absolute() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = [str(Path(*path.parts[-depth:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({place})" for place, path in enumerate(paths, start=1)]


def _sections(runs: Mapping[str, RunView]) -> Iterator[tuple[str, list[Block]]]:
    """Yield heading and blocks of each section; runs that were scored on other data have scores of their own."""
    places: dict[tuple[str, str], dict[str, Analysis]] = {}
    for name, run in runs.items():
        if run.analysis is not None:
            places.setdefault((run.analysis.data, run.analysis.split), {})[name] = (
                run.analysis
            )
    for (data, split), found in places.items():
        yield f"Scores: {Path(data).name}, {split}", list(_scores(runs, found))
        yield f"By size and class: {Path(data).name}, {split}", [_groups(found)]
    yield "Training", [curves(runs)]
    yield "Settings that differ", [_setting_differences(runs)]


def _scores(runs: Mapping[str, RunView], found: Analyses) -> Iterator[Block]:
    first = next(iter(found.values()))
    best = max(miou(one.scores) for one in found.values())
    dense = UNPROMPTED.values() if any(one.unprompted for one in found.values()) else ()
    models = [
        *((name, scores, {}) for name, scores in untuned_models(runs, found).items()),
        *(
            (name, one.scores, unprompted_metrics(one.unprompted))
            for name, one in found.items()
        ),
    ]
    rows = [
        [*_row(name, scores, first), *(others.get(title, NONE) for title in dense)]
        for name, scores, others in models
    ]
    marked = {
        (row, 2)
        for row, (name, scores, _) in enumerate(models)
        if name in found and miou(scores) == best
    }
    yield Table(
        (
            "run",
            "objects",
            "mIoU",
            "difference",
            "95 % interval",
            "boundary",
            "IoU 0.75+",
            *dense,
        ),
        rows,
        1,
        marked,
    )
    yield from (f"{name}: {one.seen}" for name, one in found.items() if one.seen)
    said = f"One click per object, {scored_images(first)}. "
    if (
        len({tuple((s.sample, s.region) for s in one.scores) for one in found.values()})
        > 1
    ):
        said += "Not all runs were scored on the same objects; differences are of the objects that both have. "
    yield said + "Differences are object by object, with 95 % intervals over images."


def untuned_models(runs: Mapping[str, RunView], found: Analyses) -> dict[str, Objects]:
    """Return the scores of each different untuned model that all objects were scored with.

    A model is another one where its foundation model, its sensor or its input differ.
    """
    models: dict[object, tuple[str, Objects]] = {}
    for name, one in found.items():
        spec = runs[name].spec
        if one.zero_shot and len(one.zero_shot) == len(one.scores):
            key = (
                spec.foundation,
                spec.foundation_sha256,
                spec.modality,
                spec.selected_channels,
                spec.image_size,
                one.protocol,
            )
            models.setdefault(
                key, (f"zero-shot of {spec.foundation}, as in {name}", one.zero_shot)
            )
    return dict(models.values())


def _row(name: str, scores: Objects, first: Analysis) -> list[str]:
    found = metric_texts(scores)
    return [
        name,
        str(len(scores)),
        found["mean IoU over objects"],
        NONE
        if scores is first.scores
        else signed(difference(scores, first.scores), "\n"),
        found["95 % interval"],
        found["boundary IoU"],
        found["objects with IoU 0.75 or more"],
    ]


def _groups(found: Analyses) -> Table:
    names = {
        value: name for one in found.values() for value, name in one.class_names.items()
    }
    rows = [
        (
            name if what == "size" else f"{what} {name}",
            *(f"{miou(part):.3f} ({len(part)})" if part else NONE for part in parts),
        )
        for what, name, parts in groups_of(
            [one.scores for one in found.values()], names
        )
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
    rows.append(
        (
            "training images",
            *(f"{one.train_images:,}" if one else NONE for one in reports),
        )
    )
    rows.append(
        (
            "trained parameters",
            *(f"{one.trainable:,}" if one else NONE for one in reports),
        )
    )
    rows.append(("time", *(duration(one.seconds) if one else NONE for one in reports)))
    for title in dict.fromkeys(
        title for one in reports if one for title in one.machine
    ):
        texts = [one.machine.get(title, NONE) if one else NONE for one in reports]
        if len(set(texts)) > 1:
            rows.append((title, *texts))
    rows.append(("bundle", *(str(run.bundle) for run in runs.values())))
    return Table(("", *runs), rows, len(runs) + 1)
