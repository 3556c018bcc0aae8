"""`simmat plugins`: what is installed, what it gives, what failed and why."""

from __future__ import annotations

from typing import Any

import click

from simmat.cli import Group
from simmat.cli.common import json_option, print_json, print_table
from simmat.cli.plugins_check import check
from simmat.cli.plugins_install import install, uninstall
from simmat.cli.plugins_new import command as new
from simmat.plugins import PluginReport, Registry, load_plugins
from simmat.terminal import say

_PLURAL = {
    "modality": "modalities",
    "foundation model": "foundation models",
    "foundation family": "foundation families",
    "transfer layer": "transfer layers",
    "tuner": "tuners",
    "command": "commands",
}


@click.group(cls=Group)
def command() -> None:
    """List plugins, install and check them, and start one of your own."""


for subcommand in (new, check, install, uninstall):
    command.add_command(subcommand)


@command.command("list")
@json_option
def list_plugins(as_json: bool) -> None:
    """List every plugin with its package, version, what it gives, and what failed and why."""
    registry = load_plugins()
    if as_json:
        print_json({"plugins": [_as_dict(report) for report in registry.reports], "conflicts": _conflicts(registry)})
        return
    print_table(
        ("PLUGIN", "PACKAGE", "VERSION", "STATE", "GIVES"),
        [(r.name, r.distribution, r.version, _state(r), _story(r)) for r in registry.reports],
    )
    for conflict in _conflicts(registry):
        owners = " and ".join(conflict["claimed_by"])
        say(f"\n{conflict['kind']} {conflict['name']!r} is claimed by {owners}: not usable until one is gone")


def _state(report: PluginReport) -> str:
    if report.error:
        return "failed"
    return "off" if report.off else "slow" if report.slow else "ok"


def _story(report: PluginReport) -> str:
    """Say what a plugin gives, or why it does not; and what made it slow."""
    if report.off:
        return "left out by SIMMAT_PLUGINS"
    lines = [report.error] if report.error else []
    lines += [f"{_PLURAL[kind]}: {', '.join(names)}" for kind, names in report.gives.items()]
    if report.slow:
        lines.append(f"took {report.seconds:.1f} s to load")
    if report.imports_torch:
        lines.append("imports torch when loaded, which makes every command slow; import it where it is used")
    return "\n".join(lines) or "nothing"


def _conflicts(registry: Registry) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "name": name, "claimed_by": list(owners)}
        for (kind, name), owners in registry.conflicts().items()
    ]


def _as_dict(report: PluginReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "package": report.distribution,
        "version": report.version,
        "state": _state(report),
        "gives": {_PLURAL[kind]: list(names) for kind, names in report.gives.items()},
        "error": report.error,
        "seconds": round(report.seconds, 3),
        "imports_torch": report.imports_torch,
    }
