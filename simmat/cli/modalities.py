"""`simmat modalities`: which sensors there are, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import json_option, load_registry, print_json, print_table
from simmat.cli.described import print_declarations
from simmat.cli.options import config_options
from simmat.modality import ModalityAdapter, options_of
from simmat.modality_options import describe_options
from simmat.plugins import Registry
from simmat.sensor_names import is_sensor_file, modality_parts
from simmat.terminal import say
from simmat.types import Channel

if TYPE_CHECKING:
    from simmat.declared import Declaration


@click.group(cls=Group)
def command() -> None:
    """List the sensors that can be used, and show one."""


@command.command("list")
@json_option
def list_modalities(as_json: bool) -> None:
    """List the installed sensors; join several by "+", as in rgb+thermal.

    A sensor's options (--modality-option) say what its files hold: see `simmat modalities show NAME`.
    """
    registry = load_registry()
    adapters = [registry.modality(name) for name in registry.modality_names]
    if as_json:
        print_json([_as_dict([adapter.name], adapter, registry) for adapter in adapters])
        return
    print_table(
        ("NAME", "CHANNELS", "FROM", "WHAT IT IS"),
        [
            (
                a.name,
                str(len(a.channels) or "as in the file"),
                registry.owner("modality", a.name),
                a.description + _options_line(a),
            )
            for a in adapters
        ],
    )
    print_conflicts(registry, "modality")


@command.command("show")
@click.argument("name")
@config_options("modality_options")
@json_option
def show(name: str, modality_options: dict[str, Any] | None, as_json: bool) -> None:
    """Show files, channels and options of sensor NAME (or of a sensor.toml, or a composition such as rgb+thermal).

    What files and channels are with other options, --modality-option shows.
    """
    registry = load_registry()
    adapter = registry.modality(name, modality_options)
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
    if rows := list(_option_rows(adapter)):
        say()
        print_table(("OPTION", "ALLOWED", "DEFAULT", "WHAT IT SAYS"), rows)
    if declarations := _declarations(adapter):
        say()
        print_declarations(declarations)


def print_conflicts(registry: Registry, kind: str) -> None:
    """Name on standard error the names of a kind that two packages claim."""
    for (its_kind, name), owners in registry.conflicts().items():
        if its_kind == kind:
            say(f"warning: {kind} {name!r} is claimed by {' and '.join(owners)}: not usable", err=True)


def _options_line(adapter: ModalityAdapter) -> str:
    names = ", ".join(adapter.Options.model_fields)
    return f"\noptions: {names}" if names else ""


def _option_rows(adapter: ModalityAdapter) -> Iterator[tuple[str, str, str, str]]:
    """Yield each option as `--modality-option` takes it; of a composition with the sensor before it."""
    parts = adapter.sensors()
    for part in parts:
        for name, *rest in describe_options(part.Options):
            allowed, default, words = rest
            yield (f"{part.name}.{name}" if len(parts) > 1 else name), allowed, default, words


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
        "options": options_of(adapter),
        "options_schema": {part.name: part.Options.model_json_schema() for part in adapter.sensors()},
        "from": [_origin(part, registry) for part in asked],
        "sources": [{"name": s.name, "extensions": list(s.extensions)} for s in adapter.sources],
        "channels": [asdict(channel) for channel in adapter.channels],
        "described": [declaration.model_dump(mode="json") for declaration in _declarations(adapter)],
    }
