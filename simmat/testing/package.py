"""An installed package and its checks: how it is found, loaded and named."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement

from simmat.errors import SpecError, unknown_name
from simmat.plugin_specs import resolve
from simmat.plugins.hooks import PROJECT
from simmat.plugins.loader import BUILTIN, describe_entry, load_plugins
from simmat.plugins.registry import Kind
from simmat.testing.checks import CheckFailed, CheckSkipped, last_line, python_without_torch
from simmat.version import __version__


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
        packages = installed_packages()
        if name not in packages:
            raise unknown_name("package with a plugin", name, packages)
        return packages[name]


def installed_packages() -> dict[str, PackageCase]:
    """Return every installed package with a plugin, and SimMAT itself, by distribution name."""
    found: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=PROJECT):
        found.setdefault(describe_entry(entry).distribution, []).append(entry)
    cases = {name: PackageCase(name, tuple(entries), entries[0].dist) for name, entries in sorted(found.items())}
    own = importlib.metadata.distribution(PROJECT)
    return {PROJECT: PackageCase(PROJECT, (BUILTIN,), own), **cases}


def loads_without_torch(case: PackageCase) -> None:
    """Every entry point loads in a fresh interpreter that has no torch."""
    for entry in case.entry_points:
        module, _, attribute = entry.value.partition(":")
        answer = python_without_torch(f"import {module} as plugin" + (f"; plugin.{attribute}" if attribute else ""))
        if answer.returncode:
            raise CheckFailed(
                f"entry point {entry.name!r} ({entry.value}) does not load: {last_line(answer)}",
                "import torch inside the functions that use it; state in pyproject.toml what else the module imports",
            )


def hooks_match(case: PackageCase) -> None:
    """Every hook is one of SimMAT's, and gives values of the right type."""
    for entry in case.entry_points:
        report = next(r for r in load_plugins([entry], {}).reports if r.name == entry.name)
        if report.error:
            raise CheckFailed(f"plugin {entry.name!r}: {report.error}", "see simmat.plugins.hooks for the hooks")
        if not report.gives:
            raise CheckFailed(f"plugin {entry.name!r} gives nothing", "return at least one item from a hook")


def references_exist(case: PackageCase) -> None:
    """Every function that a spec names as text ("package.module:function") can be imported."""
    registry = load_plugins([entry for entry in case.entry_points if entry is not BUILTIN], {})
    named: tuple[tuple[Kind, Callable[[str], object], tuple[str, ...]], ...] = (
        ("foundation model", registry.foundation, ("build",)),
        ("foundation family", registry.foundation_family, ("models", "spec")),
        ("transfer layer", registry.transfer_layer, ("build",)),
        ("tuner", registry.tuner, ("apply",)),
        ("model format", registry.model_format, ("load",)),
        ("result format", registry.result_format, ("write",)),
    )
    for kind, spec_of, fields in named:
        for name in registry.names(kind):
            if registry.owner(kind, name).partition(" ")[0] != case.name:
                continue
            for field in fields:
                try:
                    resolve(getattr(spec_of(name), field))
                except SpecError as error:
                    raise CheckFailed(
                        f"{field} of {kind} {name!r}: {error}", 'name an existing one: "package.module:function"'
                    ) from error


def no_name_collides(case: PackageCase) -> None:
    """No other package claims a name that this package gives, or has an entry point of the same name."""
    others = [other for other in installed_packages().values() if other.name not in (case.name, PROJECT)]
    for entry in case.entry_points:
        if same := [other.name for other in others if any(e.name == entry.name for e in other.entry_points)]:
            raise CheckFailed(
                f"{' and '.join(same)} has an entry point {entry.name!r} too", "name it as the package is named"
            )
    entries = [entry for other in (case, *others) for entry in other.entry_points if entry is not BUILTIN]
    for (kind, name), owners in load_plugins(entries, {}).conflicts().items():
        if any(owner.rpartition(" ")[0] == case.name for owner in owners):
            raise CheckFailed(f"{kind} {name!r} is claimed by {' and '.join(owners)}", "choose another name")


def distribution_is_named(case: PackageCase) -> None:
    """The package states its name, a version and a summary of one line."""
    if case.distribution is None:
        raise CheckFailed("the entry point belongs to no distribution", "install the package with pip")
    metadata = case.distribution.metadata
    if lacking := [key for key in ("Name", "Version", "Summary") if key not in metadata or not metadata[key].strip()]:
        raise CheckFailed(
            f"its metadata lacks {', '.join(lacking)}", "state name, version and description in pyproject.toml"
        )


def simmat_range_is_stated(case: PackageCase) -> None:
    """The package requires `simmat` from a lowest version on, and the installed version is in the range."""
    if case.name == PROJECT:
        raise CheckSkipped("this is SimMAT itself")
    major, minor = (int(part) for part in __version__.split(".")[:2])
    advice = f'write dependencies = ["simmat>={major}.{minor},<{major}.{minor + 1}"] in pyproject.toml'
    ranges = _simmat_requirements(case)
    if not ranges:
        raise CheckFailed("its metadata does not require simmat", advice)
    for requirement in ranges:
        if not any(part.operator in (">=", ">", "~=", "==") for part in requirement.specifier):
            raise CheckFailed(f"it requires {str(requirement)!r}, without a lowest version", advice)
        if not requirement.specifier.contains(__version__, prereleases=True):
            raise CheckFailed(f"it requires {str(requirement)!r}, installed is simmat {__version__}", advice)


def _simmat_requirements(case: PackageCase) -> list[Requirement]:
    """Return what the metadata requires of simmat, without extras."""
    found = []
    for line in [] if case.distribution is None else case.distribution.requires or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.name.lower() == PROJECT and "extra ==" not in str(requirement.marker or ""):
            found.append(requirement)
    return found
