"""Make a new plugin from a template; it is written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

import simmat
from simmat.errors import ConfigError
from simmat.io.files import atomic_folder, atomic_write_text
from simmat.io.images import write_image
from simmat.plugins.hooks import OWN_COMMANDS
from simmat.plugins.kinds import Kind
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import RESERVED_SOURCES

PLUGIN_PREFIX = "simmat-plugin-"
"""Start of the names of packages that bring plugins."""
KINDS: Mapping[str, tuple[Kind, str]] = {
    "sensor": ("modality", "Adapter"),
    "foundation": ("foundation model", "Model"),
    "layer": ("transfer layer", "Layer"),
    "tuner": ("tuner", "Tuner"),
    "format": ("result format", "Format"),
    "loss": ("loss", "Loss"),
    "metric": ("metric", "Metric"),
    "command": ("command", "Command"),
}
"""What a new package may bring, as `--kind` names it -> its kind in the registry, and the end of its class's name."""
_DEPENDENCIES = {
    "sensor": '"numpy>=1.26", ',
    "foundation": '"simmat-plugin-sam{range}", ',
    "metric": '"numpy>=1.26", ',
}
"""What a new package needs beside SimMAT; "{range}" is that of SimMAT's versions."""
_SAMPLE_HW = (47, 61)  # odd, so that checks notice a sensor that crops


def check_name(name: str, registry: Registry, kind: str = "sensor") -> None:
    """Raise if a plugin cannot have this name, or another one has it."""
    if name.startswith(PLUGIN_PREFIX):
        raise ConfigError(
            f"give the name alone, {name.removeprefix(PLUGIN_PREFIX)!r}; the package becomes {name}"
        )
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(
            f"a plugin's name is lower case letters, digits and single hyphens, a letter first, got {name!r}"
        )
    if kind == "sensor" and name in RESERVED_SOURCES:
        raise ConfigError(
            f"data sets use {', '.join(RESERVED_SOURCES)} themselves, got {name!r}; choose another name"
        )
    what = KINDS[kind][0]
    owners = dict.fromkeys(OWN_COMMANDS, "SimMAT itself") if kind == "command" else {}
    owners |= {part: registry.owner(what, part) for part in registry.names(what)}
    owners |= {
        part: " and ".join(owned)
        for (of, part), owned in registry.conflicts().items()
        if of == what
    }
    owners |= {
        report.name: report.owner for report in registry.reports if report.version
    }
    owner = owners.get(name) or owners.get(_part_name(name, kind))
    if owner is not None:
        raise ConfigError(f"the name {name!r} is taken by {owner}; choose another")


def _part_name(name: str, kind: str) -> str:
    """Return the name of what a package brings: that of the package, for a metric the key of its figure in scores."""
    if kind == "metric":
        return name.replace("-", "_")
    return name


def make_plugin(name: str, parent: Path, kind: str = "sensor") -> Path:
    """Write the package `simmat-plugin-NAME` into a new folder of that name, for a name that `check_name` allows.

    Args:
        kind: what it brings, one of `KINDS`.
    """
    package = PLUGIN_PREFIX + name
    target = parent / package
    if target.exists() or target.is_symlink():
        raise ConfigError(
            f"{target} exists already; choose another name or --path, or remove it first"
        )
    major, minor = (int(part) for part in simmat.__version__.split(".")[:2])
    versions = f">={major}.{minor},<{major}.{minor + 1}"
    what, ending = KINDS[kind]
    values = {
        "kind": "sensor" if kind == "sensor" else what,
        "dependencies": _DEPENDENCIES.get(kind, "").format(range=versions),
        "name": name,
        "part": _part_name(name, kind),
        "package": package,
        "module": package.replace("-", "_"),
        "class": "".join(part.capitalize() for part in name.split("-")) + ending,
        "simmat": f"simmat{versions}",
        "range": versions,
    }
    with atomic_folder(target) as folder:
        for part in ("package", kind):
            _fill(resources.files("simmat_testing") / "template" / part, folder, values)
        if kind == "sensor":
            write_image(folder / "tests" / "sample.png", _sample()[None])
    return target


def _fill(template: Traversable, folder: Path, values: Mapping[str, str]) -> None:
    """Fill in a folder of the template; in a file's name `module` becomes the plugin's module and `dot-` a dot.

    Build tools leave hidden files out of a package, so the template has none.
    """
    for entry in template.iterdir():
        name = (
            entry.name.removesuffix(".template")
            .replace("module", values["module"])
            .replace("dot-", ".")
        )
        if entry.is_dir():
            _fill(entry, folder / name, values)
        else:
            atomic_write_text(
                folder / name,
                Template(entry.read_text(encoding="utf-8")).substitute(values),
            )


def _sample() -> npt.NDArray[np.uint16]:
    """Return the (H, W) 16-bit counts of the sample file: a bright disc on a slope, with noise."""
    height, width = _SAMPLE_HW
    rows, columns = np.mgrid[:height, :width]
    counts = 800 + 10 * columns + 2000 * ((rows - 24) ** 2 + (columns - 32) ** 2 < 100)
    noise = np.random.default_rng(0).integers(0, 50, _SAMPLE_HW)
    return np.asarray(counts + noise, dtype=np.uint16)
