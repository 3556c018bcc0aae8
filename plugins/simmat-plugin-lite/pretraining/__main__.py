"""The steps of pretraining that are not `simmat train`: `python -m pretraining start`, `views` and `freeze`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from simmat_plugin_lite.spec import WEIGHTS_FOLDER

from simmat.cli.options import PATH
from simmat.errors import SimMATError


@click.group(help=__doc__)
def group() -> None:
    """Hold the commands."""


@group.command()
@click.option("--out", type=PATH, required=True, help="Weight file to write.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Decides the random weights."
)
def start(out: Path, seed: int) -> None:
    """Write the weights to start from: ImageNet's in the encoder, random ones in neck and decoder."""
    from pretraining.start import write_start

    write_start(out, seed)


@group.command()
@click.option(
    "--data", type=PATH, required=True, help="Data set of photographs with instances."
)
@click.option("--out", type=PATH, required=True, help="Folder of the new data set.")
@click.option(
    "--count",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Views to train on.",
)
@click.option(
    "--size",
    type=click.IntRange(32),
    default=256,
    show_default=True,
    help="Shorter side in pixels.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Decides every view.",
)
def views(data: Path, out: Path, count: int, size: int, seed: int) -> None:
    """Write a data set of views of photographs, which `simmat train` reads like any other."""
    from pretraining.views import write_views

    write_views(data, out, count, size, seed)


@group.command()
@click.option("--run", type=PATH, required=True, help="Folder of the run.")
@click.option(
    "--start", type=PATH, required=True, help="Weight file the run started from."
)
@click.option(
    "--to",
    type=PATH,
    default=WEIGHTS_FOLDER,
    help="Folder of the weights; by default the package's.",
)
def freeze(run: Path, start: Path, to: Path) -> None:
    """Turn a run into the packaged weights."""
    from pretraining.freeze import freeze as write

    click.echo(json.dumps(write(run, start, to), indent=1))


def run(args: Sequence[str] | None = None) -> None:
    """Run a command and leave with its code; what can be put right ends in one line and code 2."""
    try:
        group.main(
            args=None if args is None else list(args), prog_name="python -m pretraining"
        )
    except (SimMATError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    run()
