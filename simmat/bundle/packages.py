"""The plugin packages that a bundle needs beside SimMAT itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

from simmat.bundle.spec import BundleSpec
from simmat.errors import SimMATError
from simmat.hookspecs import PROJECT
from simmat.registry import Kind, Registry, known_package
from simmat.sensor_names import modality_parts


def needed_packages(spec: BundleSpec, registry: Registry | None = None) -> dict[str, list[tuple[Kind, str]]]:
    """Return the package -> the (kind, name) of what it brings, for each part of a bundle that a plugin brings.

    Args:
        spec: what the bundle says of itself; sensors that it describes itself need no package.
        registry: what is installed. A part that is not there is looked up among SimMAT's own plugins, and left out
            where none of them brings it.
    """
    found: dict[str, list[tuple[Kind, str]]] = {}
    for kind, name in _parts(spec):
        package = _installed_package(kind, name, registry) or known_package(kind, name)
        if package and package != PROJECT:
            found.setdefault(package, []).append((kind, name))
    return dict(sorted(found.items()))


def _parts(spec: BundleSpec) -> Iterator[tuple[Kind, str]]:
    described = {declaration.name for declaration in spec.described}
    for part in dict.fromkeys(modality_parts(spec.modality)):
        if part not in described:
            yield "modality", part
    yield "foundation model", spec.foundation
    yield "transfer layer", spec.mat
    yield "tuner", spec.tune


def _installed_package(kind: Kind, name: str, registry: Registry | None) -> str:
    """Return the installed distribution that brings a name, "simmat" for the built-in parts; "" where none does."""
    if registry is None:
        return ""
    try:
        package = registry.owner(kind, name).partition(" ")[0]
    except SimMATError:
        return ""
    distributions = {report.distribution for report in registry.reports}
    return package if package in distributions and re.fullmatch(r"[A-Za-z0-9][\w.-]*", package) else ""
