"""Measure how long commands take to start: best of several starts, and as a ratio to what cannot be faster.

    python benchmarks/startup.py [--runs 10]

Commands that only list are compared with `import numpy`, the mask of one image with `import torch` (simmat-plugin-lite,
untuned; its imports alone, and all of it). All are measured in turn, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
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


def seconds(command: list[str], stdin: str = "") -> float:
    """Return how long a command takes, from start to end."""
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True, text=True, input=stdin)
    return time.perf_counter() - start


def measured(commands: dict[str, list[str]], runs: int, stdin: str = "") -> None:
    """Measure commands and print a table with ratios to the first."""
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(runs):
        for name, command in commands.items():
            best[name] = min(best[name], seconds(command, stdin))
    first = next(iter(best.values()))
    print(f"{'command':<32} {'best of ' + str(runs):>11} {'ratio':>6}")
    for name, value in best.items():
        print(f"{name:<32} {value:>10.3f}s {value / first:>6.2f}")
    print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    measured(TELLING, runs)
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.png")
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)).save(image)
        asked = ["predict", "--foundation", "lite", "--modality", "gray", str(image), "--point", "128,128"]
        asked += ["--device", "cpu", "--out", str(Path(folder, "out"))]
        done = subprocess.run([*PYTHON, MODULES, *asked], capture_output=True, check=True, text=True)
        commands = {
            "import torch": [*PYTHON, "import torch"],
            "the imports of simmat predict": [*PYTHON, IMPORTING],
            "simmat predict": [*SIMMAT, *asked],
        }
        measured(commands, runs, done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
