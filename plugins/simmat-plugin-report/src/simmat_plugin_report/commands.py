"""`simmat data check`, `stats` and `preview`, and `simmat report`, `forecast` and `doctor`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli.options import (
    PATH,
    FiniteRange,
    config_options,
    data_options,
    foundation_options,
    json_option,
    load_registry,
)
from simmat.cli.tables import print_json, print_table
from simmat.errors import ConfigError, DataError, OutputError, SimMATError
from simmat.io.files import atomic_write_bytes, check_writable, staged_files
from simmat.terminal import echo, move_bar, progress_bar

if TYPE_CHECKING:
    from simmat.data.card import DataCard
    from simmat.data.dataset import Dataset
    from simmat.data.samples import Sample
    from simmat.sensors.adapter import ModalityAdapter


_SENSOR = ("modality", "modality_options", "channels")
MORE = (20, 50, 100)
"""Numbers of more training images of which `forecast` says what they bring, by default."""
GAIN = 0.01
"""Gain of mIoU by 20 more training images below which it is time to stop, by default."""
_sensor_options = config_options(*_SENSOR, required=("modality",))


@click.command("data check")
@click.argument("data", metavar="DIR", type=PATH)
@config_options(*_SENSOR)
@data_options
@click.option(
    "--against",
    type=PATH,
    multiple=True,
    metavar="RUN",
    help="Compare the labels with this run instead, where it was not trained on the image; repeat it for several, or "
    "name them after the first one.",
)
@click.argument("more_runs", metavar="[RUN]...", type=PATH, nargs=-1)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE.html",
    help="--against: also write a page with pictures.",
)
@config_options("device")
@click.option(
    "--write-card", is_flag=True, help="Save these options in the data set's card.toml."
)
@click.option("--quick", is_flag=True, help="Skip near-duplicates, which take longest.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    /,
    data: Path,
    against: tuple[Path, ...],
    more_runs: tuple[Path, ...],
    out: Path | None,
    device: str | None,
    write_card: bool,
    quick: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Read every file of the data set in DIR, and report its content and its problems, by severity.

    It also finds near-duplicate images in different splits, images without an object, and rare classes. If no image
    has a mask, only the images are checked. The exit code is 2 if a problem would stop training or scoring.

    With --against RUN... it ranks labels that contradict models instead: objects without a label, wrong classes,
    shifted borders, and two objects in one label. A run judges only images that it was not trained on, by their
    content; `simmat train --folds 5` makes runs that judge all of them. The sensor and what a region is are those of
    the first run.
    """
    if against:
        if write_card or quick:
            raise ConfigError(
                "--write-card and --quick are for a check of the files; leave them out, or --against"
            )
        _check_against(data, (*against, *more_runs), out, device, as_json, options)
        return
    for given, name in ((more_runs, "RUN"), (out, "--out"), (device, "--device")):
        if given:
            raise ConfigError(f"{name} is for --against RUN; give both, or neither")
    if options["modality"] is None:
        raise ConfigError(
            "--modality is missing; name the sensor, see simmat modalities list"
        )
    from simmat.data.dataset import open_dataset, open_images
    from simmat.sensors.adapter import options_for_card
    from simmat_plugin_report.checks import check_dataset
    from simmat_plugin_report.near_duplicates import MAX_COMPARED

    adapter, card = _sensor(options)
    try:
        dataset = open_dataset(data, adapter, card)
    except DataError:
        # which raises the same unless there are no labels at all
        dataset = open_images(data, adapter, card)
    count = len(dataset.samples)
    with progress_bar(
        "reading", " samples", total=count + (0 if quick else min(count, MAX_COMPARED))
    ) as bar:
        report = check_dataset(dataset, bar.update, twice=not quick)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        echo(report.text())
    if write_card:
        stated = options_for_card(dataset.card.modality_options, adapter)
        card_now = dataset.card.model_copy(update={"modality_options": stated})
        echo(_write_card(dataset.root, card_now), err=True)
    if report.errors:
        ctx.exit(2)


def _check_against(
    data: Path,
    runs: tuple[Path, ...],
    out: Path | None,
    device: str | None,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Compare the labels of a data set with runs, and print what is suspected."""
    from simmat.bundle import load_bundle
    from simmat.data.dataset import open_dataset
    from simmat.evaluation import trained_card
    from simmat.nn.device import pick_device
    from simmat_plugin_report.label_check import check_labels, write_label_check

    if options["modality"] is not None or options["channels"] is not None:
        raise ConfigError(
            "--modality and --channels are those of the runs; leave them out with --against"
        )
    if out is not None:
        _check_page(out)
    registry = load_registry()
    bundles = []
    for run in runs:
        bundles.append(
            load_bundle(
                run,
                registry,
                modality_options=options["modality_options"],
                device=pick_device(device),
            )
        )
    card = {name: value for name, value in options.items() if name not in _SENSOR}
    first = bundles[0]
    dataset = open_dataset(
        data, first.modality, card, defaults=trained_card(first.spec.card)
    )
    with progress_bar("comparing", " images", total=len(dataset.samples)) as bar:
        checked = check_labels(dataset, bundles, dataset.samples, bar.update)
    if as_json:
        print_json(checked.report.model_dump(mode="json"))
    else:
        echo(checked.report.text())
    if out is not None:
        echo(f"wrote {write_label_check(out, dataset, checked)}", err=as_json)


@click.command("data stats")
@click.argument("data", metavar="DIR", type=PATH)
@_sensor_options
@data_options
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Only images of one split.",
)
@click.option(
    "--bins",
    default=40,
    show_default=True,
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Bins of the histogram.",
)
@click.option(
    "--transformed",
    is_flag=True,
    help="Describe the network's input (log, dB, sin and cos) instead of the physical values.",
)
@json_option
@click.pass_context
def stats(
    ctx: click.Context,
    /,
    data: Path,
    split: str | None,
    bins: int,
    transformed: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Describe the values of each channel of DIR: missing, mean, std, percentiles and a histogram, in its unit.

    DIR is a data set, or a folder of images without labels. The exit code is 2 if an image cannot be read.
    """
    from simmat_plugin_report.channel_stats import channel_stats, stats_lines

    dataset, samples = _images(data, split, options)
    with progress_bar("reading", " images", total=len(samples)) as bar:
        images, found, faults = channel_stats(
            dataset, samples, bins=bins, transformed=transformed, progress=bar.update
        )
    sequences = len({sample.sequence for sample in samples} - {""})
    if as_json:
        counts = {"images": images, "sequences": sequences}
        print_json(
            {
                "root": str(dataset.root),
                **counts,
                "channels": [asdict(one) for one in found],
                "faults": faults,
            }
        )
    else:
        of = (
            f"frames of {sequences} sequence{'s' * (sequences != 1)}"
            if sequences
            else "images"
        )
        echo(
            "\n\n".join(
                [
                    f"{dataset.root}: {images} {of}",
                    *("\n".join(stats_lines(one)) for one in found),
                ]
            )
        )
    for one in found:
        if (
            one.name == "thermal"
            and one.unit == "count"
            and one.mean is not None
            and 233 <= one.mean / 64 <= 373
        ):
            echo(
                "warning: thermal has no unit, but looks like kelvin times 64, as in many files of DJI: the "
                f"mean would be {one.mean / 64 - 273.15:.1f} °C. If that is right, give --modality-option unit=K64",
                err=True,
            )
    for name, fault in faults.items():
        echo(f"warning: {name} is left out: {fault}", err=True)
    if faults:
        ctx.exit(2)


@click.command("data preview")
@click.argument("data", metavar="DIR", type=PATH)
@_sensor_options
@data_options
@click.option(
    "--out",
    required=True,
    type=PATH,
    metavar="FILE.png",
    help="File of the sheet; several sheets are FILE-1.png, FILE-2.png, …",
)
@click.option(
    "--count",
    default=24,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Images to show.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Only images of one split.",
)
@click.option(
    "--labels/--no-labels",
    default=True,
    help="Draw the regions over the pictures.  [default: labels]",
)
@click.option(
    "--same-scale",
    is_flag=True,
    help="Use one scale for all images of a sheet, so that colours compare.",
)
def preview(
    data: Path,
    out: Path,
    count: int,
    split: str | None,
    labels: bool,
    same_scale: bool,
    **options: Any,
) -> None:
    """Draw sheets of the images of DIR, with labels, and with colours, unit and scale of each quantity.

    DIR is a data set, or a folder of images without labels. The images are spread evenly over the set; each row of
    sequences shows frames of one sequence.
    """
    from simmat_plugin_report.preview import PER_SHEET, preview_sheets, shown_samples

    if out.suffix.lower() != ".png":
        raise ConfigError(
            f"sheets are PNG files, got --out {out.name!r}; end the name in .png"
        )
    dataset, samples = _images(data, split, options)
    shown = shown_samples(samples, count)
    several = len(shown) > PER_SHEET
    problems: list[tuple[str, str]] = []
    with (
        progress_bar("reading", " images", total=len(shown)) as bar,
        staged_files(out.parent) as folder,
    ):
        sheets = preview_sheets(
            dataset,
            shown,
            labels=labels,
            same_scale=same_scale,
            problems=problems,
            progress=bar.update,
        )
        names = []
        for number, sheet in enumerate(sheets, start=1):
            names.append(f"{out.stem}-{number}.png" if several else out.name)
            sheet.save(folder / names[-1])
    for name, problem in problems:
        echo(f"warning: {name} is not shown: {problem}", err=True)
    for name in names:
        echo(f"wrote {out.parent / name}")


def _sensor(options: dict[str, Any]) -> tuple[ModalityAdapter, dict[str, Any]]:
    """Return the sensor that options name, and the other options, which override the data card."""
    card = {name: value for name, value in options.items() if name not in _SENSOR}
    name, chosen, channels = (options[name] for name in _SENSOR)
    return load_registry().modality(name, chosen, channels=channels), card


def _images(
    data: Path, split: str | None, options: dict[str, Any]
) -> tuple[Dataset, tuple[Sample, ...]]:
    """Open a data set or a folder of images; return it with the samples of the split."""
    from simmat.data.dataset import open_images

    dataset = open_images(data, *_sensor(options))
    return dataset, dataset.split(split) if split else (
        *dataset.samples,
        *dataset.unlabelled,
    )


def _write_card(root: Path, card: DataCard) -> str:
    """Write a card if it changed; the former one, which may contain comments, becomes card.toml.old."""
    from simmat.data.card import CARD_FILE, load_card, write_card

    path = root / CARD_FILE
    if not path.exists():
        return f"wrote {write_card(root, card)}"
    with suppress(ConfigError):
        if load_card(root, {}) == card:
            return f"{path} is up to date"
    atomic_write_bytes(root / f"{CARD_FILE}.old", path.read_bytes())
    return f"wrote {write_card(root, card)}; the former one is {path.name}.old"


@click.command("report")
@click.argument("runs", metavar="RUN...", type=PATH, nargs=-1, required=True)
@click.option(
    "--out",
    type=PATH,
    help="The page.  [default: report.html in RUN; of several runs, compare.html here]",
)
@click.option("--data", type=PATH, metavar="DIR", help="Score on this data set.")
@click.option(
    "--split",
    help="Split of DIR: train, val or test.  [default: test if there is one, else val]",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="INT",
    help="Score at most this many images of a data set, spread evenly over the split.",
)
@foundation_options
@config_options("device")
def report(
    runs: tuple[Path, ...],
    out: Path | None,
    data: Path | None,
    split: str | None,
    images: int,
    foundation: str | None,
    checkpoint: Path | None,
    device: str | None,
) -> None:
    """Write one HTML page about each RUN, or one that compares several.

    The page is self-contained: scores of the tuned and the untuned model, curves, predictions, output of the transfer
    layer, importance of channels, problems of the data, settings, and how to use the bundle.

    Training writes the same page into RUN at its end, and this command reuses its results. The network runs only if
    --data asks for scores on other images, or if training did not finish. It then encodes each of --images twice (three
    times with a dense head), 6 images for pictures, and at most 64 with channels withheld. For a run that is still
    training, the page shows the best bundle so far.
    """
    from simmat.bundle import load_bundle
    from simmat.nn.device import pick_device
    from simmat_plugin_report.analysis import analyse_bundle
    from simmat_plugin_report.compare_page import write_page
    from simmat_plugin_report.documents import open_run

    if split is not None and data is None:
        raise ConfigError(f"--split {split} is for --data DIR; give both, or neither")
    page = (
        out
        if out is not None
        else (runs[0] / "report.html" if len(runs) == 1 else Path("compare.html"))
    )
    views = [open_run(run) for run in runs]
    _check_page(page)
    registry = load_registry()
    for place, (run, view) in enumerate(zip(runs, views, strict=True)):
        if data is None and view.is_complete:
            continue
        folder, part, card = (
            (data, split, {})
            if data
            else (view.config.data, "val", view.config.card_overrides())
        )
        try:
            bundle = load_bundle(
                view.bundle,
                registry,
                foundation=foundation,
                checkpoint=checkpoint,
                device=pick_device(device),
            )
            with progress_bar(f"{run.name}, {folder.name}", "image") as bar:
                advance = partial(move_bar, bar)
                found = analyse_bundle(
                    bundle,
                    folder,
                    part,
                    registry,
                    images=images,
                    overrides=card,
                    trained=None if data else view.config,
                    progress=advance,
                )
            views[place] = replace(view, analysis=found)
        except SimMATError as error:
            if data is not None or view.analysis is None:
                raise
            echo(
                f"note: {run}: shown without pictures, because its network cannot run here: {error}",
                err=True,
            )
    echo(f"wrote {write_page(page, views)}")


@click.command("forecast")
@click.argument("runs", metavar="RUN...", type=PATH, nargs=-1, required=True)
@click.option(
    "--more",
    type=click.IntRange(1, 10**6),
    multiple=True,
    default=MORE,
    show_default=True,
    metavar="N",
    help="Forecast for so many more training images; repeat it for several.",
)
@click.option(
    "--gain",
    type=FiniteRange(0, 1, min_open=True),
    default=GAIN,
    show_default=True,
    help="It is time to stop when 20 more images bring less mIoU than this.",
)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE.html",
    help="Also write a page with the curve.",
)
@json_option
def forecast(
    runs: tuple[Path, ...],
    more: tuple[int, ...],
    gain: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say what more labels would bring in mIoU and in missed objects, and when to stop.

    The RUNs are trainings of one network on fewer and on more labels: those of a folder that was labelled in
    `simmat annotate`, of `simmat train --init` on more and more labels, or on parts of a data set (--train-images). A
    folder of runs, or a data set that has some in runs/, stands for all of them. Nothing is computed but the curve: the
    runs recorded what their models scored on images that they did not know.
    """
    from simmat_plugin_report.forecast import forecast_lines, forecast_runs, runs_in
    from simmat_plugin_report.forecast_page import write_forecast

    if out is not None:
        _check_page(out)
    found, curves = forecast_runs(runs_in(runs), more, gain)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        echo("\n".join(forecast_lines(found)))
    if out is not None:
        echo(f"wrote {write_forecast(out, found, curves)}", err=as_json)


def _check_page(page: Path) -> None:
    """Refuse a page that cannot be written, before anything is computed for it."""
    if page.is_dir():
        raise OutputError(f"{page} is a folder; give the name of a file in it")
    check_writable(page.absolute().parent)


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Show versions, devices, threads, memory, plugins, weights and folders, and their problems.

    A problem is something that does not work; a warning is something that works slowly or partly. The exit code is 1 if
    there is a problem, otherwise 0. Changes nothing and uses no network.
    """
    from simmat_plugin_report.doctor import Diagnosis, examine

    facts: dict[str, dict[str, str]] = {}
    findings: list[tuple[str, Diagnosis]] = []
    for name, seen in examine().items():
        findings += [(name, one) for one in seen if isinstance(one, Diagnosis)]
        facts[name] = dict(one for one in seen if not isinstance(one, Diagnosis))
    problems = [finding for _, finding in findings if finding.severity == "problem"]
    if as_json:
        listed = [{"section": name, **asdict(finding)} for name, finding in findings]
        print_json({"ok": not problems, "sections": facts, "findings": listed})
    else:
        rows = []
        for name, of_part in facts.items():
            rows += [(name, *fact) for fact in of_part.items()]
        print_table(("", "WHAT", "FOUND"), rows)
        for name, finding in findings:
            echo(f"\n{finding.severity}: {name}: {finding.what}\n  {finding.remedy}")
        echo(f"\n{len(problems)} problems, {len(findings) - len(problems)} warnings")
    return 1 if problems else 0
