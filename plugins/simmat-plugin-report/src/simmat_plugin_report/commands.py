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


@click.command("report")
@click.argument("runs", metavar="RUN...", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, help="The page.  [default: report.html in RUN; of several runs, compare.html here]")
@click.option("--data", type=PATH, metavar="DIR", help="Score on this data set.")
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

    The page is self-contained: scores besides zero-shot, curves, predictions, output of the transfer layer, importance
    of channels, problems of the data, settings, and how to use the bundle.

    Training writes the same page into RUN at its end, and this takes what training found. The network runs only where
    --data asks for scores on other images, or where training did not come to its end: each of --images is encoded
    twice (with a dense head three times), 6 images for pictures and at most 64 with channels withheld. Of a run that is
    still training it shows the best bundle so far.
    """
    from simmat.bundle import load_bundle
    from simmat.nn.device import pick_device
    from simmat_plugin_report.analysis import analyse_bundle
    from simmat_plugin_report.compare_page import write_page
    from simmat_plugin_report.documents import open_run

    if split is not None and data is None:
        raise ConfigError(f"--split {split} is for --data DIR; give both, or neither")
    page = out if out is not None else (runs[0] / "report.html" if len(runs) == 1 else Path("compare.html"))
    if page.is_dir():
        raise OutputError(f"{page} is a folder; give the name of a file in it")
    views = [open_run(run) for run in runs]
    check_writable(page.absolute().parent)
    registry = load_registry()
    for place, (run, view) in enumerate(zip(runs, views, strict=True)):
        if data is None and view.is_complete:
            continue
        folder, part, card = (data, split, {}) if data else (view.config.data, "val", view.config.card_overrides())
        try:
            bundle = load_bundle(
                view.bundle, registry, foundation=foundation, checkpoint=checkpoint, device=pick_device(device)
            )
            with progress_bar(f"{run.name}, {folder.name}", "image") as bar:
                advance = partial(move_bar, bar)
                found = analyse_bundle(bundle, folder, part, registry, images=images, overrides=card, progress=advance)
            views[place] = open_run(run, found)
        except SimMATError as error:
            if data is not None or view.analysis is None:
                raise
            say(f"note: {run}: shown without pictures, as its network cannot be run here: {error}", err=True)
    say(f"wrote {write_page(page, views)}")
