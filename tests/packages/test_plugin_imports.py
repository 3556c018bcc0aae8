"""Plugins use what docs/architecture.md opens to them, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SECTION = PAGE.split("### What a plugin may import\n")[1].split("\n## ")[0]
OPEN_PACKAGES = tuple(
    re.findall(
        r"`(simmat\.\w+)`", SECTION.split("- Every module of")[1].split("\n- ")[0]
    )
)
# with what lies in them
OPEN_MODULES = set(re.findall(r"`(simmat\.\w+\.\w+)`", SECTION))
BELOW_OPEN = tuple(f"{name}." for name in (*OPEN_PACKAGES, *OPEN_MODULES))
FILES = sorted(ROOT.glob("plugins/*/src/**/*.py"))
CORE = sorted((ROOT / "simmat").rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each import from simmat; a whole module has the name ""."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] == "simmat"
        ):
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (
                (alias.name, "")
                for alias in node.names
                if alias.name.split(".")[0] == "simmat"
            )


def is_open(module: str, name: str) -> bool:
    """Whether the page opens a name."""
    if any(part.startswith("_") for part in (*module.split("."), name)):
        return False
    if module == "simmat" or module in OPEN_MODULES or module.startswith(BELOW_OPEN):
        return True
    spec = find_spec(module)
    assert spec is not None, module
    if module.count(".") != 1:
        return False
    if module in OPEN_PACKAGES:
        return True
    return spec.submodule_search_locations is None or name in getattr(
        import_module(module), "__all__", ()
    )


@pytest.mark.parametrize(
    "package", sorted({file.relative_to(ROOT).parts[1] for file in FILES})
)
def test_a_plugin_imports_only_what_is_open(package: str) -> None:
    """Ours stand for those of strangers: what they need must be open to anybody, and must not change unseen."""
    assert len(OPEN_PACKAGES) == 5
    files = [file for file in FILES if file.relative_to(ROOT).parts[1] == package]
    closed = [
        f"{file.name}: {module} {name}"
        for file in files
        for module, name in imports(file)
        if not is_open(module, name)
    ]
    assert closed == []


def test_the_core_names_no_package_of_a_plugin() -> None:
    """It neither imports one nor sends anybody to one: a name in its code would be one that it prefers."""
    ours = re.compile(r"simmat[-_](plugin|testing|runtime)")
    assert len(CORE) > 100
    assert [
        file.name for file in CORE if ours.search(file.read_text(encoding="utf-8"))
    ] == []
