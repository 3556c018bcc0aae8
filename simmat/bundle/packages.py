"""The packages that bring the parts of a network, as a bundle records them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from simmat.documents import StrictModel
from simmat.model_spec import ModelSpec
from simmat.plugins.hooks import PROJECT
from simmat.plugins.registry import Kind, Registry
from simmat.sensors.options import modality_parts


class Package(StrictModel):
    """The package that brought a part of a network when it was trained.

    Attributes:
        kind: kind of the part, such as "modality" or "tuner".
        name: name of the part.
        distribution: name of the package, as pip takes it.
        version: its version.
    """

    kind: str
    name: str
    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,99}$")]


def packages_of(spec: ModelSpec, registry: Registry) -> tuple[Package, ...]:
    """Return the packages of a network's parts; none for a part of SimMAT, of the bundle itself or of a notebook.

    Raises:
        UnknownNameError: a part is not installed.
    """
    reports = {report.owner: report for report in registry.reports if report.version}
    found = []
    for kind, name in _parts(spec):
        report = reports.get(registry.owner(kind, name))
        if report is None or report.distribution == PROJECT:
            continue
        found.append(Package(kind=kind, name=name, distribution=report.distribution, version=report.version))
    return tuple(found)


def _parts(spec: ModelSpec) -> Iterator[tuple[Kind, str]]:
    """Yield kind and name of every part that an installed package must bring."""
    own = {definition.name for definition in spec.sensor_definitions}
    for name in dict.fromkeys(modality_parts(spec.modality)):
        if name not in own:
            yield "modality", name
    yield "foundation model", spec.foundation
    yield "transfer layer", spec.mat
    yield "tuner", spec.tune
