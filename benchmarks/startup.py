"""How long the commands take that only tell: best of several starts, and as a ratio to `python -c "import numpy"`.

    python benchmarks/startup.py [--runs 10]

All are measured in turn, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

BASELINE = 'python -c "import numpy"'
COMMANDS = {
    BASELINE: [sys.executable, "-c", "import numpy"],
    "simmat --help": [sys.executable, "-m", "simmat", "--help"],
    "simmat modalities list": [sys.executable, "-m", "simmat", "modalities", "list"],
    "simmat plugins list": [sys.executable, "-m", "simmat", "plugins", "list"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def seconds(command: list[str]) -> float:
    """Return how long a command takes, from start to end."""
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    best = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(runs):
        for name, command in COMMANDS.items():
            best[name] = min(best[name], seconds(command))
    print(f"{'command':<26} {'best of ' + str(runs):>11} {'ratio':>6}")
    for name, value in best.items():
        print(f"{name:<26} {value:>10.3f}s {value / best[BASELINE]:>6.2f}")


if __name__ == "__main__":
    main()
