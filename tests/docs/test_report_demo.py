"""The demo: what a newcomer runs first."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from installed import need_plugins

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simmat_demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_folder_of_somebody_else_is_left_alone(
    demo: ModuleType, tmp_path: Path
) -> None:
    """`--out ~` must not cost anybody their files."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit) as stopped:
        demo.prepare(tmp_path)
    assert stopped.value.code == 2
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failing_command_ends_the_demo_with_its_code(
    demo: ModuleType, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The first failure must be the last thing on the screen, and make must see it."""
    terminal = demo.Terminal()
    with pytest.raises(SystemExit) as stopped:
        terminal.run(
            "Do what cannot be done", "bundle", "show", tmp_path / "no such bundle"
        )
    assert stopped.value.code == 2
    printed = capfd.readouterr()
    assert f"$ simmat bundle show '{tmp_path}/no such bundle'" in printed.out
    assert "the demo stops here" in printed.err.splitlines()[-1]


@pytest.mark.slow
def test_the_demo_runs_to_a_page(tmp_path: Path) -> None:
    """From nothing to a page with scores, curves and predictions, by the commands it shows."""
    need_plugins("multispectral")
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(DEMO), "--out", str(out), "--steps", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "index.html").resolve().as_uri() in done.stdout
    commands = re.findall(r"^\$ (simmat .*)$", done.stdout, flags=re.MULTILINE)
    assert [command.split()[1] for command in commands] == [
        "data",
        "train",
        *["predict"] * 3,
        "report",
    ]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in page
    assert "untuned: IoU" in page
    assert "(water)" in page
    (out / "index.html").unlink()
    again = subprocess.run(
        [sys.executable, str(DEMO), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"$ simmat train --resume {out / 'run'}" in again.stdout
    assert (out / "index.html").is_file(), again.stderr[-2000:]
