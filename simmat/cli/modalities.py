"""`simmat modalities`: list and show sensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import channel_cells, json_option, load_registry, print_conflicts, print_json, print_table
from simmat.cli.options import config_options
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter, options_of
from simmat.sensors.options import ModalityOptions, describe_options, is_sensor_file, modality_parts
from simmat.terminal import say
from simmat.types import RGB_QUANTITY

if TYPE_CHECKING:
    from simmat.sensors.declaration import ChannelRule, Declaration


@click.group(cls=Group)
def command() -> None:
    """List and show sensors."""


@command.command("list")
@json_option
def list_modalities(as_json: bool) -> None:
    """List the installed sensors; join several with "+", as in rgb+thermal.

    The options of a sensor (--modality-option) describe its files: see `simmat modalities show NAME`.
    """
    registry = load_registry()
    adapters = [registry.modality(name) for name in registry.names("modality")]
    if as_json:
        print_json([_as_dict([adapter.name], adapter, registry) for adapter in adapters])
        return
    rows = []
    for adapter in adapters:
        options = ", ".join(name for name in adapter.Options.model_fields if name not in ModalityOptions.model_fields)
        description = adapter.description + (f"\noptions: {options}" if options else "")
        channels = str(len(adapter.channels) or "as in the file")
        rows.append((adapter.name, channels, registry.owner("modality", adapter.name), description))
    print_table(("NAME", "CHANNELS", "FROM", "DESCRIPTION"), rows)
    print_conflicts(registry, "modality")


@command.command("show")
@click.argument("name")
@config_options("modality_options")
@json_option
def show(name: str, modality_options: dict[str, Any] | None, as_json: bool) -> None:
    """Show files, channels and options of sensor NAME, with the given options.

    NAME may also be the path of a sensor.toml, or a composition such as rgb+thermal.
    """
    from simmat.sensors.declared import declarations_of

    registry = load_registry()
    adapter = registry.modality(name, modality_options)
    if as_json:
        print_json(_as_dict(modality_parts(name), adapter, registry))
        return
    say(f"{adapter.name}: {adapter.description}\n")
    sources = [(source.name, " ".join(source.extensions)) for source in adapter.sources]
    sources[0] = (f"{sources[0][0]} (reference grid)", sources[0][1])
    print_table(("SOURCE", "FILES"), sources)
    say()
    if adapter.channels:
        print_table(
            ("", "CHANNEL", "QUANTITY", "UNIT", "WAVELENGTH", "VALID RANGE"),
            [(str(index), *channel_cells(channel)) for index, channel in enumerate(adapter.channels)],
        )
    else:
        say("Channels: as many as the file has.")
    parts = adapter.sensors()
    options = [
        (f"{part.name}.{option}" if len(parts) > 1 else option, *cells)
        for part in parts
        for option, *cells in describe_options(part.Options)
    ]
    if options:
        say()
        print_table(("OPTION", "ALLOWED", "DEFAULT", "MEANING"), options)
    if declarations := declarations_of(adapter):
        say()
        print_declarations(declarations)


def print_declarations(declarations: Iterable[Declaration]) -> None:
    """Print a table of the channels of `sensor.toml` files: files, plane, scale, nodata, normalization."""
    rows = [_rule_row(declaration, rule) for declaration in declarations for rule in declaration.channel]
    print_table(("DESCRIBED", "FILES", "PLANE (FROM 0)", "VALUE", "NODATA", "NORMALIZATION"), rows)


def _rule_row(declaration: Declaration, rule: ChannelRule) -> tuple[str, ...]:
    source = next(source for source in declaration.source if source.name == declaration.source_of(rule))
    count = f" ({source.planes} planes)" if source.planes is not None else ""
    value = "stored" if rule.scale == 1 else f"stored * {rule.scale:.9g}"
    if rule.offset:
        value += f" {'-' if rule.offset < 0 else '+'} {abs(rule.offset):.9g}"
    return (
        rule.name,
        " ".join(source.files) + count,
        "the only one" if rule.index is None else str(rule.index),
        value,
        ", ".join(f"{number:g}" for number in rule.nodata) or "-",
        _normalization(rule),
    )


def _normalization(rule: ChannelRule) -> str:
    """Return the normalization of a channel as text: its kind and options, and the data its statistics come from."""
    if rule.quantity == RGB_QUANTITY:
        return "z-score by the foundation model's statistics"
    options = rule.normalize.model_dump(exclude={"kind"}, exclude_none=True)
    values = ", ".join(
        f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}" for key, value in options.items()
    )
    text = rule.normalize.kind + (f" ({values})" if values else "")
    if rule.normalize.kind not in ("z-score", "range"):
        return f"{text}, then z-score by the training split"
    return text if values else f"{text} by the training split"


def _as_dict(names: Sequence[str], adapter: ModalityAdapter, registry: Registry) -> dict[str, Any]:
    from simmat.sensors.declared import declarations_of

    return {
        "name": adapter.name,
        "description": adapter.description,
        "options": options_of(adapter),
        "options_schema": {part.name: part.Options.model_json_schema() for part in adapter.sensors()},
        "from": [name if is_sensor_file(name) else registry.owner("modality", name) for name in names],
        "sources": [{"name": s.name, "extensions": list(s.extensions)} for s in adapter.sources],
        "channels": [asdict(channel) for channel in adapter.channels],
        "described": [declaration.model_dump(mode="json") for declaration in declarations_of(adapter)],
    }
