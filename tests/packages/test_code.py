"""The code as a whole: what imports what, and that lines stay plain."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
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


COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
MOST = {
    "comprehensions": 25,
    "nested comprehensions": 0.3,
    "conditional expressions": 12,
    "walruses": 0.5,
}
"""What 1,000 lines of the core that are not blank may hold."""


def counts_of(code: str) -> Counter[str]:
    """Count what a reader has to read twice."""
    found = Counter[str]()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, COMPREHENSIONS):
            inner = (
                sum(isinstance(other, COMPREHENSIONS) for other in ast.walk(node)) - 1
            )
            found["comprehensions"] += 1
            found["nested comprehensions"] += inner > 0
        found["conditional expressions"] += isinstance(node, ast.IfExp)
        found["walruses"] += isinstance(node, ast.NamedExpr)
    return found


@pytest.fixture(scope="module")
def densities() -> dict[str, float]:
    """How many of them 1,000 lines have."""
    total = Counter[str]()
    lines = 0
    for path in sorted((ROOT / "simmat").rglob("*.py")):
        code = path.read_text(encoding="utf-8")
        total += counts_of(code)
        lines += sum(bool(line.strip()) for line in code.splitlines())
    return {name: 1000 * total[name] / lines for name in MOST}


@pytest.mark.parametrize("name", MOST)
def test_the_core_stays_plain(name: str, densities: dict[str, float]) -> None:
    """Code grows dense again a line at a time; write a loop with a name in it, or an if on a line of its own."""
    assert densities[name] <= MOST[name]


def test_dense_code_is_counted() -> None:
    """A count that finds nothing would let everything pass."""
    found = counts_of(
        "x = [[a if a else b for a in c] for c in d]\nif (y := x):\n    pass\n"
    )
    assert found == {
        "comprehensions": 2,
        "nested comprehensions": 1,
        "conditional expressions": 1,
        "walruses": 1,
    }


PLUGIN_IMPORTS_ROOT = Path(__file__).parents[2]
PAGE = (PLUGIN_IMPORTS_ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SECTION = PAGE.split("### What a plugin may import\n")[1].split("\n## ")[0]
LISTS = re.findall(r"^- .*(?:\n  .*)*", SECTION, flags=re.MULTILINE)
PROMISED = set(re.findall(r"`(simmat[.\w]*)`", LISTS[0]))
OPEN = set(re.findall(r"`(simmat[.\w]*)`", " ".join(LISTS[1:])))
FILES = sorted(PLUGIN_IMPORTS_ROOT.glob("plugins/*/src/**/*.py"))
CORE = sorted((PLUGIN_IMPORTS_ROOT / "simmat").rglob("*.py"))


def imports_of_plugin_imports(path: Path) -> Iterator[tuple[str, str]]:
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


def is_open(module: str, name: str, modules: set[str]) -> bool:
    """Whether one of these modules has a name for others."""
    if name.startswith("_") or f"{module}.{name}" in modules:
        return not name.startswith("_")
    if module not in modules:
        return False
    names = getattr(import_module(module), "__all__", None)
    return name == "" or names is None or name in names


@pytest.mark.parametrize(
    "package",
    sorted({file.relative_to(PLUGIN_IMPORTS_ROOT).parts[1] for file in FILES}),
)
def test_a_plugin_imports_only_what_is_open(package: str) -> None:
    """Ours stand for those of strangers: what they need must be open to anybody, and must not change unseen."""
    files = [
        file
        for file in FILES
        if file.relative_to(PLUGIN_IMPORTS_ROOT).parts[1] == package
    ]
    closed = [
        f"{file.name}: {module} {name}"
        for file in files
        for module, name in imports_of_plugin_imports(file)
        if not is_open(module, name, PROMISED | OPEN)
    ]
    assert closed == []


def test_what_is_open_is_used() -> None:
    """What no package of ours needs can be closed, and then be changed."""
    used = set()
    for file in FILES:
        for module, name in imports_of_plugin_imports(file):
            used |= {module, f"{module}.{name}"}
    assert OPEN - used == set()
    assert not OPEN & PROMISED


def test_the_examples_need_only_what_is_promised(tmp_path: Path) -> None:
    """A stranger begins with them."""
    page = (PLUGIN_IMPORTS_ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) > 10
    example = tmp_path / "example.py"
    for block in blocks:
        example.write_text(block, encoding="utf-8")
        for module, name in imports_of_plugin_imports(example):
            assert is_open(module, name, PROMISED), (module, name)


def test_the_core_names_no_package_of_a_plugin() -> None:
    """It neither imports one nor sends anybody to one: a name in its code would be one that it prefers."""
    ours = re.compile(r"simmat[-_](plugin|testing|runtime)")
    assert len(CORE) > 100
    assert [
        file.name for file in CORE if ours.search(file.read_text(encoding="utf-8"))
    ] == []


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


NO_OUTSIDE_FILES_ROOT = Path(__file__).parents[2]
OUTSIDE = re.compile(
    r"Path\.home\(|expanduser|[\"']/(work|tmp|mnt)/\w|\"shared\" / \"data\""
)


def test_tests_read_only_the_checkout() -> None:
    """A test that needs somebody's disk is skipped, or fails, on every other."""
    found = []
    for file in [
        *NO_OUTSIDE_FILES_ROOT.glob("tests/**/*.py"),
        *NO_OUTSIDE_FILES_ROOT.glob("*/*/tests/**/*.py"),
    ]:
        for line in file.read_text(encoding="utf-8").splitlines():
            if (
                OUTSIDE.search(line)
                and "SIMMAT_SHARED_DATA" not in line
                and file != Path(__file__)
            ):
                found.append(
                    f"{file.relative_to(NO_OUTSIDE_FILES_ROOT)}: {line.strip()}"
                )
    assert found == []
