"""`simmat plugins`: list, check, create, install and uninstall plugins."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import PATH, json_option, load_registry, print_json, print_table
from simmat.cli.options import source_option
from simmat.errors import ConfigError, did_you_mean, few_of
from simmat.plugins.hooks import PROJECT
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import PLUGIN_PREFIX, PluginReport, plural
from simmat.plugins.scaffold import KINDS, check_name, make_plugin
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.testing import Result
    from simmat.testing.find_parts import Subject

_STATUS = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}


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
        print_json({"plugins": [_as_dict(report) for report in registry.reports], "conflicts": conflicts})
        return
    print_table(
        ("PLUGIN", "PACKAGE", "VERSION", "STATE", "GIVES"),
        [(r.name, r.distribution, r.version, _state(r), _gives(r)) for r in registry.reports],
    )
    for conflict in conflicts:
        owners = " and ".join(conflict["claimed_by"])
        say(f"\n{conflict['kind']} {conflict['name']!r} is claimed by {owners}: not usable until one is uninstalled")


def _state(report: PluginReport) -> str:
    if report.error:
        return "failed"
    return "off" if report.off else "ok"


def _gives(report: PluginReport) -> str:
    """Return what a plugin provides, or why it provides nothing, and its other problems."""
    if report.off:
        return "left out by SIMMAT_PLUGINS"
    lines = [report.error] if report.error else []
    lines += [f"{plural(kind)}: {', '.join(names)}" for kind, names in report.gives.items()]
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


@command.command("check")
@click.argument("name")
@click.option("--full", is_flag=True, help="Check large foundation models with values too.")
@source_option("A sample file, for a sensor that cannot simulate one.")
@click.option("--image-size", type=click.IntRange(1), metavar="PX", help="Input side to check foundation models at.")
@json_option
def check(name: str, full: bool, source: Mapping[str, Path], image_size: int | None, as_json: bool) -> int:
    """Check NAME against SimMAT's rules for plugins, and print one line per rule.

    NAME is a modality, a foundation model (also FAMILY/MODEL), or an installed package, to check everything in it. The
    exit code is 1 if a rule is broken.
    """
    for source_name, file in source.items():
        if not file.is_file():
            raise ConfigError(f"--source {source_name}: {file} is not a file")
    registry = load_registry()

    from simmat.testing.find_parts import find_checkable

    subjects = find_checkable(name, registry, full=full, files=source, image_size=image_size)
    found = [(subject, _run(subject, quiet=as_json)) for subject in subjects]
    count = {status: sum(r.status == status for _, results in found for r in results) for status in _STATUS}
    if as_json:
        checks = [
            {"kind": kind, "name": part, "checks": [_result_dict(result) for result in results]}
            for (kind, part, _), results in found
        ]
        print_json({"name": name, **count, "subjects": checks})
    else:
        say(f"\n{count['ok']} ok, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


def _run(subject: Subject, *, quiet: bool) -> list[Result]:
    """Run the checks of one subject, and print a line after each."""
    kind, name, run_in = subject
    if not quiet:
        say(f"\n{kind} {name}")
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="simmat-check-") as folder:
        running = run_in(Path(folder))
        while True:
            with redirect_stdout(sys.stderr):  # the plugin's own output must not mix with the json
                result = next(running, None)
            if result is None:
                return results
            results.append(result)
            if not quiet:
                say(f"  {_STATUS[result.status]:<8} {result.check:<34} {result.why}".rstrip())


def _result_dict(result: Result) -> dict[str, Any]:
    stated = {name: getattr(result, name) for name in ("check", "status", "rule", "why")}
    return {**stated, "seconds": round(result.seconds, 3)}


@command.command("new", short_help="Create a package for a new sensor, model or command.")
@click.argument("name")
@click.option(
    "--kind",
    default="sensor",
    show_default=True,
    type=click.Choice(list(KINDS)),
    help="What it brings: a sensor, foundation model, transfer layer, tuner or command.",
)
@click.option("--path", type=PATH, default=Path(), help="Folder to create it in; by default the current folder.")
def new(name: str, kind: str, path: Path) -> None:
    """Create the package simmat-plugin-NAME: a short working example, a README and tests.

    It passes all checks and tests as it is; change it to read the files of your sensor, or to build your network.
    """
    check_name(name, load_plugins(), kind)
    plugin = make_plugin(name, path, kind)
    say(f"created {plugin}:")
    for file in sorted(file for file in plugin.rglob("*") if file.is_file()):
        say(f"  {file.relative_to(plugin)}")
    folder = shlex.quote(str(plugin) if plugin.is_absolute() else f"./{plugin}")
    say("Next:")
    say(f"  simmat plugins install --editable {folder}")
    say(f"  simmat plugins check {plugin.name}")
    say(f"  pytest {folder}")


@command.command(
    "install",
    short_help="Install plugins with pip: by name, path or package.",
    context_settings={"allow_interspersed_args": False},  # everything after the first plugin is an argument, -- too
)
@click.argument("plugins", metavar="PLUGIN... [-- PIP OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.option("--editable", "-e", metavar="FOLDER", multiple=True, help="Install a folder; changes in it work at once.")
def install(plugins: tuple[str, ...], editable: tuple[str, ...]) -> int:
    """Install plugins into the environment of this command, with its pip, and list what is there then.

    A PLUGIN is a name such as thermal, for the package simmat-plugin-thermal; all else goes to pip as it is, such as
    acme-sonar==1.2 or a wheel. Options after -- go to pip, as in `simmat plugins install thermal -- --upgrade`.
    """
    end = plugins.index("--") if "--" in plugins else len(plugins)
    if options := [plugin for plugin in plugins[:end] if plugin.startswith("-")]:
        raise ConfigError(f"expected a plugin, got {options[0]!r}; options of pip go after --")
    folders = (part for folder in editable for part in ("--editable", folder))
    code = _pip("install", *folders, *map(package_of, plugins[:end]), *plugins[end + 1 :])
    # A new process sees what pip has changed.
    return code or subprocess.run([sys.executable, "-P", "-m", "simmat", "plugins", "list"], check=False).returncode


def package_of(name: str) -> str:
    """Return the package of a plugin's plain name, so that a typing error installs nothing else; all else as it is."""
    plain = re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*(\[.*\])?", name) and not name.startswith("simmat-")
    return PLUGIN_PREFIX + name if plain else name


@command.command("uninstall", short_help="Uninstall a plugin.")
@click.argument("plugin", metavar="NAME|PACKAGE")
def uninstall(plugin: str) -> int:
    """Uninstall a plugin, given its name, its package or the name of something it provides."""
    reports = [report for report in load_plugins().reports if report.version and report.distribution != PROJECT]
    for report in reports:
        known = {report.name, report.distribution, *(name for names in report.gives.values() for name in names)}
        if plugin in known or package_of(plugin) in known:
            return _pip("uninstall", "--yes", report.distribution)
    names = [report.name for report in reports]
    raise ConfigError(f"no plugin {plugin!r} is installed{did_you_mean(plugin, names)} Installed: {few_of(names, 99)}")


def _pip(*arguments: str) -> int:
    """Run the pip of this environment on the user's terminal, and return 0, or 1 if it failed."""
    if not any(importlib.metadata.distributions(name="pip")):  # finding its module turns off distutils
        python = shlex.quote(sys.executable)
        raise ConfigError(
            f"this environment has no pip; run `uv pip {shlex.join(arguments)} --python {python}`, or install pip with "
            f"`{python} -m ensurepip`"
        )
    line = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", *arguments]
    return int(subprocess.run(line, check=False).returncode != 0)
