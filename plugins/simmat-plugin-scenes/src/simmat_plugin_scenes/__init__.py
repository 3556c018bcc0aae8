"""Synthetic scenes for SimMAT: `simmat data simulate`, and the light in a scene for the cameras of other plugins."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugins.hooks import hookimpl
from simmat_plugin_scenes.command import command
from simmat_plugin_scenes.scene import Light, Material, Scene, Surface

__all__ = ["Light", "Material", "Scene", "Surface", "simmat_commands"]


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `data simulate`."""
    return [command]
