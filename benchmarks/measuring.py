"""The harness of the benchmarks: command line, data sets, seconds, memory, and lines with a ratio to a baseline.

A benchmark that compares with a baseline prints its `Line`s by `report`, and writes them as json where `--json FILE`
says so; `benchmarks/run.py` joins these files to a table.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from simmat.io.files import atomic_path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Where the data sets are expected: beside the clone."""


@dataclass(frozen=True)
class Line:
    """A path that was measured beside its baseline, in turn.

    Attributes:
        path: what is measured.
        unit: of the figures, such as "CPU s".
        ours: figures of the rounds.
        against: what the baseline is.
        baseline: its figures, of the same rounds; one for all where it is measured once.
        floor: what cannot be undercut, in the same unit; None where it is not known.
        aim: the ratio to reach, at most; None where there is none.
    """

    path: str
    unit: str
    ours: Sequence[float]
    against: str
    baseline: Sequence[float]
    floor: float | None = None
    aim: float | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours as a multiple of the baseline, round by round."""
        bases = list(self.baseline) * (len(self.ours) if len(self.baseline) == 1 else 1)
        return [one / base for one, base in zip(self.ours, bases, strict=True)]

    @property
    def cells(self) -> list[str]:
        """The cells of a row of a table, see `HEADER`."""
        ratios = self.ratios
        return [
            self.path,
            f"{statistics.median(self.ours):.3g} {self.unit}",
            f"{self.against}, {statistics.median(self.baseline):.3g} {self.unit}",
            f"{statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})",
            "" if self.floor is None else f"{self.floor:.3g} {self.unit}",
            "" if self.aim is None else f"{self.aim:g}",
        ]


HEADER = ["path", "ours", "baseline", "ratio (range)", "floor", "aim"]


def markdown(lines: Iterable[Line]) -> str:
    """Return a table."""
    rows = [HEADER, ["---"] * len(HEADER), *(line.cells for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def parser_of(doc: str | None, *, json_file: bool = False) -> argparse.ArgumentParser:
    """Return the parser of a benchmark, whose help is its docstring; with `--json FILE` if it compares."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if json_file:
        parser.add_argument(
            "--json",
            type=Path,
            metavar="FILE",
            help="also write the figures to this file",
        )
    return parser


def report(lines: Sequence[Line], file: Path | None) -> None:
    """Print lines as a table, and write them to a file where there is one."""
    print(markdown(lines), flush=True)
    if file is not None:
        with atomic_path(file) as path:
            path.write_text(json.dumps([asdict(line) for line in lines]))


def read_lines(file: Path) -> list[Line]:
    """Return what `report` wrote."""
    return [Line(**one) for one in json.loads(file.read_text())]


class Seconds(NamedTuple):
    """Seconds of a call.

    Attributes:
        cpu: of all threads together, those included that wait; what others do on the machine changes them little.
        wall: by the clock, which several threads are for; right on an idle machine only.
    """

    cpu: float
    wall: float


def seconds_of(work: Callable[[], object]) -> Seconds:
    """Return the seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    return seconds_of(work).cpu


def in_turn(
    ways: dict[str, Callable[[], object]], rounds: int
) -> dict[str, list[Seconds]]:
    """Return way -> seconds of each round; the ways take turns, after a round that warms up."""
    found: dict[str, list[Seconds]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, work in ways.items():
            seconds = seconds_of(work)
            if turn:
                found[way].append(seconds)
    return found


def time_lines(
    path: str,
    ours: Sequence[Seconds],
    against: str,
    baseline: Sequence[Seconds],
    floor: Seconds | None = None,
    aim: float | None = None,
    *,
    threads: int = 1,
) -> list[Line]:
    """Return the line of CPU seconds and, of several threads, that of the clock; arguments as of `Line`."""
    lines = []
    for clock in range(1 if threads == 1 else 2):
        figures = [[one[clock] for one in times] for times in (ours, baseline)]
        unit = ("CPU s", f"s on {threads} threads")[clock]
        lines.append(
            Line(
                path,
                unit,
                figures[0],
                against,
                figures[1],
                None if floor is None else floor[clock],
                aim,
            )
        )
    return lines


def in_own_process(file: str, *arguments: object, **variables: str | None) -> Any:
    """Run a script and return the json that its last line is; environment variables that are None are not set."""
    command = [sys.executable, file, *map(str, arguments)]
    environment = {
        name: value
        for name, value in (os.environ | variables).items()
        if value is not None
    }
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def forget_peak() -> None:
    """Let `peak_mib` begin anew, without what is freed, where the system can; else it stays that of the process."""
    with suppress(OSError, AttributeError):  # only Linux has both
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Return the most memory of this process in MiB, since `forget_peak`; getrusage counts that of its parent, too."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(
            int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def at_matrix_rate(operations: float, half: bool = False) -> Seconds:
    """Return what floating point operations take at the rate of a large matrix product, in fp32 or bf16."""
    import torch

    side = 2048
    matrix = torch.randn(side, side, dtype=torch.bfloat16 if half else torch.float32)
    found = [seconds_of(lambda: matrix @ matrix) for _ in range(5)]
    share = operations / (2 * side**3)
    return Seconds(
        share * min(one.cpu for one in found), share * min(one.wall for one in found)
    )


def least_seconds(work: Callable[[], object], half: bool = False) -> Seconds:
    """Return what the multiplications of a call take at the rate of a large matrix product."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return at_matrix_rate(float(counter.get_total_flops()), half)
