"""`simmat report`: show a run, or several side by side, on one page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from simmat.cli.common import PATH, load_registry, move_bar, progress_bar
from simmat.cli.options import config_options, foundation_options
from simmat.errors import ConfigError, OutputError, SimMATError
from simmat.io.files import check_writable
from simmat.terminal import say


@click.command()
@click.argument("runs", metavar="RUN...", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, help="The page.  [default: report.html in RUN; of several runs, here]")
@click.option("--data", "sets", type=PATH, multiple=True, metavar="DIR", help="Score on this data set; repeatable.")
@click.option("--split", help="Split of DIR: train, val or test.  [default: test if there is one, else val]")
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
def command(
    runs: tuple[Path, ...],
    out: Path | None,
    sets: tuple[Path, ...],
    split: str | None,
    images: int,
    foundation: str | None,
    checkpoint: Path | None,
    device: str | None,
) -> None:
    """Write one HTML page about each RUN, or one that compares several.

    The page needs nothing but itself: what was run, curves, scores beside zero-shot, predictions, what the transfer
    layer shows the foundation model, what each channel is worth, what was found in the data, how to use the bundle.

    Training writes the same page into RUN at its end, and this takes what training found. The network runs only where
    --data asks for scores on other images, or where training did not come to its end: each of --images is encoded
    twice (three times with a dense head), 6 images for pictures and at most 64 with channels withheld.
    """
    from simmat.bundle import load_bundle
    from simmat.nn.device import pick_device
    from simmat.training.report import examine_bundle, is_complete, open_run
    from simmat.training.run_page import write_page

    if split is not None and not sets:
        raise ConfigError(f"--split {split} is one of --data DIR; give both, or none")
    page = out if out is not None else (runs[0] if len(runs) == 1 else Path()) / "report.html"
    if page.is_dir():
        raise OutputError(f"{page} is a folder; give the name of a file in it")
    views = [open_run(run) for run in runs]
    check_writable(page.absolute().parent)
    registry = load_registry()
    for place, (run, view) in enumerate(zip(runs, views, strict=True)):
        wanted: list[tuple[Path, str | None, dict[str, object]]] = [(data, split, {}) for data in dict.fromkeys(sets)]
        if not sets and not is_complete(view):
            wanted = [(view.config.data, "val", view.config.card_overrides())]
        if not wanted:
            continue
        try:
            bundle = load_bundle(
                view.bundle, registry, foundation=foundation, checkpoint=checkpoint, device=pick_device(device)
            )
            found = []
            for data, part, card in wanted:
                with progress_bar(f"{run.name}, {data.name}", "image") as bar:
                    found.append(
                        examine_bundle(
                            bundle,
                            data,
                            part,
                            registry,
                            images=images,
                            overrides=card,
                            progress=partial(move_bar, bar),
                        )
                    )
            views[place] = open_run(run, tuple(found))
        except SimMATError as error:
            if sets or not view.examinations:
                raise
            say(f"note: {run}: shown without pictures, as its network cannot be run here: {error}", err=True)
    say(f"wrote {write_page(page, views)}")
