"""Compares outputs with those recorded in `golden.json`: to the bit on the same kind of machine, else in form."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from golden.describe import Entry
from golden.workshop import Outputs

FILE = Path(__file__).with_name("golden.json")
LIBRARIES = (
    "torch",
    "numpy",
    "pillow",
    "scipy",
    "accelerate",
    "onnxruntime",
    "onnx",
    "rasterio",
)
"""Those that compute results, or write them."""
SCORE_TOLERANCE = 0.1
"""Largest difference of a score on another kind of machine, of 1."""
SHARE_TOLERANCE = 0.1
"""Largest difference of the share of an array that is not 0, on another kind of machine."""


@dataclass(frozen=True)
class Golden:
    """What is recorded: outputs of each case, and the kind of machine that made them."""

    kernel: dict[str, str]
    cases: dict[str, Outputs]


def kernel() -> dict[str, str]:
    """Return what decides the last bit of a result: processor, its instructions, libraries."""
    found = {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "flags": _flags(),
    }
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "none"
    return found


def read_golden() -> Golden:
    """Read what is recorded."""
    if not FILE.exists():
        return Golden({}, {})
    recorded = json.loads(FILE.read_text(encoding="utf-8"))
    return Golden(recorded["kernel"], recorded["cases"])


def write_golden(cases: dict[str, Outputs]) -> None:
    """Write what this machine made, one line an output."""
    lines = ['{"kernel": ' + json.dumps(kernel()) + ",", '"cases": {']
    for name, outputs in sorted(cases.items()):
        lines.append(f" {json.dumps(name)}: {{")
        lines += [
            f"  {json.dumps(key)}: {json.dumps(outputs[key])},"
            for key in sorted(outputs)
        ]
        lines[-1] = lines[-1].removesuffix(",")
        lines.append(" },")
    lines[-1] = " }"
    FILE.write_text("\n".join([*lines, "}}"]) + "\n", encoding="utf-8")


def differences(expected: Outputs, found: Outputs, *, exact: bool) -> list[str]:
    """Say what differs, one line an output.

    Args:
        expected: what is recorded.
        found: what was made.
        exact: compare digests and scores as they are; otherwise names, forms, and scores within a tolerance.
    """
    said = [f"{name} is gone" for name in expected if name not in found]
    said += [f"{name} is new" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        if not _is_same(expected[name], found[name], exact):
            said.append(f"{name} was {expected[name]}, is {found[name]}")
    return sorted(said)


def _is_same(expected: Entry, found: Entry, exact: bool) -> bool:
    if exact:
        return expected == found
    if expected.get("like") != found.get("like"):
        return False
    scores_differ = abs(expected.get("score", 0) - found.get("score", 0))
    shares_differ = abs(expected.get("share", 0) - found.get("share", 0))
    return scores_differ <= SCORE_TOLERANCE and shares_differ <= SHARE_TOLERANCE


def _processor() -> str:
    """Return the name of the processor."""
    name = _cpuinfo().get("model name")
    return name or platform.processor() or platform.machine()


def _flags() -> str:
    """Return a digest of the processor's flags: machines of a cloud have one name for several generations."""
    flags = _cpuinfo().get("flags", "")
    return hashlib.sha256(flags.encode()).hexdigest()[:16]


def _cpuinfo() -> dict[str, str]:
    """Return what Linux says about the first processor; elsewhere nothing."""
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return {}
    first = described.read_text(encoding="utf-8").partition("\n\n")[0]
    fields = [line.partition(":") for line in first.splitlines()]
    return {name.strip(): value.strip() for name, _, value in fields}
