"""What the package brings: `simmat plugins check`, `simmat plugins new`, and the model `tiny`. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugin_specs import FoundationSpec
from simmat.plugins.hooks import hookimpl
from simmat_testing.commands import check, new
from simmat_testing.tiny import TINY


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return the commands."""
    return [check, new]


@hookimpl
def simmat_foundation_models() -> Iterable[FoundationSpec]:
    """Return the model for tests."""
    return [TINY]
