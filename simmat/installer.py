"""Put plugins into the running environment and take them out, by its own pip.

An environment that another tool keeps (uv, pipx, the system) is left alone; what to run instead is said.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from simmat.errors import ConfigError, SimMATError, nearest
from simmat.files import parse_json, read_json, with_home
from simmat.registry import KNOWN_PLUGINS, PluginReport

PREFIX = "simmat-plugin-"
_ARCHIVES = (".whl", ".tar.gz", ".zip")
_REQUIREMENT_MARKS = re.compile(r"[=<>~!@\[]")


class InstallerError(SimMATError):
    """pip did not do what it was asked; the message is the short form of what it said."""


@dataclass(frozen=True)
class Environment:
    """Where the running Python keeps its packages.

    Attributes:
        python: the interpreter.
        prefix: root of the environment.
        virtual: True for a virtual environment.
        stdlib: where the standard library lies, with the mark of PEP 668.
        has_pip: True where pip can be imported.
    """

    python: str
    prefix: Path
    virtual: bool
    stdlib: Path
    has_pip: bool

    @classmethod
    def current(cls) -> Environment:
        """The one this process runs in."""
        return cls(
            sys.executable,
            Path(sys.prefix),
            sys.prefix != sys.base_prefix,
            Path(sysconfig.get_path("stdlib")),
            importlib.util.find_spec("pip") is not None,
        )

    def instead(self, argument: str, *, remove: bool = False, editable: bool = False) -> str:
        """Return who keeps this environment and what to run there; empty where pip may do it.

        Args:
            argument: what pip would be given: a package, a requirement, a path.
            remove: True to uninstall it.
            editable: as pip's option.
        """
        what = ("--editable " if editable else "") + shlex.quote(argument)
        if (self.prefix / "pipx_metadata.json").is_file():
            own = self.prefix.name
            flags = '--pip-args="--editable" ' if editable else ""
            run = f"pipx uninject {own} {what}" if remove else f"pipx inject {own} {flags}{shlex.quote(argument)}"
            return f"pipx keeps this environment ({self.prefix}); run: {run}"
        if (self.prefix / "uv-receipt.toml").is_file():
            with_ = "--with-editable" if editable else "--with"
            run = "uv tool install simmat" + ("" if remove else f" {with_} {shlex.quote(argument)}")
            others = "with a --with for every plugin that stays" if remove else "and repeat --with for those there are"
            return f"uv keeps this tool ({self.prefix}); run: {run} ({others})"
        if "uv" in _venv_settings(self.prefix):
            if (self.prefix.parent / "uv.lock").is_file():
                run = f"uv remove {what}" if remove else f"uv add {what}"
            else:
                run = f"uv pip {'uninstall' if remove else 'install'} --python {shlex.quote(self.python)} {what}"
            return f"uv keeps this environment ({self.prefix}); run: {run}"
        if not self.virtual and (self.stdlib / "EXTERNALLY-MANAGED").is_file():
            return (
                f"the system keeps this Python ({self.python}) and lets no pip into it; install SimMAT into a virtual "
                "environment (python3 -m venv DIR, then DIR/bin/pip install simmat) and run DIR/bin/simmat"
            )
        if not self.has_pip:
            return f"this environment has no pip; run: {shlex.quote(self.python)} -m ensurepip"
        return ""


def requirement_of(argument: str, *, as_it_is: bool = False) -> str:
    """Turn what a user names into what pip takes.

    A path stays a path; a short name becomes its package, `thermal` simmat-plugin-thermal and `hha`
    simmat-plugin-depth, with the extras and version it has; another package's own name with a version, an extra or the
    prefix simmat- stays. Any other plain name becomes simmat-plugin-NAME, so that no stranger's package of that name is
    installed by a slip.

    Raises:
        ConfigError: a path with nothing to install, or no name at all.
    """
    if not argument.strip() or argument.startswith("-"):
        raise ConfigError(f"a plugin's name, package or path is needed, got {argument!r}")
    if _is_path(argument):
        # Absolute, for "./sonar" without its dot would be a name to pip.
        return str(_checked_path(with_home(argument)).absolute())
    if as_it_is or argument.startswith("simmat-"):
        return _checked_requirement(argument, argument)
    known = {name: package for packages in KNOWN_PLUGINS.values() for name, package in packages.items()}
    marked = _REQUIREMENT_MARKS.search(argument)
    name = argument[: marked.start()].strip() if marked else argument
    if package := known.get(name):
        return _checked_requirement(package + argument[len(name) :], argument)
    return _checked_requirement(argument if marked else PREFIX + argument, argument)


def install(requirement: str, *, editable: bool = False) -> tuple[str, ...]:
    """Install by pip and return the distributions that were asked for, with their versions; empty where all is there.

    Raises:
        InstallerError: pip failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        _pip("install", "--report", str(report), *(["--editable"] if editable else []), requirement)
        done = read_json(report, "report of pip", error=InstallerError)["install"]
    return tuple(f"{item['metadata']['name']} {item['metadata']['version']}" for item in done if item.get("requested"))


def uninstall(distribution: str) -> None:
    """Remove a distribution by pip; InstallerError where pip fails."""
    _pip("uninstall", "--yes", distribution)


def installed_plugins() -> list[dict[str, Any]]:
    """Return what `simmat plugins list --json` says in a new process: this one does not see what changed under it."""
    done = _run([sys.executable, "-P", "-m", "simmat", "plugins", "list", "--json"])
    if done.returncode:
        raise InstallerError(f"SimMAT does not start any more: {_short(done.stderr)}")
    try:
        plugins: list[dict[str, Any]] = parse_json(done.stdout)["plugins"]
    except ValueError as error:
        raise InstallerError(f"simmat plugins list --json gives no valid json: {error}") from error
    return plugins


def distribution_of(argument: str, reports: Sequence[PluginReport]) -> str:
    """Return the package of an installed plugin, by its entry point, its package or a name it gives.

    Raises:
        ConfigError: no plugin answers to it, or it is a part of SimMAT.
    """
    wanted = {canonical(argument), canonical(PREFIX + argument)}
    by_name: dict[str, str] = {}
    for report in reports:
        given = [name for names in report.gives.values() for name in names]
        if wanted & {canonical(name) for name in (report.name, report.distribution, *given)}:
            by_name.setdefault(report.distribution, report.name)
    if "simmat" in by_name:
        raise ConfigError(f"{argument!r} is a part of SimMAT itself and cannot be uninstalled")
    if not by_name:
        names = sorted(report.name for report in reports if report.distribution != "simmat" and report.version)
        guess = nearest(argument, names)
        raise ConfigError(
            f"no plugin {argument!r} is installed"
            + (f"; did you mean {guess!r}?" if guess else ".")
            + f" Installed: {', '.join(names) or 'none'}"
        )
    if len(by_name) > 1:
        raise ConfigError(f"{argument!r} is of {' and '.join(sorted(by_name))}; name the package")
    return next(iter(by_name))


def canonical(name: str) -> str:
    """Return a distribution's name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_in(requirement: str) -> str:
    """Return which distribution a requirement of `requirement_of` names, canonical; empty for a folder."""
    try:
        if requirement.endswith(".whl"):
            return canonical(parse_wheel_filename(Path(requirement).name)[0])
        return canonical(Requirement(requirement).name)
    except (InvalidRequirement, InvalidWheelFilename):
        return ""


def is_installed(distribution: str) -> bool:
    """True where a package of that name is installed."""
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _is_path(argument: str) -> bool:
    return argument.startswith((".", "~")) or os.sep in argument or argument.endswith(_ARCHIVES)


def _checked_requirement(requirement: str, argument: str) -> str:
    try:
        Requirement(requirement)
    except InvalidRequirement as error:
        raise ConfigError(
            f"{argument!r} is no name of a plugin or package ({str(error).splitlines()[0]}); give for example thermal, "
            "acme-sonar==1.2, or the path of a folder or wheel"
        ) from error
    return requirement


def _checked_path(path: Path) -> Path:
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; a plugin is a folder with pyproject.toml, or a wheel")
    if path.is_dir() and not any((path / name).is_file() for name in ("pyproject.toml", "setup.py")):
        raise ConfigError(f"{path}: no package, it has no pyproject.toml; simmat plugins new makes one")
    if path.is_file() and not path.name.endswith(_ARCHIVES):
        raise ConfigError(f"{path}: no package; it is a folder with pyproject.toml, or a file {' '.join(_ARCHIVES)}")
    return path


def _venv_settings(prefix: Path) -> frozenset[str]:
    """Return the keys of pyvenv.cfg; `uv venv` writes its version as `uv`."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(line.partition("=")[0].strip() for line in lines if "=" in line)


def _pip(command: str, *arguments: str) -> None:
    line = [sys.executable, "-P", "-m", "pip", command, "--disable-pip-version-check", "--no-input", *arguments]
    done = _run(line)
    if done.returncode:
        again = shlex.join([sys.executable, "-m", "pip", command, arguments[-1]])
        raise InstallerError(f"pip could not {command} {arguments[-1]}: {_short(done.stderr)}\nAll it says: {again}")


def _run(line: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line, capture_output=True, text=True, errors="backslashreplace", check=False, stdin=subprocess.DEVNULL
    )


def _short(text: str, most: int = 3) -> str:
    """Return the lines in which pip states an error, at most `most`; where it states none, the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    stated = [line.partition(":")[2].strip() for line in lines if line.lower().lstrip("× ").startswith("error:")]
    return "; ".join(dict.fromkeys(stated[:most])) or (lines[-1] if lines else "no reason given")
