"""`simmat plugins list`: what is installed, and why what is not usable is not. Plugins add more commands."""

from __future__ import annotations

from typing import Any

from simmat.cli import Group
from simmat.cli.options import json_option
from simmat.cli.tables import print_json, print_table
from simmat.plugins.kinds import plural
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import PluginReport
from simmat.terminal import echo

command = Group()


@command.command("list")
@json_option
def list_plugins(as_json: bool) -> None:
    """List all plugins with package and version, and what they provide or why they failed."""
    registry = load_plugins()
    conflicts = [
        {"kind": kind, "name": name, "claimed_by": list(owners)}
        for (kind, name), owners in registry.conflicts().items()
    ]
    if as_json:
        print_json(
            {
                "plugins": [_as_dict(report) for report in registry.reports],
                "conflicts": conflicts,
            }
        )
        return
    print_table(
        ("PLUGIN", "PACKAGE", "VERSION", "STATE", "GIVES"),
        [
            (r.name, r.distribution, r.version, _state(r), _gives(r))
            for r in registry.reports
        ],
    )
    for conflict in conflicts:
        owners = " and ".join(conflict["claimed_by"])
        echo(
            f"\n{conflict['kind']} {conflict['name']!r} is claimed by {owners}: not usable until one is uninstalled"
        )


def _state(report: PluginReport) -> str:
    if report.error:
        return "failed"
    if report.off:
        return "off"
    return "ok"


def _gives(report: PluginReport) -> str:
    """Return what a plugin provides, or why it provides nothing, and its other problems."""
    if report.off:
        return "left out by SIMMAT_PLUGINS"
    lines = []
    if report.error:
        lines.append(report.error)
    for kind, names in report.gives.items():
        lines.append(f"{plural(kind)}: {', '.join(names)}")
    return "\n".join(lines) or "nothing"


def _as_dict(report: PluginReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "package": report.distribution,
        "version": report.version,
        "state": _state(report),
        "gives": {plural(kind): list(names) for kind, names in report.gives.items()},
        "error": report.error,
    }
