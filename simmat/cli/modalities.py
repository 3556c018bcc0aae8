"""`simmat modalities`: list and show sensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from simmat.cli import Group
from simmat.cli.options import config_options, json_option, load_registry
from simmat.cli.tables import (
    channel_cells,
    print_json,
    print_sensor_definitions,
    print_table,
)
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter, options_of, sensor_definitions_of
from simmat.sensors.options import (
    ModalityOptions,
    describe_options,
    is_sensor_file,
    modality_parts,
)
from simmat.terminal import echo

command = Group()


@command.command("list")
@json_option
def list_modalities(as_json: bool) -> None:
    """List the installed sensors; join several with "+", as in rgb+thermal.

    The options of a sensor (--modality-option) describe its files: see `simmat modalities show NAME`.
    """
    registry = load_registry()
    adapters: list[ModalityAdapter] = registry.all("modality")
    if as_json:
        print_json(
            [_as_dict([adapter.name], adapter, registry) for adapter in adapters]
        )
        return
    rows = []
    for adapter in adapters:
        options = ", ".join(
            name
            for name in adapter.Options.model_fields
            if name not in ModalityOptions.model_fields
        )
        description = adapter.description + (f"\noptions: {options}" if options else "")
        channels = str(len(adapter.channels) or "as in the file")
        rows.append(
            (
                adapter.name,
                channels,
                registry.owner("modality", adapter.name),
                description,
            )
        )
    print_table(("NAME", "CHANNELS", "FROM", "DESCRIPTION"), rows)


@command.command("show")
@click.argument("name")
@config_options("modality_options")
@json_option
def show(name: str, modality_options: dict[str, Any] | None, as_json: bool) -> None:
    """Show files, channels and options of sensor NAME, with the given options.

    NAME may also be the path of a sensor.toml, or a composition such as rgb+thermal.
    """
    registry = load_registry()
    adapter = registry.modality(name, modality_options)
    if as_json:
        print_json(_as_dict(modality_parts(name), adapter, registry))
        return
    echo(f"{adapter.name}: {adapter.description}\n")
    sources = [(source.name, " ".join(source.extensions)) for source in adapter.sources]
    sources[0] = (f"{sources[0][0]} (reference grid)", sources[0][1])
    print_table(("SOURCE", "FILES"), sources)
    echo()
    if adapter.channels:
        print_table(
            ("", "CHANNEL", "QUANTITY", "UNIT", "WAVELENGTH", "VALID RANGE"),
            [
                (str(index), *channel_cells(channel))
                for index, channel in enumerate(adapter.channels)
            ],
        )
    else:
        echo("Channels: as many as the file has.")
    parts = adapter.sensors()
    options = []
    for part in parts:
        for option, *cells in describe_options(part.Options):
            options.append(
                (f"{part.name}.{option}" if len(parts) > 1 else option, *cells)
            )
    if options:
        echo()
        print_table(("OPTION", "ALLOWED", "DEFAULT", "MEANING"), options)
    definitions = sensor_definitions_of(adapter)
    if definitions:
        echo()
        print_sensor_definitions(definitions)


def _as_dict(
    names: Sequence[str], adapter: ModalityAdapter, registry: Registry
) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "description": adapter.description,
        "options": options_of(adapter),
        "options_schema": {
            part.name: part.Options.model_json_schema() for part in adapter.sensors()
        },
        "from": [
            name if is_sensor_file(name) else registry.owner("modality", name)
            for name in names
        ],
        "sources": [
            {"name": s.name, "extensions": list(s.extensions)} for s in adapter.sources
        ],
        "channels": [asdict(channel) for channel in adapter.channels],
        "sensor_definitions": [
            definition.model_dump(mode="json")
            for definition in sensor_definitions_of(adapter)
        ],
    }
