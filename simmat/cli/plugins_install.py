"""`simmat plugins install` and `uninstall`: plugins into and out of the running environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simmat import installer
from simmat.errors import ConfigError
from simmat.plugins import load_plugins
from simmat.terminal import say


@click.command("install", short_help="Install a plugin: by name, path or package.")
@click.argument("plugin", metavar="NAME|PATH|PACKAGE")
@click.option("--editable", "-e", is_flag=True, help="Of a folder: changes in it take effect at once.")
@click.option("--as-it-is", is_flag=True, help="Give pip the name as it stands, whatever package has it.")
@click.pass_context
def install(ctx: click.Context, /, plugin: str, editable: bool, as_it_is: bool) -> None:
    """Install a plugin into the environment that runs this command, and show what it gives.

    A NAME such as thermal means the package simmat-plugin-thermal; a PATH is a folder with a pyproject.toml, or a
    wheel; a PACKAGE is a full name (simmat-plugin-thermal, acme-sonar==1.2). pip does it; where uv, pipx or the system
    keeps the environment, what to run instead is said.
    """
    requirement = installer.requirement_of(plugin, as_it_is=as_it_is)
    if editable and not Path(requirement).is_absolute():
        raise ConfigError(
            f"--editable takes a folder with a pyproject.toml, got {plugin!r}; write ./{plugin} for one here"
        )
    _refuse_kept(requirement, editable=editable)
    before = {_key(found) for found in installer.installed_plugins()}
    say(f"installing {requirement}", err=True)
    try:
        done = installer.install(requirement, editable=editable)
    except installer.InstallerError as error:
        _fail(ctx, str(error))
    names = {installer.canonical(item.split()[0]) for item in done} or {installer.name_in(requirement)}
    plugins = installer.installed_plugins()
    mine = [found for found in plugins if installer.canonical(found["package"]) in names]
    fresh = mine or [found for found in plugins if _key(found) not in before]
    if not done:
        say(f"{requirement} is already installed")
    if not fresh:
        _fail(ctx, f"{' '.join(done) or requirement} brings no plugin of SimMAT: it has no entry point of group simmat")
    for found in fresh:
        say(f"{found['package']} {found['version']}: plugin {found['name']!r}{_gives(found)}")
    if failed := [found for found in fresh if found["error"]]:
        _fail(ctx, "; ".join(f"plugin {found['name']!r} is installed but failed: {found['error']}" for found in failed))


@click.command("uninstall", short_help="Uninstall a plugin.")
@click.argument("plugin", metavar="NAME|PACKAGE")
@click.pass_context
def uninstall(ctx: click.Context, /, plugin: str) -> None:
    """Uninstall a plugin, by its name, its package or the name of something it gives."""
    reports = load_plugins().reports
    distribution = installer.distribution_of(plugin, reports)
    _refuse_kept(distribution, remove=True)
    try:
        installer.uninstall(distribution)
    except installer.InstallerError as error:
        _fail(ctx, str(error))
    if still := [found["name"] for found in installer.installed_plugins() if found["package"] == distribution]:
        _fail(ctx, f"pip removed {distribution}, but plugin {still[0]!r} is still found: another copy is on the path")
    say(f"uninstalled {distribution}")


def _refuse_kept(argument: str, *, remove: bool = False, editable: bool = False) -> None:
    if instead := installer.Environment.current().instead(argument, remove=remove, editable=editable):
        raise ConfigError(instead)


def _key(found: dict[str, Any]) -> tuple[str, str, str]:
    return found["package"], found["version"], found["name"]


def _gives(found: dict[str, Any]) -> str:
    return "".join(f"; {kind}: {', '.join(names)}" for kind, names in found["gives"].items())


def _fail(ctx: click.Context, message: str) -> None:
    """Say what failed and leave with 1: the environment refused, not the command line."""
    say(f"error: {message}", err=True)
    ctx.exit(1)
