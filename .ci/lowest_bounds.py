"""Check that what packages need directly is installed at their lower bounds, so that a test run here is a run of those.

    python .ci/lowest_bounds.py simmat simmat-plugin-depth ...

Says what is not, and ends with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.version import Version


def needs_of(package: str) -> Iterator[Requirement]:
    """Yield what a package and all its extras need in this environment, but for SimMAT itself."""
    extras = ["", *(metadata(package).get_all("Provides-Extra") or ())]
    for need in map(Requirement, requires(package) or ()):
        meant = need.marker is None or any(
            need.marker.evaluate({"extra": extra}) for extra in extras
        )
        if meant and not need.name.startswith("simmat"):
            yield need


def fault_of(need: Requirement) -> str | None:
    """Return what keeps a lower bound from being run here, or None."""
    bounds = [part.version for part in need.specifier if part.operator == ">="]
    if len(bounds) != 1:
        return f"'{need}' has no lower bound"
    try:
        installed = version(need.name)
    except PackageNotFoundError:
        return f"'{need}' is not installed"
    return (
        None
        if Version(installed) == Version(bounds[0])
        else f"'{need}' is installed as {installed}"
    )


def main(packages: list[str]) -> int:
    """Print what is not at its lower bound."""
    found = [
        f"{package}: {fault}"
        for package in packages
        for need in needs_of(package)
        if (fault := fault_of(need))
    ]
    print(
        "\n".join(found) or f"lower bounds of {len(packages)} packages: all installed"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
