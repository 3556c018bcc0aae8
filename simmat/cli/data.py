"""`simmat data`: look at a data set and check it before hours of training depend on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import PATH, json_option, load_registry, print_json, progress_bar
from simmat.cli.options import data_options, sensor_options
from simmat.errors import ConfigError
from simmat.io.files import atomic_path, staged_files
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.data.card import DataCard


@click.group(cls=Group)
def command() -> None:
    """Look at a data set, check it, or make one."""


@command.command("check")
@click.argument("data", metavar="DIR", type=PATH)
@sensor_options
@data_options
@click.option("--write-card", is_flag=True, help="Save these options in the data set's card.toml.")
@click.option("--quick", is_flag=True, help="Leave out near-duplicates and misaligned masks, which take longest.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    /,
    data: Path,
    modality: str,
    modality_options: dict[str, Any] | None,
    channels: tuple[str | int, ...] | None,
    write_card: bool,
    quick: bool,
    as_json: bool,
    **card: Any,
) -> None:
    """Read every file of the data set in DIR, and report its content and its problems, by severity.

    It also finds images of different splits that nearly show the same, masks that do not fit their images, images
    without an object and rare classes. The exit code is 2 if a problem would stop training or scoring.
    """
    from simmat.data.checks import check_dataset
    from simmat.data.dataset import open_dataset

    adapter = load_registry().modality(modality, modality_options, channels=channels)
    dataset = open_dataset(data, adapter, card)
    with progress_bar("reading", " samples", total=len(dataset.samples) * (1 if quick else 2)) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        report = check_dataset(dataset, advance, second_look=not quick)
    if as_json:
        print_json(report.to_dict())
    else:
        say(report.text())
    if write_card:
        say(_write_card(dataset.root, dataset.card), err=True)
    if report.problems:
        ctx.exit(2)


@command.command("stats")
@click.argument("data", metavar="DIR", type=PATH)
@sensor_options
@data_options
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only images of one split.")
@click.option("--bins", default=40, show_default=True, type=click.IntRange(1, 10_000), metavar="N")
@click.option("--transformed", is_flag=True, help="What the network gets (log, dB, sin and cos), not physical values.")
@json_option
@click.pass_context
def stats(
    ctx: click.Context,
    /,
    data: Path,
    modality: str,
    modality_options: dict[str, Any] | None,
    channels: tuple[str | int, ...] | None,
    split: str | None,
    bins: int,
    transformed: bool,
    as_json: bool,
    **card: Any,
) -> None:
    """Describe the values of each channel of DIR: missing, mean, std, percentiles and a histogram, in its unit.

    DIR is a data set, or a folder of images without labels. The exit code is 2 if an image cannot be read.
    """
    from simmat.data.channel_stats import channel_stats
    from simmat.data.dataset import open_images

    adapter = load_registry().modality(modality, modality_options, channels=channels)
    dataset = open_images(data, adapter, card)
    samples = dataset.split(split) if split else (*dataset.samples, *dataset.unlabelled)
    with progress_bar("reading", " images", total=len(samples)) as bar:

        def advance(done: int) -> None:
            bar.update(done)

        report = channel_stats(dataset, samples, bins=bins, transformed=transformed, progress=advance)
    if as_json:
        print_json(report.to_dict())
    else:
        say(report.text())
    for name, fault in report.faults.items():
        say(f"warning: {name} is left out: {fault}", err=True)
    if report.faults:
        ctx.exit(2)


@command.command("preview")
@click.argument("data", metavar="DIR", type=PATH)
@sensor_options
@data_options
@click.option(
    "--out", required=True, type=PATH, metavar="FILE.png", help="Several sheets are FILE-1.png, FILE-2.png, …"
)
@click.option("--count", default=24, show_default=True, type=click.IntRange(1), metavar="N", help="Images to show.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only images of one split.")
@click.option("--per-sheet", default=24, show_default=True, type=click.IntRange(1, 200), metavar="N")
@click.option(
    "--cell", default=240, show_default=True, type=click.IntRange(64, 2048), metavar="PX", help="Width of a picture."
)
@click.option("--labels/--no-labels", default=True, help="Draw the regions over the pictures.  [default: labels]")
@click.option("--same-scale", is_flag=True, help="One scale for all images of a sheet, so that colours compare.")
def preview(
    data: Path,
    modality: str,
    modality_options: dict[str, Any] | None,
    channels: tuple[str | int, ...] | None,
    out: Path,
    count: int,
    split: str | None,
    per_sheet: int,
    cell: int,
    labels: bool,
    same_scale: bool,
    **card: Any,
) -> None:
    """Draw sheets of images of DIR, with colours, unit and scale of each quantity and the labels over them.

    DIR is a data set, or a folder of images without labels. The images are spread evenly over the set.
    """
    from simmat.data.dataset import open_images
    from simmat.report.curves import picture_kind
    from simmat.report.preview import preview_sheets

    if picture_kind(out, "sheets") != "png":
        raise ConfigError(f"sheets are pictures of pixels, got --out {out.name!r}; end the name in .png")
    adapter = load_registry().modality(modality, modality_options, channels=channels)
    dataset = open_images(data, adapter, card)
    samples = dataset.split(split) if split else (*dataset.samples, *dataset.unlabelled)
    shown = [samples[index * len(samples) // min(count, len(samples))] for index in range(min(count, len(samples)))]
    several = len(shown) > per_sheet
    problems: list[tuple[str, str]] = []
    with progress_bar("reading", " images", total=len(shown)) as bar, staged_files(out.parent) as folder:

        def advance(done: int) -> None:
            bar.update(done)

        sheets = preview_sheets(
            dataset,
            shown,
            per_sheet=per_sheet,
            cell_px=cell,
            labels=labels,
            same_scale=same_scale,
            problems=problems,
            progress=advance,
        )
        names = []
        for number, sheet in enumerate(sheets, start=1):
            names.append(f"{out.stem}-{number}.png" if several else out.name)
            sheet.save(folder / names[-1])
    for name, problem in problems:
        say(f"warning: {name} is not shown: {problem}", err=True)
    for name in names:
        say(f"wrote {out.parent / name}")


def _write_card(root: Path, card: DataCard) -> str:
    """Write a card that says anything new; the former one, which may hold comments, is kept as card.toml.old."""
    from simmat.data.card import CARD_FILE, load_card, write_card

    path = root / CARD_FILE
    if not path.exists():
        return f"wrote {write_card(root, card)}"
    try:
        former = load_card(root, {})
    except ConfigError:
        former = None
    if former == card:
        return f"{path} is up to date"
    with atomic_path(root / f"{CARD_FILE}.old") as kept:
        shutil.copyfile(path, kept)
    return f"wrote {write_card(root, card)}; the former one is {path.name}.old"
