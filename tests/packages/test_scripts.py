"""Benchmarks and notebooks import what exists: no test runs all of them."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    *sorted((ROOT / "benchmarks").glob("*.py")),
    *sorted((ROOT / "examples").glob("*.ipynb")),
]


def code_of(script: Path) -> str:
    """Return the Python code of a script or a notebook."""
    text = script.read_text(encoding="utf-8")
    if script.suffix == ".py":
        return text
    cells = []
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines()
            cells += [
                line for line in lines if not line.lstrip().startswith(("%", "!"))
            ]
    return "\n".join(cells)


def our_imports(code: str) -> Iterator[tuple[str, str]]:
    """Yield module and name of each import from a package of ours."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "simmat"
        ):
            for alias in node.names:
                yield str(node.module), alias.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_imports_what_exists(script: Path) -> None:
    """A module that moves leaves them behind, and they are run once a year."""
    for module, name in our_imports(code_of(script)):
        package = pytest.importorskip(module.partition(".")[0])
        assert package is not None
        found = import_module(module)
        assert hasattr(found, name) or import_module(f"{module}.{name}")
