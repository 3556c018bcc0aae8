"""Run the benchmarks that compare with a baseline, and join what they found to one table.

    python benchmarks/run.py [--quick] [--only NAME ...] [--folder runs/benchmarks]

Each is a process of its own, one after the other, with one thread unless it is about threads. A benchmark whose
NAME.json is in the folder is not run again, so a run goes on where it was stopped; delete the file to measure anew. Its
output is in NAME.log; table.md joins all that are in the folder. --quick takes fewer rounds and smaller inputs, in
a folder of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from measuring import markdown, parser_of, read_lines

from simmat.io.files import atomic_write_text

BENCHMARKS: dict[str, tuple[str, str]] = {
    "training_parts": ("", "--runs 3"),
    "training_items": ("", "--images 8 --runs 3"),
    "scoring": ("", "--runs 1"),
    "second_click": ("", "--runs 2 lite"),
    "startup": ("", "--runs 3"),
    "threads": ("", "--images 5 --rounds 1"),
    "folder": ("", "--images 20 --ask semantic"),
    "raster": ("--side 4000", "--side 1000 --ask semantic"),
}
"""Name -> arguments, and those of `--quick`."""


def measure(name: str, arguments: str, folder: Path) -> bool:
    """Run a benchmark, unless its result is there; return whether it is there now."""
    result = folder / f"{name}.json"
    if result.exists():
        print(f"{name}: as found in {result}", flush=True)
        return True
    print(f"{name} …", flush=True)
    command = [
        sys.executable,
        str(Path(__file__).with_name(f"{name}.py")),
        *arguments.split(),
        "--json",
        str(result),
    ]
    environment = os.environ | ({} if name == "threads" else {"OMP_NUM_THREADS": "1"})
    log = folder / f"{name}.log"
    with log.open("w") as file:
        code = subprocess.run(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        print(f"{name} ended with {code}; see {log}", file=sys.stderr, flush=True)
    return code == 0


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(BENCHMARKS),
        default=list(BENCHMARKS),
        metavar="NAME",
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    given = parser.parse_args()
    folder: Path = given.folder / "quick" if given.quick else given.folder
    folder.mkdir(parents=True, exist_ok=True)
    done = [measure(name, BENCHMARKS[name][given.quick], folder) for name in given.only]
    found = [file for name in BENCHMARKS if (file := folder / f"{name}.json").exists()]
    table = markdown(line for file in found for line in read_lines(file))
    atomic_write_text(folder / "table.md", table)
    print(f"\n{table}")
    sys.exit(not all(done))


if __name__ == "__main__":
    main()
