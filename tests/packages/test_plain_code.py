"""The core is written one thought a line: few comprehensions, conditional expressions and walruses."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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
