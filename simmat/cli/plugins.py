"""`simmat plugins`: list, check, make, install and uninstall plugins."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import PATH, json_option, load_registry, print_json, print_table
from simmat.cli.plugins_install import install, uninstall
from simmat.errors import ConfigError
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import PluginReport, Registry
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.testing import Result
    from simmat.testing.subjects import Subject


_WORDS = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}


@click.command("check")
@click.argument("name")
@click.option("--full", is_flag=True, help="Run the slow checks, too: a spawned worker, large models.")
@click.option(
    "--source", multiple=True, metavar="NAME=FILE", help="A sample file, for a sensor that does not simulate its own."
)
@click.option("--image-size", type=click.IntRange(1), metavar="PX", help="Input side to try foundation models at.")
@json_option
def check(name: str, full: bool, source: Sequence[str], image_size: int | None, as_json: bool) -> int:
    """Check that NAME keeps the contract that SimMAT builds on, one line for each rule.

    NAME is a modality, a foundation model (also FAMILY/MODEL), or an installed package, with which all that it gives
    is checked. Ends with 1 where a rule is broken.
    """
    files = _files(source)
    registry = load_registry()

    from simmat.testing.subjects import find_subjects

    subjects = find_subjects(name, registry, full=full, files=files, image_size=image_size)
    found = [(subject, _run(subject, quiet=as_json)) for subject in subjects]
    count = {status: sum(r.status == status for _, results in found for r in results) for status in _WORDS}
    if as_json:
        print_json({"name": name, **count, "subjects": [_as_check(subject, results) for subject, results in found]})
    else:
        say(f"\n{count['ok']} ok, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


def _run(subject: Subject, *, quiet: bool) -> list[Result]:
    """Run the checks of one subject, and print a line as each is done."""
    if not quiet:
        say(f"\n{subject.kind} {subject.name}")
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="simmat-check-") as folder:
        running = subject.run(Path(folder))
        while (result := _next(running)) is not None:
            results.append(result)
            if not quiet:
                say(f"  {_WORDS[result.status]:<8} {result.check:<34} {result.why}".rstrip())
    if subject.note and not quiet:
        say(f"  note     {subject.note}")
    return results


def _next(running: Any) -> Result | None:
    """Take the next result; what a plugin prints meanwhile would spoil the json on standard output."""
    with redirect_stdout(sys.stderr):
        result: Result | None = next(running, None)
    return result


def _files(given: Sequence[str]) -> dict[str, Path]:
    files = {}
    for item in given:
        name, mark, path = item.partition("=")
        if not mark or not name or not path:
            raise ConfigError(f"--source takes NAME=FILE, got {item!r}")
        if name in files:
            raise ConfigError(f"--source {name} is given twice")
        if not Path(path).is_file():
            raise ConfigError(f"--source {name}: {path} is no file")
        files[name] = Path(path)
    return files


def _as_check(subject: Subject, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "kind": subject.kind,
        "name": subject.name,
        "checks": [
            {"check": r.check, "status": r.status, "rule": r.rule, "why": r.why, "seconds": round(r.seconds, 3)}
            for r in results
        ],
    }


@click.command("new", short_help="Start a package of your own for a sensor.")
@click.argument("name")
@click.option("--path", type=PATH, default=Path(), help="Folder to make it in; here by default.")
def new(name: str, path: Path) -> None:
    """Make the package simmat-plugin-NAME: a sensor of one plane, its README and its tests.

    It passes its own checks and tests at once; then make it read your sensor's files.
    """
    from simmat.plugins.scaffold import check_name, make_plugin

    check_name(name, load_plugins())
    made = make_plugin(name, path)
    say(f"made {made}:")
    for file in sorted(file for file in made.rglob("*") if file.is_file()):
        say(f"  {file.relative_to(made)}")
    there = shlex.quote(str(made) if made.is_absolute() else f"./{made}")
    say("Next:")
    say(f"  simmat plugins install --editable {there}")
    say(f"  simmat plugins check {made.name}")
    say(f"  pytest {there}")


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
