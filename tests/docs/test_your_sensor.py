"""docs/your-sensor.md, followed to the letter; and the sensor it builds, on real files."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from installed import need_plugins
from virtual_envs import clean_environment, make_venv

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "simmat-plugin-sonar"
PAGE = (ROOT / "docs" / "your-sensor.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
FILES = [text.partition("\n") for language, text in BLOCKS if language == "python"]


def test_the_page_builds_the_example() -> None:
    """Two texts of one sensor would drift apart."""
    built = {name.removeprefix("# "): text for name, _, text in FILES}
    assert built.keys() == {
        "src/simmat_plugin_sonar/__init__.py",
        "tests/test_simmat_plugin_sonar.py",
    }
    for name, text in built.items():
        assert text == (EXAMPLE / name).read_text(encoding="utf-8")


def test_the_example_uses_public_names_alone() -> None:
    """It stands for a stranger's package: what it needs must be open to anybody."""
    for file in EXAMPLE.rglob("*.py"):
        modules = re.findall(
            r"^from (simmat[\w.]*) import",
            file.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        assert modules
        assert not [
            module
            for module in modules
            if any(part.startswith("_") for part in module.split("."))
        ]


@pytest.mark.slow
def test_every_block_of_the_page_works_in_its_order(tmp_path: Path) -> None:
    """A newcomer's first ten minutes; fewer steps of training, all else as it stands."""
    need_plugins("lite", "report", "scenes")
    python = make_venv(tmp_path / "env")
    folder = tmp_path
    env = {
        **clean_environment(),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    }
    for language, text in BLOCKS:
        if language == "python":
            name, _, content = text.partition("\n")
            (folder / name.removeprefix("# ")).write_text(content, encoding="utf-8")
            continue
        script = text.replace("--steps 40", "--steps 2 --image-size 64").replace(
            "--count 40", "--count 8"
        )
        line = ["bash", "-ec", script + '\npwd > "$HERE"']
        done = subprocess.run(
            line,
            cwd=folder,
            env={**env, "HERE": str(tmp_path / "here")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (
            f"{text}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
        folder = Path((tmp_path / "here").read_text().strip())
    assert (folder / "run" / "report.html").is_file()
    assert (folder / "masks" / "s00000_overlay.png").is_file()
