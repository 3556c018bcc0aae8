"""A process that runs cases for the tests: it loads everything once, alone and with one thread, and forks from there.

A line of standard input is a request ({"target": …, "seed": …, "cases": …}); the answer is a line with its outcomes.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from fuzz.runner import Block, Runner  # noqa: E402 - the path and the threads come first
from fuzz.seeds import Seeds  # noqa: E402


def main() -> None:
    """Answer requests until standard input ends."""
    runner = Runner(Seeds(Path(sys.argv[1])))
    for line in sys.stdin:
        asked = json.loads(line)
        block = Block(asked["target"], asked["seed"], tuple(range(asked["cases"])))
        outcomes = [asdict(outcome) for _, outcome in runner.run([block])]
        print(json.dumps(outcomes), flush=True)


if __name__ == "__main__":
    main()
