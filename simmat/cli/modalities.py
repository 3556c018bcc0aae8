"""`simmat modalities`: list and show sensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import json_option, load_registry, print_json, print_table
from simmat.cli.options import config_options
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter, options_of
from simmat.sensors.names import is_sensor_file, modality_parts
from simmat.sensors.options import describe_options
from simmat.terminal import say
from simmat.types import RGB_QUANTITY, Channel

if TYPE_CHECKING:
    from simmat.sensors.declaration import ChannelRule, Declaration


_FIXED = ("z-score", "range")
"""Normalizations that need no z-score after them."""


def print_declarations(declarations: Iterable[Declaration]) -> None:
    """Print one line for each channel: its file and plane, how values come of stored numbers, what the network gets."""
    rows = [_row(declaration, rule) for declaration in declarations for rule in declaration.channel]
    print_table(("DESCRIBED", "FILES", "PLANE (FROM 0)", "VALUE", "NODATA", "NORMALIZATION"), rows)


def _row(declaration: Declaration, rule: ChannelRule) -> tuple[str, ...]:
    source = next(source for source in declaration.source if source.name == declaration.source_of(rule))
    count = f" ({source.planes} planes)" if source.planes is not None else ""
    return (
        rule.name,
        " ".join(source.files) + count,
        "the only one" if rule.index is None else str(rule.index),
        _value(rule),
        ", ".join(f"{number:g}" for number in rule.nodata) or "-",
        _normalization(rule),
    )


def _value(rule: ChannelRule) -> str:
    """Return how a value in the channel's unit comes of the stored number."""
    text = "stored" if rule.scale == 1 else f"stored * {rule.scale:.9g}"
    if rule.offset:
        text += f" {'-' if rule.offset < 0 else '+'} {abs(rule.offset):.9g}"
    return text


def _normalization(rule: ChannelRule) -> str:
    """Return the rule as the file writes it, its options in brackets, and where its statistics are from."""
    if rule.quantity == RGB_QUANTITY:
        return "z-score by the foundation model's statistics"
    options = rule.normalize.model_dump(exclude={"kind"}, exclude_none=True)
    values = ", ".join(
        f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}" for key, value in options.items()
    )
    text = rule.normalize.kind + (f" ({values})" if values else "")
    if rule.normalize.kind not in _FIXED:
        return f"{text}, then z-score by the training split"
    return text if values else f"{text} by the training split"


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
    from simmat.sensors.declared import declarations_of

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
