"""Measure the CPU time in which commands start, as a ratio to what cannot be faster.

    python benchmarks/startup.py [--runs 10] [--json FILE]

Commands that only list are compared with `import numpy`, the mask of one image with `import torch` (simmat-plugin-lite,
untuned; its imports alone, and all of it). All are measured in turn, so that a busy machine slows all alike.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import Line, parser_of, report
from PIL import Image

PYTHON, SIMMAT = [sys.executable, "-c"], [sys.executable, "-m", "simmat"]
TELLING = {
    "import numpy": [*PYTHON, "import numpy"],
    "simmat --help": [*SIMMAT, "--help"],
    "simmat modalities list": [*SIMMAT, "modalities", "list"],
    "simmat plugins list": [*SIMMAT, "plugins", "list"],
}
MODULES = """
import sys
from simmat.cli import run
code = run(sys.argv[1:])
print(*(name for name in sys.modules if name != "__main__"))
sys.exit(code)
"""
IMPORTING = """
import sys, importlib, contextlib
for name in sys.stdin.read().split():
    with contextlib.suppress(ImportError):  # names that are no modules of a file
        importlib.import_module(name)
"""


def seconds(command: list[str], stdin: str) -> float:
    """Return the CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True, text=True, input=stdin)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(commands: dict[str, list[str]], runs: int, stdin: str = "") -> list[Line]:
    """Measure commands; the first is the baseline of the others."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            found[name].append(seconds(command, stdin))
    base, *others = found
    return [Line(name, "CPU s", found[name], base, found[base]) for name in others]


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument("--runs", type=int, default=10)
    given = parser.parse_args()
    lines = measure(TELLING, given.runs)
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.png")
        Image.fromarray(
            np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
        ).save(image)
        asked = [
            "predict",
            "--foundation",
            "lite",
            "--modality",
            "gray",
            str(image),
            "--point",
            "128,128",
        ]
        asked += ["--device", "cpu", "--out", str(Path(folder, "out"))]
        done = subprocess.run(
            [*PYTHON, MODULES, *asked], capture_output=True, check=True, text=True
        )
        commands = {
            "import torch": [*PYTHON, "import torch"],
            "the imports of simmat predict": [*PYTHON, IMPORTING],
            "simmat predict": [*SIMMAT, *asked],
        }
        lines += measure(commands, given.runs, done.stdout.splitlines()[-1])
    report(lines, given.json)


if __name__ == "__main__":
    main()
