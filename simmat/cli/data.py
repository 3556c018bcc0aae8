"""`simmat data`: the group for the commands of plugins on data sets."""

from __future__ import annotations

import click

from simmat.cli import Group


@click.group(cls=Group)
def command() -> None:
    """View, check or create a data set."""
