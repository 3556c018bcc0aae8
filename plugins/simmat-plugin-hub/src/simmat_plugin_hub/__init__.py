"""Share bundles: `simmat bundle`, galleries, and the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from simmat.plugin_specs import FunctionSpec
from simmat.plugins.hooks import hookimpl
from simmat_plugin_hub.commands import command

if TYPE_CHECKING:
    from simmat_plugin_hub.card import model_card
    from simmat_plugin_hub.gallery import open_gallery
    from simmat_plugin_hub.sharing import index_folder, pull_bundle, push_bundle

__all__ = ["index_folder", "model_card", "open_gallery", "pull_bundle", "push_bundle"]

_MODULES = {
    "index_folder": "sharing",
    "model_card": "card",
    "open_gallery": "gallery",
    "pull_bundle": "sharing",
    "push_bundle": "sharing",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is used: with torch, it would make `simmat --help` slow."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


@hookimpl
def simmat_bundle_sources() -> Iterable[FunctionSpec]:
    """Return the Hugging Face Hub and galleries."""
    return [
        FunctionSpec(
            "hf",
            "bundles on the Hugging Face Hub",
            "simmat_plugin_hub.hub:fetch_from_hub",
        ),
        FunctionSpec(
            "gallery",
            "bundles of a gallery",
            "simmat_plugin_hub.gallery:fetch_from_gallery",
        ),
    ]


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `bundle`."""
    return [command]
