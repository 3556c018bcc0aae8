"""Where a bundle may be: a file, the folder of a run, or a place that a plugin fetches it from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from simmat.bundle.format import FILE_NAME, BundleSpec, Sensors, Tensors, read_file, sensors_of
from simmat.bundle.version_0_1 import JSON_NAME, ZIP_SUFFIX, old_bundle_at, read_old
from simmat.config import BUNDLE_ELSEWHERE
from simmat.errors import BundleError, ConfigError
from simmat.io.reading import missing
from simmat.plugin_specs import BundleSource, import_from_string
from simmat.plugins.loader import installed

_Value = TypeVar("_Value")
_FILE_NAMES = (FILE_NAME, "bundle")
"""Names of the bundle in the folder of a run, of now and of version 0.1."""


def read_sensors(source: Path | str) -> Sensors:
    """Read name -> spec and tensors of each sensor of a bundle, or of the one that `source` names.

    An exported model has no tensors.

    Args:
        source: as `local_path` takes it.

    Raises:
        BundleError: there is no bundle, it is damaged, of a newer format, or has no such sensor.
    """
    place, sensor = locate(local_path(source))
    if place.is_dir() or place.suffix.lower() == ZIP_SUFFIX:
        document, tensors = read_old(place)
    else:
        document, tensors = read_file(place)
    sensors = sensors_of(place, document, tensors)
    if not sensor:
        return sensors
    if sensor not in sensors:
        raise BundleError(f"{place} holds no sensor {sensor!r}, but {', '.join(sensors)}")
    return {sensor: sensors[sensor]}


def read_bundle(source: Path | str) -> tuple[BundleSpec, Tensors]:
    """Read spec and tensors of a bundle of one sensor, or of the one that `source` names; see `read_sensors`."""
    return single_sensor(read_sensors(source), source)


def read_bundle_specs(source: Path | str) -> dict[str, BundleSpec]:
    """Read name -> spec of each sensor of a bundle, which is checked as a whole; see `read_sensors`."""
    return {name: spec for name, (spec, _) in read_sensors(source).items()}


def read_bundle_spec(source: Path | str) -> BundleSpec:
    """Read the spec of a bundle of one sensor, or of the one that `source` names; see `read_sensors`."""
    return single_sensor(read_bundle_specs(source), source)


def check_bundle(source: Path | str) -> None:
    """Raise BundleError if a bundle is missing, damaged or of a newer format; builds no network."""
    read_sensors(source)


def single_sensor(sensors: Mapping[str, _Value], source: Path | str) -> _Value:
    """Return what a bundle has for its sensor; BundleError if there are several, and none was named."""
    if len(sensors) > 1:
        named = ", ".join(f"{source}/{name}" for name in sensors)
        raise BundleError(f"{source} holds several sensors; append the name of one: {named}")
    return next(iter(sensors.values()))


def locate(path: Path) -> tuple[Path, str]:
    """Return the file or old folder of a bundle, and the name of the sensor behind it, "" if there is none.

    RUN stands for RUN/bundle.safetensors, or the folder RUN/bundle of version 0.1, and either of these for the other.

    Raises:
        BundleError: there is no bundle.
    """
    short = _without_file_name(path)
    for place, sensor in ((short, ""), (short.parent, short.name)):
        found = _bundle_at(place)
        if found is not None:
            return found, sensor
    if path.is_dir():
        runs = sorted(path.glob(f"*/{FILE_NAME}"))
        if runs:
            named = ", ".join(str(run.parent) for run in runs)
            raise BundleError(f"{path} is no bundle, but has runs, each with one; use one of {named}")
    raise BundleError(f"{missing(path, 'bundle')}; give the folder of a run, or its {FILE_NAME}")


def _without_file_name(path: Path) -> Path:
    """Return a path without the name of a bundle's file, unless that is there: RUN/NAME for RUN/bundle/NAME."""
    if path.name == JSON_NAME:
        return path.parent
    if path.name in _FILE_NAMES and not path.exists():
        return path.parent
    if path.parent.name in _FILE_NAMES and not path.parent.exists():
        return path.parent.parent / path.name
    return path


def _bundle_at(path: Path) -> Path | None:
    """Return the file or old folder of a bundle that a path stands for; None if there is none."""
    if path.exists() and not path.is_dir():
        return path
    if (path / FILE_NAME).exists():
        return path / FILE_NAME
    return old_bundle_at(path)


def local_path(source: Path | str) -> Path:
    """Return the path of a bundle, with that of a sensor behind it; one from elsewhere is fetched by a plugin.

    Args:
        source: a file, the folder of a run, a zip or folder of version 0.1, or what an installed `BundleSource`
            fetches, such as hf://ORG/NAME. The name of one of several sensors may follow: RUN/SENSOR.

    Raises:
        ConfigError: nothing that is installed fetches it.
        SimMATError: it cannot be fetched.
    """
    if not str(source).strip():
        raise ConfigError(f"a bundle is the folder of a run, or its {FILE_NAME}, got {str(source)!r}")
    path = Path(source)
    if not BUNDLE_ELSEWHERE.match(path.as_posix()):
        return path
    place = re.sub(r"^(\w+:)/+", r"\1//", path.as_posix())  # a path has one slash
    for found in bundle_sources():
        if place.startswith(found.prefix):
            fetched: Path = import_from_string(found.fetch)(place)
            return fetched
    known = ", ".join(f"{found.prefix}…" for found in bundle_sources()) or "nothing"
    raise ConfigError(
        f"{place} is no file here, and no installed plugin fetches it (they fetch {known}); download it first, or "
        "install the plugin for it, see the list of packages in SimMAT's README"
    )


def bundle_sources() -> list[BundleSource]:
    """Return what fetches bundles from elsewhere."""
    return installed().all("bundle source")
