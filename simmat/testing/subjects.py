"""What a name stands for, and its checks: a sensor, a foundation model, or a package with all it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simmat.errors import ConfigError, SimMATError, UnknownNameError, did_you_mean
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.options import is_sensor_file
from simmat.specs import FoundationSpec
from simmat.testing.checks import Result, run_checks
from simmat.testing.foundation_spec import FoundationCase
from simmat.testing.package import PackageCase, installed_packages
from simmat.testing.samples import ModalityCase
from simmat.testing.suite import FOUNDATION_CHECKS, MODALITY_CHECKS, PACKAGE_CHECKS


@dataclass(frozen=True)
class Subject:
    """One thing that is checked.

    Attributes:
        kind: "modality", "foundation model" or "package".
        name: its name.
        run: called with a scratch folder; yields the results one by one.
        note: what is not checked with it, and how to.
    """

    kind: str
    name: str
    run: Callable[[Path], Iterator[Result]]
    note: str = ""


def find_subjects(
    name: str,
    registry: Registry,
    *,
    full: bool = False,
    files: Mapping[str, Path] | None = None,
    image_size: int | None = None,
) -> list[Subject]:
    """Return what `name` stands for.

    A modality or foundation model goes before a plugin of the same name; the name of a distribution means the package
    and all that it gives.

    Args:
        name: of a modality (also `rgb+thermal`, or a sensor.toml), a foundation model, a distribution or a plugin.
        registry: what is installed.
        full: run the slow checks, too.
        files: the files of one sample, source name -> file, for a sensor that does not simulate its own.
        image_size: side of the input that foundation models are tried at.

    Raises:
        UnknownNameError: it stands for nothing; the nearest name is named.
        SimMATError: it stands for something that cannot be had, as a name that two packages claim.
    """
    samples = [files] if files else None
    found: list[Subject] = []
    claimed = registry.conflicts()  # by two packages: asking for one says which
    if any(
        part in registry.names("modality") or is_sensor_file(part) or ("modality", part) in claimed
        for part in name.split("+")
    ):
        adapter = registry.modality(name)
        _check_sources(adapter, files or {})
        if image_size is not None:
            raise ConfigError(f"--image-size is for foundation models, and {name!r} is a sensor; leave it out")
        found.append(_modality(adapter, full, samples))
    elif files:
        raise ConfigError(f"sample files (--source) are for a sensor, and {name!r} is none; leave them out")
    family, slash, _ = name.partition("/")
    if (
        name in registry.names("foundation model")
        or (slash and family in registry.names("foundation family"))
        or ("foundation model", name) in claimed
    ):
        found.append(_foundation(registry.foundation(name), full, image_size))
    if found:
        return found
    packages = installed_packages()
    case = packages.get(name) or _of_plugin(name, packages)
    if case is None:
        raise _unknown(name, registry, packages)
    return [_package(case, registry), *_given_by(case, registry, full, image_size)]


def _modality(adapter: ModalityAdapter, full: bool, samples: Sequence[Mapping[str, Path]] | None = None) -> Subject:
    return Subject(
        "modality",
        adapter.name,
        lambda folder: run_checks(MODALITY_CHECKS, ModalityCase(adapter, folder, samples), full=full),
    )


def _check_sources(adapter: ModalityAdapter, files: Mapping[str, Path]) -> None:
    """Refuse files of other sources than the sensor's: that is no fault of the sensor, which would fail all checks."""
    if files and set(files) != set(adapter.source_names()):
        raise ConfigError(
            f"{adapter.name!r} has the sources {', '.join(adapter.source_names())}, got files of {', '.join(files)}; "
            "give one file for each: --source NAME=FILE"
        )


def _foundation(spec: FoundationSpec, full: bool, image_size: int | None) -> Subject:
    if image_size is not None and spec.size_multiple > 0:
        spec.check_image_size(image_size)

    def run(folder: Path) -> Iterator[Result]:
        return run_checks(FOUNDATION_CHECKS, FoundationCase(spec, folder, image_size=image_size, full=full), full=full)

    return Subject("foundation model", spec.name, run)


def _package(case: PackageCase, registry: Registry) -> Subject:
    families = [
        name for name in registry.names("foundation family") if _owner(registry, "foundation family", name) == case.name
    ]
    note = "; ".join(f"models of the family {name} are checked one by one, as {name}/NAME" for name in families)
    return Subject("package", case.name, lambda folder: run_checks(PACKAGE_CHECKS, case), note)


def _given_by(case: PackageCase, registry: Registry, full: bool, image_size: int | None) -> Iterator[Subject]:
    for name in registry.names("modality"):
        if _owner(registry, "modality", name) == case.name:
            yield _modality(registry.modality(name), full)
    for name in registry.names("foundation model"):
        if _owner(registry, "foundation model", name) == case.name:
            yield _foundation(registry.foundation(name), full, image_size)


def _owner(registry: Registry, kind: str, name: str) -> str:
    """Return the distribution that brings a name."""
    return registry.owner(kind, name).partition(" ")[0]  # type: ignore[arg-type]


def _of_plugin(name: str, packages: Mapping[str, PackageCase]) -> PackageCase | None:
    """Return the package whose entry point is called `name`."""
    return next((case for case in packages.values() if any(e.name == name for e in case.entry_points)), None)


def _unknown(name: str, registry: Registry, packages: Mapping[str, PackageCase]) -> SimMATError:
    families = [f"{family}/NAME" for family in registry.names("foundation family")]
    hint = did_you_mean(name, [*registry.names("modality"), *registry.names("foundation model"), *families, *packages])
    return UnknownNameError(
        f"no modality, foundation model or plugin {name!r}{hint} "
        "What there is: simmat modalities list, simmat foundations list, simmat plugins list"
    )
