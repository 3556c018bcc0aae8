"""`simmat data`: the group of what plugins do with data sets."""

from __future__ import annotations

import click

from simmat.cli import Group


@click.group(cls=Group)
def command() -> None:
    """Look at a data set, check it, or make one."""
