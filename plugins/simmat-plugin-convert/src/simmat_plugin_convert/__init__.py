"""Labels from and to COCO, LabelMe, YOLO, CVAT, Label Studio and mask folders: `simmat data convert`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat.plugins.hooks import hookimpl
from simmat_plugin_convert.command import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `data convert`."""
    return [command]
