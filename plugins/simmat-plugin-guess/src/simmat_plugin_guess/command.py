"""`simmat modalities guess`: print which installed sensor reads the files of a folder, with the evidence."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import click

from simmat.cli.options import PATH, json_option, load_registry
from simmat.cli.tables import print_json
from simmat.errors import few_of
from simmat.terminal import echo

if TYPE_CHECKING:
    from simmat_plugin_guess.band_files import BandFiles
    from simmat_plugin_guess.guess import GroupGuess


@click.command("modalities guess")
@click.argument("folder", type=PATH)
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Say which installed sensor reads the files of FOLDER, with which options, and what the files cannot tell.

    Without a sensor that recognizes the files, a draft of a sensor.toml is printed too.
    """
    from simmat_plugin_guess.guess import guess_folder

    found = guess_folder(folder, load_registry().all("modality"))
    if as_json:
        print_json(found.as_json())
        return
    echo(f"{found.folder}\n")
    for bands in found.bands:
        _print_bands(bands)
    for group in found.groups:
        _print_group(group)
    if found.composition:
        names = "+".join(one.modality for one in found.composition)
        options = "".join(one.arguments for one in found.composition)
        echo(
            f"Together: --modality {names}{options}, as the subfolders are named; name first the sensor whose pixel "
            "grid you label. If the images do not lie on one pixel grid, run `simmat align` first."
        )
    elif len(found.groups) > 1:
        echo("These are files of different kinds; put each kind into its own folder.")
    for note in found.notes:
        echo(f"Note: {note}.")
    if found.unreadable:
        count = len(found.unreadable)
        echo(f"Files that cannot be read: {count}; the first: {found.unreadable[0]}")


def _print_bands(bands: BandFiles) -> None:
    """Print the sensor that files per band are, with the evidence and what comes next."""
    echo(
        f"A file for each band: {len(bands.bands)} bands are one sensor, as this sensor.toml describes it"
    )
    for reason in bands.evidence():
        echo(f"  evidence: {reason}")
    echo(f"\n{indent(bands.draft(), '    ')}")
    echo(
        "If the bands do not lie on one pixel grid, put the files into DIR/images and run `simmat align DIR --modality "
        "./sensor.toml`.\n\nEach file by itself:\n"
    )


def _print_group(group: GroupGuess) -> None:
    """Print the sensor of files of one kind, with its evidence and what to ask."""
    best = group.best
    reasons = list(group.evidence)
    if best is None:
        echo("No installed sensor reads these files.")
    else:
        certainty = best.recognition.certainty
        echo(f"--modality {best.modality}{best.arguments}  ({certainty})")
        units = [f"{one.name} [{one.unit}]" for one in best.channels]
        echo(f"  channels: {few_of(units, 4)}")
        echo(f"  unit: {best.unit_evidence}")
        reasons = [*best.recognition.evidence, *reasons]
    for reason in reasons:
        echo(f"  evidence: {reason}")
    for question in group.questions:
        echo(f"  please answer: {question}")
    others = ", ".join(one.modality for one in group.candidates[1:])
    if others:
        echo(f"  these read the files too: {others}")
    if group.draft:
        echo("  a sensor.toml to start from:\n")
        echo(indent(group.draft, "    "))
    echo()
