"""SimMAT in QGIS: a Processing algorithm and a map tool that run the command `simmat` of another environment."""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """Return the plugin; `iface` is None in qgis_process."""
    from .plugin import Plugin

    return Plugin(iface)
