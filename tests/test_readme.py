"""The Python of the README runs as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from installed import need_plugins

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_lines_of_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first thing that a data scientist copies; two small steps in place of eighty."""
    need_plugins("thermal", "lite", "scenes")
    from simmat_plugin_scenes.dataset import simulate_dataset

    import simmat
    from simmat.plugins.loader import load_plugins

    monkeypatch.chdir(tmp_path)
    simulate_dataset(load_plugins().modality("thermal"), Path("DIR"), count=3, seed=0, size_hw=(64, 64))
    shutil.copy(next(Path("DIR/images").rglob("*.tif*")), "photo.tiff")
    (lines,) = BLOCKS
    assert "steps=80" in lines
    short = lines.replace("steps=80", "steps=2, image_size=64, batch_size=2, prompts_per_image=1, device='cpu'")
    short = short.replace("(320, 240)", "(32, 32)")
    exec(compile(short, str(README), "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert simmat.load("RUN", device="cpu").adapter.name == "thermal"
