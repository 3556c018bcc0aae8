"""Where the golden commands run: each once, in a folder of its own making."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from golden.describe import Entry, describe_file
from simmat.cli import run as run_command

Outputs = dict[str, Entry]
"""Name of a file, array or score -> what is kept of it."""
SIZE_HW = (72, 96)


@dataclass(frozen=True)
class Case:
    """One documented command, or one piece of the documented Python."""

    name: str
    needs: tuple[str, ...]
    """Cases that run before it."""
    packages: tuple[str, ...]
    """Those that must be installed for it."""
    run: Callable[[Workshop], Outputs]


CASES: dict[str, Case] = {}


def case(
    name: str, *needs: str, packages: tuple[str, ...] = ()
) -> Callable[[Callable[[Workshop], Outputs]], Case]:
    """Add a function to the cases."""

    def added(function: Callable[[Workshop], Outputs]) -> Case:
        CASES[name] = Case(name, needs, packages, function)
        return CASES[name]

    return added


def packages_of(name: str) -> set[str]:
    """Return the packages that a case and those before it need."""
    found = set(CASES[name].packages)
    for other in CASES[name].needs:
        found |= packages_of(other)
    return found


@dataclass
class Workshop:
    """A folder in which each case runs at most once."""

    root: Path
    done: dict[str, Outputs] = field(default_factory=dict)

    def outputs(self, name: str) -> Outputs:
        """Return the outputs of a case, after those that it needs."""
        for other in CASES[name].needs:
            self.outputs(other)
        if name not in self.done:
            with contextlib.chdir(self.root):
                self.done[name] = CASES[name].run(self)
        return self.done[name]


def simmat(line: str) -> str:
    """Run a command line of simmat, and return what it prints.

    Raises:
        AssertionError: if its exit code is not 0.
    """
    printed = io.StringIO()
    complained = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        code = run_command(line.split())
    assert code == 0, (
        f"simmat {line}: exit code {code}\n{printed.getvalue()}{complained.getvalue()}"
    )
    return printed.getvalue()


def files_in(folder: str, *, leave_out: tuple[str, ...] = ()) -> Outputs:
    """Describe every file in a folder, without hidden ones.

    Args:
        folder: in the working folder.
        leave_out: starts of paths in the folder that are described elsewhere.
    """
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if (
            path.is_file()
            and not hidden
            and not inside.as_posix().startswith(leave_out)
        ):
            found[path.as_posix()] = describe_file(path, Path.cwd())
    return found


def read_json(path: str) -> Any:
    """Read a json file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_shapes(folder: Path, splits: Mapping[str, int]) -> None:
    """Write a thermal data set in centikelvin: a hot disc and a warm square in each image, with classes 1 and 2."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["id,split,image,mask"]
    for split, count in splits.items():
        for _ in range(count):
            name = f"s{len(rows) - 1}"
            image, mask = draw_shapes(rng, SIZE_HW)
            Image.fromarray(image).save(folder / f"images/{name}.tif")
            Image.fromarray(mask).save(folder / f"masks/{name}.png")
            rows.append(f"{name},{split},images/{name}.tif,masks/{name}.png")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "card.toml").write_text(CARD, encoding="utf-8")


CARD = """format = 1
regions = "panoptic"

[class_names]
1 = "disc"
2 = "square"

[modality_options]
unit = "cK"
"""


def draw_shapes(
    rng: np.random.Generator, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (H, W) uint16 in centikelvin, and its mask (H, W) uint16 of class * 1000 + number."""
    height, width = size_hw
    rows, columns = np.mgrid[:height, :width]
    image = rng.integers(28900, 29100, size_hw)
    mask = np.zeros(size_hw, np.uint16)
    y, x = rng.integers(22, 50), rng.integers(20, 30)
    disc = (rows - y) ** 2 + (columns - x) ** 2 < rng.integers(13, 18) ** 2
    image[disc] += 1500
    mask[disc] = 1001
    y, x, half = rng.integers(22, 50), rng.integers(66, 76), rng.integers(11, 16)
    square = (abs(rows - y) < half) & (abs(columns - x) < half)
    image[square] += 800
    mask[square] = 2002
    return image.astype(np.uint16), mask


def write_on_map(path: Path, values: np.ndarray, east_m: float) -> None:
    """Write a GeoTIFF in UTM zone 32 north, with pixels of one metre."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)
    tags = [
        (33550, "d", 3, (1.0, 1.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0 + east_m, 5_000_000.0, 0.0), True),
        (34735, "H", len(keys), keys, True),
    ]
    tifffile.imwrite(path, values, extratags=tags, photometric="minisblack")
