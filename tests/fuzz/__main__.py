"""Run damaged files against the readers: `python tests/fuzz [TARGET…]`, see `run`."""

import os
import sys
from pathlib import Path

# not this folder: its modules have names of their own in `fuzz`
sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from fuzz.run import main  # noqa: E402 - the path and the threads come first

if __name__ == "__main__":
    sys.exit(main())
