"""What is installed here, what is wrong with it and what to do. Nothing is changed, and no network is used."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

import simmat
from simmat.errors import DamagedWeightsError, WeightsError
from simmat.io.files import CACHE_VARIABLE, cache_folder
from simmat.io.weights import find_weights
from simmat.plugin_specs import API_VERSION
from simmat.plugins.hooks import PROJECT
from simmat.plugins.loader import PLUGINS_VARIABLE, load_plugins
from simmat.plugins.registry import PluginReport, Registry
from simmat.threads import THREADS_VARIABLE, memory_limit, usable_cpus
from simmat_plugin_report.processor import cpu_name

GIB = 1 << 30
MIN_FREE_BYTES = 2 * GIB
"""Of a disk."""
MIN_SHARED_BYTES = GIB // 4
"""Containers have 64 MiB of /dev/shm by default; data-loading processes pass images through it."""

Fact = tuple[str, str]
"""Name and value."""


@dataclass(frozen=True)
class Diagnosis:
    """Something that does not work ("problem"), or works slowly or partly ("warning"), and what to do."""

    severity: Literal["problem", "warning"]
    what: str
    remedy: str


def examine() -> dict[str, list[Fact | Diagnosis]]:
    """Return what was seen of each part of the installation, by its name; a check that fails is a problem."""
    registry = load_plugins()
    checks: dict[str, Callable[[], Iterator[Fact | Diagnosis]]] = {
        "versions": partial(_versions, registry),
        "devices": _devices,
        "threads": _threads,
        "memory": _memory,
        "plugins": partial(_plugins, registry),
        "weights": partial(_weights, registry),
        "folders": _folders,
    }
    sections: dict[str, list[Fact | Diagnosis]] = {}
    for name, check in checks.items():
        sections[name] = []
        try:
            # one by one, so that what was seen before an error is kept
            for seen in check():
                sections[name].append(seen)
        # whatever is broken here must not hide the other sections
        except Exception as error:
            what = f"the check of {name} failed: {type(error).__name__}: {error}"
            remedy = "install the library that is named again, or report this output"
            sections[name].append(Diagnosis("problem", what, remedy))
    return sections


def _versions(registry: Registry) -> Iterator[Fact | Diagnosis]:
    yield (
        "simmat",
        f"{simmat.__version__}, plugin API {API_VERSION}, in {Path(simmat.__file__).parent}",
    )
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "system", platform.platform()
    packages = {report.distribution for report in registry.reports if report.version}
    found: dict[str, str] = {}
    for package in sorted({PROJECT, *packages}):
        for requirement in _requirements(package):
            version = _installed_version(requirement.name)
            found[requirement.name] = version or "missing"
            if version is None or not requirement.specifier.contains(
                version, prereleases=True
            ):
                what = f"{package} needs {requirement}, got {version or 'missing'}"
                yield Diagnosis("problem", what, f"pip install '{requirement}'")
    yield from sorted(found.items())


def _requirements(package: str) -> Iterator[Requirement]:
    """Yield what a package needs without extras."""
    for text in metadata.requires(package) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[Fact | Diagnosis]:
    import torch

    yield (
        "CPU",
        f"{cpu_name()}; torch computes with {torch.backends.cpu.get_cpu_capability()}",
    )
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / GIB
        yield (
            f"cuda:{index}",
            f"{properties.name}, {memory:.1f} GiB, CUDA {torch.version.cuda}",
        )
    if torch.backends.mps.is_available():
        yield "mps", "Apple GPU"
    has_driver = (
        Path("/proc/driver/nvidia/version").exists()
        or shutil.which("nvidia-smi") is not None
    )
    if not has_driver or torch.cuda.is_available():
        return
    what = f"there is an NVIDIA driver, but torch (built for CUDA {torch.version.cuda}) finds no GPU"
    remedy = "install the PyTorch that pytorch.org gives for CUDA, update the driver, start a container with --gpus all"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is None:
        yield Diagnosis("problem", what, remedy)
    else:
        yield Diagnosis("warning", f"{what}; CUDA_VISIBLE_DEVICES={hidden!r}", remedy)


def _threads() -> Iterator[Fact | Diagnosis]:
    import torch

    cpus = usable_cpus()
    threads = torch.get_num_threads()
    yield "cores", f"{cpus} usable of {os.cpu_count()}"
    yield (
        "torch",
        f"{threads} threads, {THREADS_VARIABLE} {os.environ.get(THREADS_VARIABLE, 'not set')}",
    )
    if threads > cpus:
        what = f"torch uses {threads} threads on {cpus} cores, which then wait for each other"
        yield Diagnosis(
            "problem",
            what,
            f"unset {THREADS_VARIABLE}, or set {THREADS_VARIABLE}={cpus}",
        )


def _memory() -> Iterator[Fact | Diagnosis]:
    memory = psutil.virtual_memory()
    yield "machine", f"{_gib(memory.available)} free of {_gib(memory.total)}"
    limit = memory_limit()
    if limit is not None:
        yield "container", f"{_gib(limit)} at most"
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return
    size = shutil.disk_usage(shared).total
    if size < MIN_SHARED_BYTES:
        what = f"/dev/shm has {_gib(size)}, through which data-loading processes pass images"
        yield Diagnosis(
            "warning",
            what,
            "start the container with --shm-size=2g, or train with --workers 0",
        )


def _plugins(registry: Registry) -> Iterator[Fact | Diagnosis]:
    for report in registry.reports:
        yield report.name, _described(report)
        if not report.error:
            continue
        what = f"plugin {report.name!r} of {report.owner or 'no package'} failed: {report.error}"
        remedy = f"take it out of {PLUGINS_VARIABLE}"
        if report.distribution:
            remedy = f"pip install --upgrade {report.distribution}, or pip uninstall {report.distribution}"
        yield Diagnosis("problem", what, remedy)
    for (kind, name), owners in registry.conflicts().items():
        what = f"{kind} {name!r} is claimed by {' and '.join(owners)}, so neither can be used"
        yield Diagnosis(
            "problem",
            what,
            f"uninstall one of them, or list the plugins to load in {PLUGINS_VARIABLE}",
        )


def _described(report: PluginReport) -> str:
    """Return the package of a plugin, its state and what it brings."""
    state = "ok"
    if report.error:
        state = "failed"
    elif report.off:
        state = f"left out by {PLUGINS_VARIABLE}"
    brings = "; ".join(", ".join(names) for names in report.gives.values())
    text = f"{report.owner}, {state}"
    return f"{text}: {brings}" if brings else text


def _weights(registry: Registry) -> Iterator[Fact | Diagnosis]:
    for spec in registry.all("foundation model"):
        fetch = f"`simmat foundations fetch {spec.name}`"
        try:
            yield spec.name, str(find_weights(spec) or "random from its seed")
        except DamagedWeightsError as error:
            yield spec.name, "damaged"
            package = registry.owner("foundation model", spec.name).partition(" ")[0]
            is_packaged = spec.weights is not None and spec.weights.path is not None
            again = f"pip install --force-reinstall --no-deps {package}"
            yield Diagnosis("problem", str(error), again if is_packaged else fetch)
        except WeightsError:
            yield spec.name, f"not here; {fetch}"


def _folders() -> Iterator[Fact | Diagnosis]:
    folders = (
        (
            "current folder",
            Path.cwd(),
            "change to a folder that you may write to, or give --out",
        ),
        (
            "temporary files",
            Path(tempfile.gettempdir()),
            "set TMPDIR to a folder that you may write to",
        ),
        (
            f"weights ({CACHE_VARIABLE})",
            cache_folder(),
            f"set {CACHE_VARIABLE} to a folder that you may write to",
        ),
    )
    for name, folder, remedy in folders:
        near = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(near).free
        yield name, f"{folder}, {_gib(free)} free"
        if not (near.is_dir() and os.access(near, os.W_OK | os.X_OK)):
            yield Diagnosis("problem", f"{name}: {near} cannot be written to", remedy)
        elif free < MIN_FREE_BYTES:
            what = f"{name}: {near} has only {_gib(free)} free"
            yield Diagnosis("warning", what, "free some space, or use another disk")


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
