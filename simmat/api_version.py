"""The version of the plugin interface, which every item that a plugin gives may state."""

from __future__ import annotations

from simmat import __version__

API_VERSION = 2
"""What this SimMAT speaks. It goes up where a plugin that worked would no longer do so."""


def api_problem(stated: object) -> str:
    """Say what is wrong with the version an item states; "" where nothing is."""
    if stated == API_VERSION:
        return ""
    newer = isinstance(stated, int) and stated > API_VERSION
    return f"is written for plugin API {stated!r}, SimMAT {__version__} speaks {API_VERSION}; " + (
        "upgrade simmat" if newer else "upgrade the plugin"
    )
