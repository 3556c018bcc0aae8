"""`simmat plugins new`: start a sensor plugin."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from simmat.cli.common import PATH
from simmat.plugins import load_plugins
from simmat.terminal import say


@click.command("new", short_help="Start a package of your own for a sensor.")
@click.argument("name")
@click.option("--path", type=PATH, default=Path(), help="Folder to make it in; here by default.")
def command(name: str, path: Path) -> None:
    """Make the package simmat-plugin-NAME: a sensor of one plane, its README and its tests.

    It passes its own checks and tests at once; then make it read your sensor's files.
    """
    from simmat.scaffold import check_name, make_plugin

    check_name(name, load_plugins())
    made = make_plugin(name, path)
    say(f"made {made}:")
    for file in sorted(file for file in made.rglob("*") if file.is_file()):
        say(f"  {file.relative_to(made)}")
    there = shlex.quote(str(made) if made.is_absolute() else f"./{made}")
    say("Next:")
    say(f"  simmat plugins install --editable {there}")
    say(f"  simmat plugins check {made.name}")
    say(f"  pytest {there}")
