"""Print the lower bound of each library that packages need directly, as constraints of an installation.

    python .ci/lowest_bounds.py . plugins/simmat-plugin-depth ... > constraints.txt

Takes folders with a pyproject.toml. Ends with 1, saying why, where a need has no lower bound or where two packages give
one library different ones. A resolver alone is no such promise: it may choose a newer library first, and then find that
another's lower bound does not go with it.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement


def needs_of(folder: Path) -> Iterator[Requirement]:
    """Yield what a package and all its extras need on this Python, but for SimMAT itself."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    lines = list(project.get("dependencies", []))
    for extra in project.get("optional-dependencies", {}).values():
        lines += extra
    for need in map(Requirement, lines):
        ours = need.name.startswith(("simmat", "napari-simmat"))
        if not ours and (need.marker is None or need.marker.evaluate()):
            yield need


def lower_bounds(folders: list[Path]) -> dict[str, str]:
    """Map each library to its lower bound.

    Raises:
        ValueError: If a need has none, or if packages differ.
    """
    bounds: dict[str, str] = {}
    for folder in folders:
        for need in needs_of(folder):
            found = [part.version for part in need.specifier if part.operator == ">="]
            if len(found) != 1:
                raise ValueError(f"{folder}: '{need}' has no lower bound")
            known = bounds.setdefault(need.name, found[0])
            if known != found[0]:
                raise ValueError(f"{folder}: '{need}', elsewhere >={known}")
    return bounds


def main(folders: list[str]) -> int:
    """Print the constraints."""
    try:
        bounds = lower_bounds([Path(folder) for folder in folders])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for name, version in bounds.items():
        print(f"{name}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
