"""Install and uninstall plugins with the pip of the running environment."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

from simmat.errors import ConfigError, SimMATError, did_you_mean
from simmat.io.files import parse_json, with_home
from simmat.plugins.registry import KNOWN_PLUGINS, PluginReport

PREFIX = "simmat-plugin-"
_ARCHIVES = (".whl", ".tar.gz", ".zip")


class InstallerError(SimMATError):
    """pip failed; its own message is on the terminal."""


def requirement_of(argument: str) -> str:
    """Return pip's requirement for a plugin as the user names it.

    A short name becomes its package: `thermal` is simmat-plugin-thermal, `hha` is simmat-plugin-depth; extras and
    version are kept. Any other plain name becomes simmat-plugin-NAME, so that a typing error installs no unrelated
    package. A name that starts with simmat-, another package with a version or an extra, and a URL stay unchanged. A
    path becomes absolute.

    Raises:
        ConfigError: the argument is not a plugin.
    """
    argument = argument.strip()
    if argument.startswith("-"):
        raise ConfigError(f"expected a plugin, got {argument!r}; options of pip go after --")
    if "://" in argument:
        return argument
    if _is_path(argument):
        return str(_checked_path(with_home(argument)).absolute())
    try:
        requirement = Requirement(argument)
    except InvalidRequirement as error:
        raise ConfigError(
            f"{argument!r} is not the name of a plugin or package; give for example thermal, acme-sonar==1.2, or the "
            "path of a folder or wheel"
        ) from error
    known = {name: package for packages in KNOWN_PLUGINS.values() for name, package in packages.items()}
    name = requirement.name
    plain = name == argument and not name.startswith("simmat-")
    return known.get(name, PREFIX + name if plain else name) + argument.removeprefix(name)


def install(
    requirements: Sequence[str], options: Sequence[str] = (), *, editable: bool = False
) -> list[dict[str, Any]]:
    """Install with pip and return the plugins that are new or were requested, as `installed_plugins` lists them.

    Args:
        requirements: results of `requirement_of`.

    Raises:
        InstallerError: pip is missing or failed.
    """
    before = [_key(plugin) for plugin in installed_plugins()]
    flag = ["--editable"] if editable else []
    _pip("install", *options, *(part for requirement in requirements for part in (*flag, requirement)))
    requested = {canonicalize_name(name) for requirement in requirements if (name := _name_in(requirement))}
    return [
        plugin
        for plugin in installed_plugins()
        if canonicalize_name(plugin["package"]) in requested or _key(plugin) not in before
    ]


def uninstall(distribution: str) -> None:
    """Uninstall a distribution with pip."""
    _pip("uninstall", "--yes", distribution)
    if still := [plugin["name"] for plugin in installed_plugins() if plugin["package"] == distribution]:
        raise InstallerError(
            f"pip removed {distribution}, but plugin {still[0]!r} is still found: another copy is on the path"
        )


def installed_plugins() -> list[dict[str, Any]]:
    """Return the plugins that `simmat plugins list --json` prints in a new process, which sees the changes of pip."""
    line = [sys.executable, "-P", "-m", "simmat", "plugins", "list", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, errors="backslashreplace", check=False)
    try:
        plugins: list[dict[str, Any]] = parse_json(done.stdout)["plugins"]
    except ValueError as error:
        cause = (done.stderr.strip().splitlines() or [str(error)])[-1]
        raise InstallerError(f"`simmat plugins list --json` failed in a new process: {cause}") from error
    return plugins


def distribution_of(argument: str, reports: Sequence[PluginReport]) -> str:
    """Return the package of an installed plugin, named by entry point, package or something it provides."""
    wanted = {canonicalize_name(argument), canonicalize_name(PREFIX + argument)}
    found = {
        report.distribution
        for report in reports
        for name in (report.name, report.distribution, *(name for names in report.gives.values() for name in names))
        if canonicalize_name(name) in wanted
    }
    if "simmat" in found:
        raise ConfigError(f"{argument!r} is part of SimMAT itself and cannot be uninstalled")
    if not found:
        names = sorted(report.name for report in reports if report.distribution != "simmat" and report.version)
        hint = did_you_mean(argument, names)
        raise ConfigError(f"no plugin {argument!r} is installed{hint} Installed: {', '.join(names) or 'none'}")
    if len(found) > 1:
        raise ConfigError(f"{argument!r} is in {' and '.join(sorted(found))}; give the name of the package")
    return found.pop()


def _is_path(argument: str) -> bool:
    return argument.startswith((".", "~")) or os.sep in argument or argument.endswith(_ARCHIVES)


def _checked_path(path: Path) -> Path:
    """Check that a path is a package; pip takes "./notes.txt" for a name and fails with a page of text."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; a plugin is a folder with pyproject.toml, or a wheel")
    if path.is_dir() and not any((path / name).is_file() for name in ("pyproject.toml", "setup.py")):
        raise ConfigError(f"{path}: not a package, it has no pyproject.toml; simmat plugins new makes one")
    if path.is_file() and not path.name.endswith(_ARCHIVES):
        raise ConfigError(f"{path}: not a package; give a folder with pyproject.toml, or a file {' '.join(_ARCHIVES)}")
    return path


def _name_in(requirement: str) -> str:
    """Return the distribution that a requirement names, "" if only pip knows it."""
    file = Path(requirement).name
    try:
        if Path(requirement).is_absolute() and Path(requirement).is_dir():
            return str(tomllib.loads(Path(requirement, "pyproject.toml").read_text("utf-8"))["project"]["name"])
        if file.endswith(".whl"):
            return parse_wheel_filename(file)[0]
        if file.endswith((".tar.gz", ".zip")):
            return parse_sdist_filename(file)[0]
        return Requirement(requirement).name
    except (OSError, KeyError, ValueError):
        return ""


def _key(plugin: dict[str, Any]) -> tuple[str, str, str]:
    return plugin["package"], plugin["version"], plugin["name"]


def _pip(command: str, *arguments: str) -> None:
    """Run pip on the terminal of the user."""
    if importlib.util.find_spec("pip") is None:
        python, what = shlex.quote(sys.executable), shlex.join(arguments)
        raise InstallerError(
            f"this environment has no pip; run `uv pip {command} --python {python} {what}`, or install pip with "
            f"`{python} -m ensurepip`"
        )
    line = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", command, *arguments]
    if code := subprocess.run(line, check=False).returncode:
        raise InstallerError(f"pip failed with exit code {code}: {shlex.join(['pip', command, *arguments])}")
