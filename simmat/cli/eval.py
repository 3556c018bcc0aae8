"""`simmat eval`: score a bundle or an untrained model on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from simmat.cli.common import PATH, json_option, load_registry, print_json, print_table, progress_bar
from simmat.cli.options import data_options, device_option, foundation_options
from simmat.data.card import class_title
from simmat.errors import ConfigError, OutputError
from simmat.io.files import atomic_write_json, check_writable
from simmat.terminal import say

Row = tuple[str, str, str]

SHOWN_CLICKS = (1, 3, 5, 8)
"""Numbers of clicks in the table, beside the last; the file has all."""


def print_report(report: dict[str, Any], *, no_zero_shot: str) -> None:
    """Print a report of `simmat.evaluation.report.report_of`.

    Args:
        report: it.
        no_zero_shot: why there are no zero-shot figures, where they were asked for; else "".
    """
    tuned, untuned = report["tuned"], report["zero_shot"]
    say(
        f"{report['split']} split of {report['data']}: {tuned['objects']} objects in {tuned['images']} images, "
        f"protocol {report['protocol']['name']}"
    )
    if tuned["left_out"]:
        say(f"{tuned['left_out']} objects have no pixel where masks are compared and are left out")
    print_table(("", "ZERO-SHOT", "TUNED"), list(_rows(tuned, untuned, report["class_names"])))
    if no_zero_shot:
        say(f"no zero-shot figure: {no_zero_shot}")
    _print_cost(report)


def _rows(tuned: dict[str, Any], untuned: dict[str, Any] | None, class_names: dict[str, str]) -> Iterator[Row]:
    yield _row("one click: mean over objects", tuned, untuned, "miou_object")
    yield _row("  95 % interval (bootstrap over images)", tuned, untuned, "miou_object_interval")
    yield _row("  mean over images", tuned, untuned, "miou_image")
    yield _row("  mean over classes", tuned, untuned, "miou_class")
    if tuned["miou_oracle"] is not None:
        yield _row("  best predicted of the alternatives", tuned, untuned, "miou_best_predicted")
        yield _row("  best possible of the alternatives", tuned, untuned, "miou_oracle")
        yield _row("  boundary IoU", tuned, untuned, "boundary_iou")
    for name, found in tuned["by_size"].items():
        if found["objects"]:
            yield _row(f"  {name} ({found['objects']} objects)", tuned, untuned, "by_size", name, "miou_object")
    names = {int(key): name for key, name in class_names.items()}
    for key in tuned["iou_by_class"]:
        yield _row(f"  class {class_title(int(key), names)}", tuned, untuned, "iou_by_class", key)
    if "clicks" in tuned:
        yield from _click_rows(tuned, untuned)
    if "box" in tuned:
        yield _row("tight box", tuned, untuned, "box", "tight")
        yield _row("jittered box", tuned, untuned, "box", "jittered")
        yield _row("random click", tuned, untuned, "random_click")


def _click_rows(tuned: dict[str, Any], untuned: dict[str, Any] | None) -> Iterator[Row]:
    most = len(tuned["clicks"]["miou"])
    for count in sorted({*(k for k in SHOWN_CLICKS if k <= most), most}):
        yield _row(f"{count} click{'s' if count > 1 else ''}", tuned, untuned, "clicks", "miou", count - 1)
    for key in [key for key in tuned["clicks"] if key.startswith("noc")]:
        yield _row(f"NoC@{key.removeprefix('noc')} (failures as {most})", tuned, untuned, "clicks", key)


def _row(name: str, tuned: dict[str, Any], untuned: dict[str, Any] | None, *path: str | int) -> Row:
    return name, _figure(untuned, path), _figure(tuned, path)


def _figure(value: Any, path: Sequence[str | int]) -> str:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else value[key] if value is not None else None
    if isinstance(value, dict) and "failures" in value:
        return f"{value['mean']:.2f} ({value['failures']} failed)"
    if isinstance(value, dict):
        spread = f" ± {value['std']:.4f}" if value["std"] is not None else ""
        return f"{value['mean']:.4f}{spread}"
    if isinstance(value, list | tuple):
        return "–".join(f"{bound:.4f}" for bound in value)
    return "-" if value is None else f"{value:.4f}"


def _print_cost(report: dict[str, Any]) -> None:
    parameters, cost, times = report["parameters"], report["cost"], report["cost"]["tuned"]
    memory = f", peak memory {cost['peak_memory_mib']:.0f} MiB" if cost["peak_memory_mib"] is not None else ""
    say(
        f"{parameters['trainable']:,} of {parameters['total']:,} parameters tuned; "
        f"{times['encode_ms']:.0f} ms an image and {times['decode_ms']:.1f} ms a prompt on {cost['device']}{memory}"
    )


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
    from simmat.report.curves import picture_kind

    picture_kind(curve, "a click curve")
    if clicks < 2:
        raise ConfigError(
            "--curve draws mIoU by clicks, but there is one click; use --protocol full with --clicks 2 or more"
        )


def _draw_curve(report: dict[str, Any], out: Path) -> None:
    from simmat.evaluation import NOC_TARGETS
    from simmat.report.curves import plot_click_curve

    tuned, untuned = report["tuned"], report["zero_shot"]
    curves = {"tuned": tuned["clicks"]["miou"]} | ({"zero-shot": untuned["clicks"]["miou"]} if untuned else {})
    title = f"{report['modality']}: mIoU by clicks, {tuned['objects']} objects"
    plot_click_curve(curves, out, targets=NOC_TARGETS, title=title)
