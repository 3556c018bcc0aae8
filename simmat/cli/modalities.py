"""`simmat modalities`: which sensors there are, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from simmat.cli import Group
from simmat.cli.common import json_option, load_registry, print_json, print_table
from simmat.modality import ModalityAdapter
from simmat.plugins import Registry
from simmat.sensor_names import is_sensor_file, modality_parts
from simmat.types import Channel


@click.group(cls=Group)
def command() -> None:
    """List the sensors that can be used, and show one."""


@command.command("list")
@json_option
def list_modalities(as_json: bool) -> None:
    """List the installed sensors; join several by "+", as in rgb+thermal."""
    registry = load_registry()
    adapters = [registry.modality(name) for name in registry.modality_names]
    if as_json:
        print_json([_as_dict([adapter.name], adapter, registry) for adapter in adapters])
        return
    print_table(
        ("NAME", "CHANNELS", "FROM", "WHAT IT IS"),
        [
            (a.name, str(len(a.channels) or "as in the file"), registry.owner("modality", a.name), a.description)
            for a in adapters
        ],
    )
    print_conflicts(registry, "modality")


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the channels and files of sensor NAME (or of a sensor.toml, or a composition such as rgb+thermal)."""
    registry = load_registry()
    adapter = registry.modality(name)
    if as_json:
        print_json(_as_dict(modality_parts(name), adapter, registry))
        return
    click.echo(f"{adapter.name}: {adapter.description}\n")
    print_table(
        ("SOURCE", "FILES"),
        [
            (source.name + (" (reference grid)" if index == 0 else ""), " ".join(source.extensions))
            for index, source in enumerate(adapter.sources)
        ],
    )
    click.echo()
    if not adapter.channels:
        click.echo("Channels: as many as the file has.")
        return
    print_table(
        ("", "CHANNEL", "QUANTITY", "UNIT", "WAVELENGTH", "VALID RANGE"),
        [(str(index), *_channel_row(channel)) for index, channel in enumerate(adapter.channels)],
    )


def print_conflicts(registry: Registry, kind: str) -> None:
    """Name on standard error the names of a kind that two packages claim."""
    for (its_kind, name), owners in registry.conflicts().items():
        if its_kind == kind:
            click.echo(f"warning: {kind} {name!r} is claimed by {' and '.join(owners)}: not usable", err=True)


def _channel_row(channel: Channel) -> tuple[str, str, str, str, str]:
    wavelength = f"{channel.wavelength_um:g} um" if channel.wavelength_um is not None else "-"
    valid = "{:g} to {:g}".format(*channel.valid_range) if channel.valid_range is not None else "any"
    return channel.name, channel.quantity, channel.unit, wavelength, valid


def _origin(part: str, registry: Registry) -> str:
    """Return the package that brings a sensor, or the file that describes it."""
    return part if is_sensor_file(part) else registry.owner("modality", part)


def _as_dict(asked: Sequence[str], adapter: ModalityAdapter, registry: Registry) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "description": adapter.description,
        "from": [_origin(part, registry) for part in asked],
        "sources": [{"name": s.name, "extensions": list(s.extensions)} for s in adapter.sources],
        "channels": [channel.to_dict() for channel in adapter.channels],
    }
