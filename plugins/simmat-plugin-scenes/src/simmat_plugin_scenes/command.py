"""`simmat data simulate`: write a data set of synthetic scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simmat.cli.options import PATH, config_options, load_registry
from simmat.terminal import echo, progress_bar


@click.command("data simulate")
@config_options("modality", "modality_options", required=("modality",))
@click.option(
    "--out", required=True, type=PATH, metavar="DIR", help="A new or empty folder."
)
@click.option(
    "--scenes",
    type=click.Choice(["everyday", "wet-floor"]),
    default="everyday",
    show_default=True,
    help="Everyday: outdoors, and on a table. Wet floor: water and ice on tiles.",
)
@click.option(
    "--count",
    default=100,
    show_default=True,
    metavar="N",
    help="Number of samples, at least 3.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    metavar="N",
    help="The same seed gives the same files.",
)
@click.option(
    "--size",
    default=(256, 192),
    show_default=True,
    type=(int, int),
    metavar="W H",
    help="Size in pixels.",
)
@click.option(
    "--frames",
    default=1,
    show_default=True,
    metavar="N",
    help="Frames of each sample; its objects move.",
)
def command(
    modality: str,
    modality_options: dict[str, Any] | None,
    out: Path,
    scenes: str,
    count: int,
    seed: int,
    size: tuple[int, int],
    frames: int,
) -> None:
    """Write synthetic scenes as measured by one sensor, or by several on one pixel grid.

    The folder has images, 16-bit instance masks, manifest.csv with splits, and card.toml, ready for `simmat train`.
    With --frames, each sample is a video of a fixed camera, for `simmat follow`.
    Sample i is the same scene for every sensor and every --count.
    """
    from simmat_plugin_scenes.dataset import simulate_dataset

    adapter = load_registry().modality(modality, modality_options)
    with progress_bar("simulating", " scenes", total=count) as bar:
        simulate_dataset(
            adapter,
            out,
            count,
            seed,
            size_hw=size[::-1],
            scenes=scenes,
            frames=frames,
            progress=bar.update,
        )
    what = "samples" if frames == 1 else f"sequences of {frames} frames"
    echo(f"wrote {count} {what} of {adapter.name} to {out}")
