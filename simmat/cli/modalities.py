"""`simmat modalities`: which sensors there are, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import json_option, load_registry, print_json, print_table
from simmat.cli.described import print_declarations
from simmat.modality import ModalityAdapter
from simmat.plugins import Registry
from simmat.sensor_names import is_sensor_file, modality_parts
from simmat.terminal import say
from simmat.types import Channel

if TYPE_CHECKING:
    from simmat.declared import Declaration

_MOST = 6  # variants named on a sensor's line


@click.group(cls=Group)
def command() -> None:
    """List the sensors that can be used, and show one."""


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="Give every variant of a sensor a line of its own.")
@json_option
def list_modalities(everything: bool, as_json: bool) -> None:
    """List the installed sensors; join several by "+", as in rgb+thermal.

    Variants of a sensor, for files in another unit or encoding, stand on its line.
    """
    registry = load_registry()
    adapters = [registry.modality(name) for name in registry.modality_names]
    if as_json:
        print_json([_as_dict([adapter.name], adapter, registry) for adapter in adapters])
        return
    variants = {} if everything else _variants(adapters)
    hidden = {name for names in variants.values() for name in names}
    print_table(
        ("NAME", "CHANNELS", "FROM", "WHAT IT IS"),
        [
            (
                a.name,
                str(len(a.channels) or "as in the file"),
                registry.owner("modality", a.name),
                a.description + _also(variants.get(a.name, ())),
            )
            for a in adapters
            if a.name not in hidden
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
    say(f"{adapter.name}: {adapter.description}\n")
    print_table(
        ("SOURCE", "FILES"),
        [
            (source.name + (" (reference grid)" if index == 0 else ""), " ".join(source.extensions))
            for index, source in enumerate(adapter.sources)
        ],
    )
    say()
    if adapter.channels:
        print_table(
            ("", "CHANNEL", "QUANTITY", "UNIT", "WAVELENGTH", "VALID RANGE"),
            [(str(index), *_channel_row(channel)) for index, channel in enumerate(adapter.channels)],
        )
    else:
        say("Channels: as many as the file has.")
    if declarations := _declarations(adapter):
        say()
        print_declarations(declarations)
    others = [registry.modality(other) for other in registry.modality_names]
    if names := _variants(others).get(adapter.name):
        say()
        print_table(
            ("VARIANT", "WHAT IT IS"), [(other.name, other.description) for other in others if other.name in names]
        )


def print_conflicts(registry: Registry, kind: str) -> None:
    """Name on standard error the names of a kind that two packages claim."""
    for (its_kind, name), owners in registry.conflicts().items():
        if its_kind == kind:
            say(f"warning: {kind} {name!r} is claimed by {' and '.join(owners)}: not usable", err=True)


def _variants(adapters: Sequence[ModalityAdapter]) -> dict[str, list[str]]:
    """Return sensor -> the names of its variants, of the sensors that are there."""
    found: dict[str, list[str]] = {adapter.name: [] for adapter in adapters if not adapter.variant_of}
    for adapter in adapters:
        if adapter.variant_of in found:
            found[adapter.variant_of].append(adapter.name)
    return found


def _also(names: Sequence[str]) -> str:
    """Return the line that names a sensor's variants, the first few of many."""
    if not names:
        return ""
    more = f" and {len(names) - _MOST} more: --all" if len(names) > _MOST else ""
    return f"\nalso {', '.join(names[:_MOST])}{more}"


def _declarations(adapter: ModalityAdapter) -> tuple[Declaration, ...]:
    """Return what describes the parts of a sensor that a `sensor.toml` describes."""
    from simmat.declared import declarations_of

    return declarations_of(adapter)


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
        "variant_of": adapter.variant_of or None,
        "from": [_origin(part, registry) for part in asked],
        "sources": [{"name": s.name, "extensions": list(s.extensions)} for s in adapter.sources],
        "channels": [asdict(channel) for channel in adapter.channels],
        "described": [declaration.model_dump(mode="json") for declaration in _declarations(adapter)],
    }
