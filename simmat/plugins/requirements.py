"""What installed packages require, and what of it is missing."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from simmat.plugins.hooks import PROJECT
from simmat.plugins.registry import Registry


def packages_of(registry: Registry) -> list[str]:
    """Return SimMAT and the packages of its plugins, by their normal names, those with metadata only."""
    names = {canonicalize_name(report.distribution) for report in registry.reports} - {PROJECT}
    return [name for name in (PROJECT, *sorted(names)) if installed_version(name)]


def installed_version(name: str) -> str:
    """Return the version of an installed package; "" if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return ""


def requirements_of(name: str, extra: str = "") -> Iterator[Requirement]:
    """Yield what an installed package requires here: without extras, or what an extra adds to that."""
    if not installed_version(name):
        return
    for line in importlib.metadata.requires(name) or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # an old package's own mistake
            continue
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        if always is not bool(extra) and (always or (marker is not None and marker.evaluate({"extra": extra}))):
            yield requirement


def unmet(requirement: Requirement) -> str:
    """Return what of a requirement is not met, "" if all is: "torch>=2.4, got 2.0"."""
    version = installed_version(requirement.name)
    if not version:
        return f"{specifier(requirement)}, which is not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{specifier(requirement)}, got {version}"
    inner = [
        problem
        for extra in requirement.extras
        for r in requirements_of(requirement.name, extra)
        if (problem := unmet(r))
    ]
    return "; ".join(inner)


def specifier(requirement: Requirement) -> str:
    """Return a requirement as pip takes it, without its marker."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"
