"""`simmat eval`: score a bundle and the zero-shot model on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from simmat.cli.options import (
    PATH,
    config_options,
    data_options,
    foundation_options,
    json_option,
    load_registry,
)
from simmat.cli.tables import print_json, print_table, score_rows
from simmat.errors import OutputError
from simmat.io.files import atomic_write_json, check_writable
from simmat.plugin_specs import MetricSpec
from simmat.terminal import echo, move_bar, progress_bar


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--data", required=True, type=PATH, help="Folder of the data set.")
@click.option(
    "--split",
    default="test",
    show_default=True,
    help="Split to score: train, val or test.",
)
@click.option(
    "--zero-shot/--no-zero-shot",
    default=None,
    help="Score the untuned model, too.  [default: with prompts only; --zero-shot: with --everything, too]",
)
@click.option(
    "--protocol",
    "name",
    default="one-click",
    show_default=True,
    help="Protocol: one-click, full or simmat-compat.",
)
@click.option(
    "--clicks",
    type=click.IntRange(1, 100),
    help="full: largest number of clicks per object.  [default: 20]",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 1000),
    help="full: random clicks and jittered boxes per object.  [default: 5]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="full: seed of the random clicks and boxes.  [default: 0]",
)
@click.option(
    "--everything",
    is_flag=True,
    help="Also find every object without prompts: AP, AP50, PQ, F1.",
)
@click.option(
    "--semantic",
    is_flag=True,
    help="Also score the class of every pixel; needs a dense head.",
)
@data_options
@foundation_options
@config_options("device")
@click.option(
    "--out",
    type=PATH,
    help="Write the scores, with those of every object, to this json file.",
)
@json_option
def command(
    bundle: Path,
    data: Path,
    split: str,
    zero_shot: bool | None,
    name: str,
    clicks: int | None,
    repeats: int | None,
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

    --everything uses the dense head of BUNDLE. Without a dense head it clicks on a grid, which takes seconds per
    image; for the untuned model this is done only with --zero-shot.

    Images that BUNDLE was trained on are left out and counted, unless --split train is given.

    The options say what a region is, or else the data set's card.toml, or else the settings of the training.
    """
    from simmat.bundle import load_bundle
    from simmat.evaluation import (
        EvalRequest,
        evaluate_bundle,
        find_protocol,
        seen_note,
        why_no_zero_shot,
    )
    from simmat.evaluation.report import is_score_report, object_report, score_report
    from simmat.nn.device import join_processes
    from simmat.predictor import Predictor

    protocol = find_protocol(name, clicks=clicks, repeats=repeats, seed=seed)
    registry = load_registry()
    processes = join_processes(device)
    if out is not None and processes.is_main:
        if out.is_dir():
            raise OutputError(f"{out} is a folder; give the name of a file in it")
        check_writable(out.absolute().parent)
        if out.exists() and not is_score_report(out):
            raise OutputError(
                f"{out} was not written by simmat eval, so it is not replaced; give another name"
            )
    loaded = load_bundle(
        bundle,
        registry,
        foundation=foundation,
        checkpoint=checkpoint,
        device=processes.device,
    )
    loaded.check_device(device)
    if (
        protocol.grid == "quarter"
        and loaded.spec.aspect != "stretch"
        and processes.is_main
    ):
        echo(
            f"note: {bundle} was trained on images with their own aspect ratio; {name} stretches them",
            err=True,
        )
    with progress_bar("scoring", "image", shown=processes.is_main) as bar:
        tuned, untuned = evaluate_bundle(
            loaded,
            data,
            split,
            overrides=card,
            zero_shot=zero_shot,
            registry=registry,
            progress=partial(move_bar, bar),
            note=partial(echo, err=True) if processes.is_main else None,
            request=EvalRequest(
                protocol=protocol, everything=everything, semantic=semantic
            ),
            processes=processes,
        )
    if not processes.is_main:
        return
    report = score_report(
        Predictor.of_bundle(loaded), data, split, protocol, tuned, untuned
    )
    if out is not None:
        atomic_write_json(out, {**report, **object_report(tuned, untuned)})
    if as_json:
        print_json(report)
    else:
        _print_report(
            report,
            seen_note(tuned.seen),
            registry.all("metric"),
            no_zero_shot=why_no_zero_shot(loaded.parts)
            if zero_shot is not False
            else "",
        )


def _print_report(
    report: dict[str, Any],
    seen: str,
    metrics: Sequence[MetricSpec],
    *,
    no_zero_shot: str,
) -> None:
    """Print what `score_report` returned, what was `seen`, and why there are no zero-shot scores."""
    tuned = report["tuned"]
    zero_shot = report["zero_shot"]
    echo(
        f"{report['split']} split of {report['data']}: {tuned['objects']} objects in {tuned['images']} images, "
        f"protocol {report['protocol']['name']}"
    )
    if seen:
        echo(seen)
    if tuned["left_out"]:
        echo(
            f"{tuned['left_out']} objects have no pixel on the grid where masks are compared, and are left out"
        )
    names = {int(key): name for key, name in report["class_names"].items()}
    rows = score_rows(tuned, names, metrics)
    others = dict(score_rows(zero_shot or {}, names, metrics))
    print_table(
        ("", "ZERO-SHOT", "TUNED"),
        [(title, others.get(title, "-"), figure) for title, figure in rows],
    )
    if no_zero_shot:
        echo(f"no zero-shot score: {no_zero_shot}")
    elif (
        zero_shot is not None
        and "everything" in tuned
        and zero_shot["everything"] is None
    ):
        echo(
            "the untuned model did not search for every object, because this takes long; add --zero-shot"
        )
    for name, found in (("zero-shot", zero_shot), ("tuned", tuned)):
        block = (found or {}).get("everything")
        if block:
            echo(
                f"{name}: {block['found']} masks found for {block['objects']} objects, clicks: {block['clicks']}"
            )
    parameters = report["parameters"]
    cost = report["cost"]
    times = report["cost"]["tuned"]
    if parameters is not None:
        tuning = "{trainable:,} of {total:,} parameters tuned; ".format(**parameters)
    else:
        tuning = ""
    if cost["peak_memory_mib"] is not None:
        memory = f", peak memory {cost['peak_memory_mib']:.0f} MiB"
    else:
        memory = ""
    echo(
        f"{tuning}{times['encode_ms']:.0f} ms per image and {times['decode_ms']:.1f} ms per prompt on "
        f"{cost['device']}{memory}"
    )
