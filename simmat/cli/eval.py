"""`simmat eval`: score a bundle on a split, with the zero-shot figure of its foundation model beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from simmat.cli.common import PATH, json_option, load_registry, print_json
from simmat.cli.eval_table import print_report
from simmat.cli.options import data_options, device_option, foundation_options
from simmat.cli.progress import progress_bar
from simmat.errors import ConfigError, OutputError
from simmat.files import atomic_write_json, check_writable
from simmat.terminal import say


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--data", required=True, type=PATH, help="Folder of the data set.")
@click.option("--split", default="test", show_default=True, help="Split to score: train, val or test.")
@click.option("--zero-shot/--no-zero-shot", default=True, show_default=True, help="Score the untuned model too.")
@click.option(
    "--protocol",
    "name",
    default="one-click",
    show_default=True,
    help="What is asked: one-click, full or simmat-compat.",
)
@click.option("--clicks", type=int, metavar="INT", help="Most clicks an object, for full.  [default: 20]")
@click.option(
    "--draws", type=int, metavar="INT", help="Random clicks and jittered boxes an object, for full.  [default: 5]"
)
@click.option("--seed", type=int, metavar="INT", help="Decides the draws, for full.  [default: 0]")
@data_options
@foundation_options
@device_option
@click.option("--out", type=PATH, help="Write the scores, object by object, to this json file.")
@click.option("--curve", type=PATH, help="Draw mIoU by clicks into this .png or .svg, for full.")
@json_option
def command(
    bundle: Path,
    data: Path,
    split: str,
    zero_shot: bool,
    name: str,
    clicks: int | None,
    draws: int | None,
    seed: int | None,
    foundation: str | None,
    checkpoint: Path | None,
    device: str | None,
    out: Path | None,
    curve: Path | None,
    as_json: bool,
    **card: Any,
) -> None:
    """Score BUNDLE, and the untuned foundation model beside it, on the same clicks and boxes.

    one-click asks with one click an object, at the maximum of its distance transform, and compares masks at the
    original size. full goes on with clicks on errors (mIoU by clicks, NoC), boxes tight and jittered, and random
    clicks. simmat-compat scores as the paper's released code does.

    What a region is stands in the data set's card.toml or on the command line; else it is what the
    bundle was trained with.
    """
    from simmat.bundle import load_bundle
    from simmat.evaluation import evaluate_bundle, find_protocol, join_processes, why_no_zero_shot
    from simmat.evaluation.report import objects_of, report_of

    protocol = find_protocol(name, clicks=clicks, draws=draws, seed=seed)
    if curve is not None:
        _check_curve(curve, protocol.clicks)
        if out is not None and out.absolute() == curve.absolute():
            raise ConfigError(f"--out and --curve both name {out}, and one would replace the other; give two names")
    registry = load_registry()
    processes = join_processes(device)
    for file in (out, curve):
        if file is not None and processes.is_main:
            _check_place(file)
    loaded = load_bundle(bundle, registry, foundation=foundation, checkpoint=checkpoint, device=processes.device)
    if protocol.grid == "quarter" and loaded.spec.aspect != "squash" and processes.is_main:
        say(f"note: {bundle} was trained on images of kept aspect; {name} squashes them", err=True)
    with _progress(shown=processes.is_main) as advance:
        tuned, untuned = evaluate_bundle(
            loaded,
            data,
            split,
            overrides=card,
            zero_shot=zero_shot,
            registry=registry,
            progress=advance,
            note=partial(say, err=True) if processes.is_main else None,
            protocol=protocol,
            processes=processes,
        )
    if not processes.is_main:
        return
    report = report_of(loaded, data, split, protocol, tuned, untuned)
    if out is not None:
        atomic_write_json(out, {**report, **objects_of(tuned, untuned)})
    if curve is not None:
        _draw_curve(report, curve)
    if as_json:
        print_json(report)
    else:
        print_report(report, no_zero_shot=why_no_zero_shot(loaded) if zero_shot else "")


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Give what moves a bar to (done, total) images."""
    with progress_bar("scoring", "image", shown=shown) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def _check_place(file: Path) -> None:
    """Refuse a place that cannot be written before an hour of scoring, not after it."""
    if file.is_dir():
        raise OutputError(f"{file} is a folder; give the name of a file in it")
    check_writable(file.absolute().parent)


def _check_curve(curve: Path, clicks: int) -> None:
    """Refuse what could not be drawn."""
    from simmat.report.plot_style import picture_kind

    picture_kind(curve, "a click curve")
    if clicks < 2:
        raise ConfigError(
            "--curve draws mIoU by clicks, but there is one click; use --protocol full with --clicks 2 or more"
        )


def _draw_curve(report: dict[str, Any], out: Path) -> None:
    from simmat.evaluation import NOC_TARGETS
    from simmat.report.click_curve import plot_click_curve

    tuned, untuned = report["tuned"], report["zero_shot"]
    curves = {"tuned": tuned["clicks"]["miou"]} | ({"zero-shot": untuned["clicks"]["miou"]} if untuned else {})
    title = f"{report['modality']}: mIoU by clicks, {tuned['objects']} objects"
    plot_click_curve(curves, out, targets=NOC_TARGETS, title=title)
