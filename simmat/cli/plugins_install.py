"""`simmat plugins install` and `uninstall`: plugins into and out of the running environment."""

from __future__ import annotations

from pathlib import Path

import click

from simmat.errors import ConfigError
from simmat.plugins import installer
from simmat.plugins.loader import load_plugins
from simmat.terminal import say


@click.command(
    "install",
    short_help="Install plugins with pip: by name, path or package.",
    # All after the first plugin reaches the command, a -- too.
    context_settings={"allow_interspersed_args": False},
)
@click.argument("plugins", metavar="PLUGIN... [-- PIP OPTIONS]", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--editable", "-e", is_flag=True, help="Of a folder: changes in it take effect at once.")
@click.pass_context
def install(ctx: click.Context, /, plugins: tuple[str, ...], editable: bool) -> None:
    """Install plugins into the environment that runs this command, and show what they give.

    A PLUGIN is a name such as thermal, which means the package simmat-plugin-thermal; a folder or a wheel, such as
    ./simmat-plugin-sonar; or another package with a version, such as acme-sonar==1.2. pip installs it and takes the
    options after --, as in `simmat plugins install thermal -- --upgrade`.
    """
    end = plugins.index("--") if "--" in plugins else len(plugins)
    requirements = [installer.requirement_of(plugin) for plugin in plugins[:end]]
    if editable and (names := [name for name in requirements if not Path(name).is_absolute()]):
        raise ConfigError(f"--editable takes folders with a pyproject.toml, got {names[0]!r}; begin a path with ./")
    try:
        found = installer.install(requirements, plugins[end + 1 :], editable=editable)
    except installer.InstallerError as error:
        _fail(ctx, str(error))
    if not found:
        _fail(ctx, f"{' '.join(requirements)}: no plugin of SimMAT came with it: no entry point of the group 'simmat'")
    for plugin in found:
        gives = "".join(f"; {kind}: {', '.join(names)}" for kind, names in plugin["gives"].items())
        say(f"{plugin['package']} {plugin['version']}: plugin {plugin['name']!r}{gives}")
    if failed := [plugin for plugin in found if plugin["error"]]:
        _fail(ctx, "; ".join(f"plugin {one['name']!r} is installed but failed: {one['error']}" for one in failed))


@click.command("uninstall", short_help="Uninstall a plugin.")
@click.argument("plugin", metavar="NAME|PACKAGE")
@click.pass_context
def uninstall(ctx: click.Context, /, plugin: str) -> None:
    """Uninstall a plugin, by its name, its package or the name of something it gives."""
    distribution = installer.distribution_of(plugin, load_plugins().reports)
    try:
        installer.uninstall(distribution)
    except installer.InstallerError as error:
        _fail(ctx, str(error))
    say(f"uninstalled {distribution}")


def _fail(ctx: click.Context, message: str) -> None:
    """Print what failed and exit with 1: the environment refused, not the command line."""
    say(f"error: {message}", err=True)
    ctx.exit(1)
