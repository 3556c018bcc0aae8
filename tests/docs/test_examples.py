"""The examples work as they say: from the root of the source, in the order of their headers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import layout_trees
import pytest
from installed import need_plugins

from simmat.cli import run

EXAMPLES = Path(__file__).parents[2] / "examples"
PLUGINS = (
    "aims",
    "baselines",
    "bench",
    "depth",
    "nir",
    "polarization",
    "sam",
    "thermal",
)


def commands(example: Path) -> list[list[str]]:
    """The commands in the comment at its head."""
    return [
        line.split("  # ")[0].split()[2:]
        for line in example.read_text().splitlines()
        if line.startswith("#     ")
    ]


def test_the_papers_bench_finds_its_data_where_its_header_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths of a command are relative to where one stands, those of a TOML to the TOML."""
    need_plugins(*PLUGINS)
    monkeypatch.delenv("SIMMAT_PLUGINS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    shutil.copy(EXAMPLES / "paper-sam-vit-b.toml", "examples")
    fetch, *indexing, bench = commands(EXAMPLES / "paper-sam-vit-b.toml")
    assert fetch == ["foundations", "fetch", "sam_vit_b"]
    for command in indexing:
        layout_trees.tree(TREE_OF.get(command[2], command[2]), Path(command[3]))
        assert run(command) == 0, capsys.readouterr().err
    assert run([*bench, "--dry-run"]) == 0, capsys.readouterr().err
    assert re.search(r"NIR.*lora", capsys.readouterr().out)


TREE_OF = {"pgsnet": "rgbp-glass"}
"""Layout -> the one whose tree it has."""
