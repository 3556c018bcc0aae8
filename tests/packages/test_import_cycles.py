"""No file of a package imports, at last, itself; imports for types count."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / "simmat", *sorted(ROOT.glob("plugins/*/src/*/"))]


def imports(package: Path) -> dict[str, set[str]]:
    """Module -> the modules of its package that it imports anywhere, by name."""
    files = {
        ".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): file
        for file in package.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        names = [
            alias.name
            for node in nodes
            if isinstance(node, ast.Import)
            for alias in node.names
        ]
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                names += [name if name in files else str(node.module) for name in inner]
        found[module] = {name for name in names if name in files and name != module}
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_no_files_import_each_other(package: Path) -> None:
    """What is in a cycle can only be read, moved and tested as a whole."""
    try:
        TopologicalSorter(imports(package)).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
