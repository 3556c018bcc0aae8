"""An installed package and its checks: how it is found, loaded and named; and the check of a command."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass

import click
from click.testing import CliRunner
from packaging.requirements import Requirement

import simmat
from simmat.errors import SpecError, unknown_name
from simmat.plugins.hooks import PROJECT
from simmat.plugins.kinds import Kind
from simmat.plugins.loader import BUILTIN, describe_entry, load_plugins
from simmat.plugins.registry import NAMES, Registry, import_from_string
from simmat_testing.checks import CheckFailed, CheckSkipped, PartCase


@dataclass(frozen=True)
class PackageCase:
    """A package.

    Attributes:
        distribution: metadata of the package; None if the entry points have none.
    """

    name: str
    entry_points: tuple[importlib.metadata.EntryPoint, ...]
    distribution: importlib.metadata.Distribution | None

    @classmethod
    def installed(cls, name: str) -> PackageCase:
        """Return the case of an installed distribution; "simmat" is the built-in parts."""
        packages = simmat_packages()
        if name not in packages:
            raise unknown_name("package with a plugin", name, packages)
        return packages[name]


def simmat_packages() -> dict[str, PackageCase]:
    """Return every installed package with a plugin, and SimMAT itself, by distribution name."""
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=PROJECT):
        found.setdefault(describe_entry(entry).distribution, []).append(entry)
    cases = {
        name: PackageCase(name, tuple(entries), entries[0].dist)
        for name, entries in sorted(found.items())
    }
    return {
        PROJECT: PackageCase(
            PROJECT, (BUILTIN,), importlib.metadata.distribution(PROJECT)
        ),
        **cases,
    }


def names_of(case: PackageCase, kind: Kind, registry: Registry) -> list[str]:
    """Return the names of a kind that a package brings."""
    return [
        name
        for name in registry.names(kind)
        if registry.owner(kind, name).partition(" ")[0] == case.name
    ]


_NO_TORCH = """
import sys
from importlib.metadata import EntryPoint
from simmat.plugins.loader import load_plugins
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError("torch is imported while loading")
sys.meta_path.insert(0, NoTorch())
sys.exit(load_plugins([EntryPoint(*sys.argv[1:], "simmat")], {}).reports[-1].error or 0)
"""


def loads_without_torch(case: PackageCase) -> None:
    """Every entry point loads, and its hooks work, in a fresh interpreter that has no torch."""
    env = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    for entry in case.entry_points:
        command = [sys.executable, "-P", "-c", _NO_TORCH, entry.name, entry.value]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env=env
        )
        if done.returncode:
            raise CheckFailed(
                f"entry point {entry.name!r} ({entry.value}) does not load: {done.stderr.strip()[-1000:]}",
                "import torch inside the functions that use it; state in pyproject.toml what else the module imports",
            )


def hooks_match(case: PackageCase) -> None:
    """Every hook is one of SimMAT's, and gives values of the right type."""
    for entry in case.entry_points:
        report = next(
            r for r in load_plugins([entry], {}).reports if r.name == entry.name
        )
        if report.error or not report.gives:
            raise CheckFailed(
                f"plugin {entry.name!r}: {report.error or 'it gives nothing'}",
                "see simmat.plugins.hooks for the hooks, and return at least one item from one",
            )


_REFERENCES: dict[Kind, tuple[str, ...]] = {
    "foundation model": ("build",),
    "foundation family": ("models", "spec"),
    "transfer layer": ("build",),
    "tuner": ("apply",),
    "loss": ("build",),
    "metric": ("compute",),
    "model format": ("function",),
    "result format": ("write",),
    "sequence format": ("write",),
    "follower": ("function",),
    "bundle source": ("function",),
}
"""Kind -> fields of its specs that name a function."""


def references_exist(case: PackageCase) -> None:
    """Every function that a spec names as text ("package.module:function") can be imported."""
    registry = load_plugins(
        [entry for entry in case.entry_points if entry is not BUILTIN], {}
    )
    for kind, fields in _REFERENCES.items():
        for name, field in (
            (name, field) for name in names_of(case, kind, registry) for field in fields
        ):
            try:
                import_from_string(getattr(registry.get(kind, name), field))
            except SpecError as error:
                raise CheckFailed(
                    f"{field} of {kind} {name!r}: {error}",
                    'name an existing one: "package.module:function"',
                ) from error


def no_name_collides(case: PackageCase) -> None:
    """No other package claims a name that this package gives, or has an entry point of the same name."""
    others = [
        other
        for other in simmat_packages().values()
        if other.name not in (case.name, PROJECT)
    ]
    for entry in case.entry_points:
        if same := [
            other.name
            for other in others
            if any(e.name == entry.name for e in other.entry_points)
        ]:
            raise CheckFailed(
                f"{' and '.join(same)} has an entry point {entry.name!r} too",
                "name it as the package is named",
            )
    entries = [
        entry
        for other in (case, *others)
        for entry in other.entry_points
        if entry is not BUILTIN
    ]
    for (kind, name), owners in load_plugins(entries, {}).conflicts().items():
        if any(owner.rpartition(" ")[0] == case.name for owner in owners):
            raise CheckFailed(
                f"{kind} {name!r} is claimed by {' and '.join(owners)}",
                "choose another name",
            )


def names_are_declared(case: PackageCase) -> None:
    """The package declares the names that it gives, which messages need where it cannot be loaded."""
    if case.name == PROJECT:
        raise CheckSkipped("this is SimMAT itself")
    given: set[str] = set()
    for entry in case.entry_points:
        for report in load_plugins([entry], {}).reports:
            if report.name == entry.name:
                given.update(
                    name
                    for kind, names in report.gives.items()
                    if kind != "callbacks"
                    for name in names
                )
    declared: set[str] = set()
    if case.distribution is not None:
        declared.update(
            entry.name for entry in case.distribution.entry_points.select(group=NAMES)
        )
    if declared != given:
        module = case.entry_points[0].value
        lines = ", ".join(f'"{name}" = "{module}"' for name in sorted(given))
        raise CheckFailed(
            f"it declares {', '.join(sorted(declared)) or 'no name'} and gives {', '.join(sorted(given)) or 'none'}",
            f'write in pyproject.toml, under [project.entry-points."{NAMES}"]: {lines}',
        )


def metadata_is_complete(case: PackageCase) -> None:
    """The package states a summary, and requires `simmat` from a lowest version on, which is installed."""
    if case.name == PROJECT:
        raise CheckSkipped("this is SimMAT itself")
    if case.distribution is None:
        raise CheckFailed(
            "the entry point belongs to no distribution", "install the package with pip"
        )
    stated = map(Requirement, case.distribution.requires or [])
    ranges = [
        found
        for found in stated
        if found.name == PROJECT and "extra ==" not in str(found.marker or "")
    ]
    lowest = [
        part
        for found in ranges
        for part in found.specifier
        if part.operator in (">=", ">", "~=", "==")
    ]
    if "Summary" not in case.distribution.metadata:  # newer Pythons raise KeyError
        raise CheckFailed(
            "its metadata lacks a summary", "state a description in pyproject.toml"
        )
    if not lowest or not all(
        found.specifier.contains(simmat.__version__, prereleases=True)
        for found in ranges
    ):
        installed = simmat.__version__
        major, minor = (int(part) for part in installed.split(".")[:2])
        raise CheckFailed(
            f"its metadata requires {' and '.join(map(str, ranges)) or 'no simmat'}, installed is simmat {installed}",
            f'write dependencies = ["simmat>={major}.{minor},<{major}.{minor + 1}"] in pyproject.toml',
        )


def command_shows_its_help(case: PartCase) -> None:
    """`--help` works, and says in a line what the command is for."""
    command: click.Command = case.spec
    done = CliRunner().invoke(command, ["--help"], prog_name=f"simmat {command.name}")
    if done.exit_code or not command.get_short_help_str():
        raise CheckFailed(
            f"--help ends with {done.exit_code}: {done.exception or done.output}",
            "look at its options, and give its function a docstring",
        )
