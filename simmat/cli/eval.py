"""`simmat eval`: score a bundle and the zero-shot model on a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from simmat.cli.common import PATH, json_option, load_registry, move_bar, print_json, print_table, progress_bar
from simmat.cli.options import config_options, data_options, foundation_options
from simmat.data.card import class_title
from simmat.errors import OutputError
from simmat.io.files import atomic_write_json, check_writable
from simmat.terminal import say

_SHOWN_CLICKS = (1, 3, 5, 8)
"""Numbers of clicks in the table, besides the largest; the file has all."""


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--data", required=True, type=PATH, help="Folder of the data set.")
@click.option("--split", default="test", show_default=True, help="Split to score: train, val or test.")
@click.option(
    "--zero-shot/--no-zero-shot",
    default=None,
    help="Score the untuned model too.  [default: by prompts; --zero-shot: by --everything, too]",
)
@click.option(
    "--protocol", "name", default="one-click", show_default=True, help="Protocol: one-click, full or simmat-compat."
)
@click.option("--clicks", type=int, metavar="INT", help="full: largest number of clicks per object.  [default: 20]")
@click.option(
    "--draws", type=int, metavar="INT", help="full: random clicks and jittered boxes per object.  [default: 5]"
)
@click.option("--seed", type=int, metavar="INT", help="full: seed of the random clicks and boxes.  [default: 0]")
@click.option("--everything", is_flag=True, help="Also find every object without prompts: AP, AP50, PQ, F1.")
@click.option("--semantic", is_flag=True, help="Also score the class of every pixel; needs a dense head.")
@data_options
@foundation_options
@config_options("device")
@click.option("--out", type=PATH, help="Write the scores, with those of every object, to this json file.")
@json_option
def command(
    bundle: Path,
    data: Path,
    split: str,
    zero_shot: bool | None,
    name: str,
    clicks: int | None,
    draws: int | None,
    seed: int | None,
    everything: bool,
    semantic: bool,
    foundation: str | None,
    checkpoint: Path | None,
    device: str | None,
    out: Path | None,
    as_json: bool,
    **card: Any,
) -> None:
    """Score BUNDLE and its untuned foundation model on the same clicks and boxes.

    one-click: one click per object, at the maximum of its distance transform; masks are compared at the original size.
    full: also clicks on errors (mIoU by number of clicks, NoC), tight and jittered boxes, and random clicks.
    simmat-compat: the scores of the paper's released code.

    --everything uses the dense head of BUNDLE. Without one, and for the untuned model, it clicks on a grid, which can
    take half a minute an image; the untuned model does it with --zero-shot only.

    Images that BUNDLE was trained on are left out and counted, unless the train split is asked for.

    Options and card.toml of the data set say what a region is; where they do not, the settings of training apply.
    """
    from simmat.bundle import load_bundle
    from simmat.evaluation import UNKNOWN_IMAGES, evaluate_bundle, find_protocol, join_processes, why_no_zero_shot
    from simmat.evaluation.report import objects_of, report_of

    protocol = find_protocol(name, clicks=clicks, draws=draws, seed=seed)
    registry = load_registry()
    processes = join_processes(device)
    if out is not None and processes.is_main:
        _check_file(out)
    loaded = load_bundle(bundle, registry, foundation=foundation, checkpoint=checkpoint, device=processes.device)
    loaded.check_device(device)
    if protocol.grid == "quarter" and loaded.spec.aspect != "squash" and processes.is_main:
        say(f"note: {bundle} was trained on images with their own aspect ratio; {name} squashes them", err=True)
    with progress_bar("scoring", "image", shown=processes.is_main) as bar:
        tuned, untuned = evaluate_bundle(
            loaded,
            data,
            split,
            overrides=card,
            zero_shot=zero_shot,
            registry=registry,
            progress=partial(move_bar, bar),
            note=partial(say, err=True) if processes.is_main else None,
            protocol=protocol,
            processes=processes,
            everything=everything,
            semantic=semantic,
        )
    if not processes.is_main:
        return
    report = report_of(loaded, data, split, protocol, tuned, untuned)
    if out is not None:
        atomic_write_json(out, {**report, **objects_of(tuned, untuned)})
    if as_json:
        print_json(report)
    else:
        seen = UNKNOWN_IMAGES if tuned.seen is None else tuned.seen.note
        _print_report(report, seen, no_zero_shot=why_no_zero_shot(loaded.parts) if zero_shot is not False else "")


def _check_file(file: Path) -> None:
    """Raise OutputError for a file that cannot be written, before the long scoring."""
    if file.is_dir():
        raise OutputError(f"{file} is a folder; give the name of a file in it")
    check_writable(file.absolute().parent)


def _print_report(report: dict[str, Any], seen: str, *, no_zero_shot: str) -> None:
    """Print a report of `simmat.evaluation.report.report_of`, what was `seen`, and why it has no zero-shot scores."""
    tuned = report["tuned"]
    say(
        f"{report['split']} split of {report['data']}: {tuned['objects']} objects in {tuned['images']} images, "
        f"protocol {report['protocol']['name']}"
    )
    if seen:
        say(seen)
    if tuned["left_out"]:
        say(f"{tuned['left_out']} objects have no pixel on the grid where masks are compared, and are left out")
    rows = [
        (title, _figure(report["zero_shot"], path), _figure(tuned, path))
        for title, path in _rows(tuned, report["class_names"])
    ]
    print_table(("", "ZERO-SHOT", "TUNED"), rows)
    if no_zero_shot:
        say(f"no zero-shot score: {no_zero_shot}")
    elif report["zero_shot"] is not None:
        if "semantic" in tuned:
            say("no zero-shot class map: the untuned model knows no classes")
        if "everything" in tuned and report["zero_shot"]["everything"] is None:
            say("the untuned model was not asked for every object, which takes long; --zero-shot does it")
    for name, found in (("zero-shot", report["zero_shot"]), ("tuned", tuned)):
        if block := (found or {}).get("everything"):
            say(f"{name}: {block['found']} masks found for {block['objects']} objects, clicks: {block['clicks']}")
    parameters, cost, times = report["parameters"], report["cost"], report["cost"]["tuned"]
    tuning = "{trainable:,} of {total:,} parameters tuned; ".format(**parameters) if parameters is not None else ""
    memory = f", peak memory {cost['peak_memory_mib']:.0f} MiB" if cost["peak_memory_mib"] is not None else ""
    say(
        f"{tuning}{times['encode_ms']:.0f} ms per image and {times['decode_ms']:.1f} ms per prompt on "
        f"{cost['device']}{memory}"
    )


def _rows(tuned: dict[str, Any], class_names: dict[str, str]) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Yield the title of each row of the table, and the keys of its value in the report."""
    yield "one click: mean over objects", ("miou_object",)
    yield "  95 % interval (bootstrap over images)", ("miou_object_interval",)
    yield "  mean over images", ("miou_image",)
    yield "  mean over classes", ("miou_class",)
    if tuned["miou_oracle"] is not None:
        yield "  best alternative by predicted IoU", ("miou_best_predicted",)
        yield "  best alternative by true IoU", ("miou_oracle",)
        yield "  boundary IoU", ("boundary_iou",)
    for size, found in tuned["by_size"].items():
        if found["objects"]:
            yield f"  {size} ({found['objects']} objects)", ("by_size", size, "miou_object")
    names = {int(key): name for key, name in class_names.items()}
    for key in tuned["iou_by_class"]:
        yield f"  class {class_title(int(key), names)}", ("iou_by_class", key)
    yield from _unprompted_rows(tuned, names)
    if "clicks" in tuned:
        most = len(tuned["clicks"]["miou"])
        for count in sorted({*(k for k in _SHOWN_CLICKS if k <= most), most}):
            yield f"{count} click{'s' if count > 1 else ''}", ("clicks", "miou", count - 1)
        for key in tuned["clicks"]:
            if key.startswith("noc"):
                yield f"NoC@{key.removeprefix('noc')} (failures as {most})", ("clicks", key)
    if "box" in tuned:
        yield "tight box", ("box", "tight")
        yield "jittered box", ("box", "jittered")
        yield "random click", ("random_click",)


def _unprompted_rows(tuned: dict[str, Any], names: dict[int, str]) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Yield the rows of masks without prompts, see `_rows`."""
    measures = {"ap": "AP (IoU 0.5 to 0.95)", "ap50": "AP50", "pq": "PQ", "f1": "F1 at IoU 0.5"}
    if found := tuned.get("everything"):
        for key, title in measures.items():
            yield ("every object: " if key == "ap" else "  ") + title, ("everything", key)
        if "any_class" in found:
            yield from (
                (f"  {title}, whatever the class", ("everything", "any_class", k)) for k, title in measures.items()
            )
            for key in found["by_class"]:
                yield f"  AP50 of class {class_title(int(key), names)}", ("everything", "by_class", key, "ap50")
    if found := tuned.get("semantic"):
        yield "class map: mIoU", ("semantic", "miou")
        yield "  pixel accuracy", ("semantic", "pixel_accuracy")
        for key in found["iou_by_class"]:
            yield f"  IoU of class {class_title(int(key), names)}", ("semantic", "iou_by_class", key)


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
