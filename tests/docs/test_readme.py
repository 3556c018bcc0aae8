"""The Python of the README and of docs/python.md runs as it is written there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from installed import need_plugins

ROOT = Path(__file__).parents[2]
PAGES = [
    pytest.param(ROOT / "README.md", id="README.md"),
    pytest.param(ROOT / "docs" / "python.md", id="python.md", marks=pytest.mark.slow),
]
SMALL = "steps=2, image_size=64, batch_size=2, prompts_per_image=1, device='cpu', pictures=False, progress=False"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of the start page, with three images; and a photograph of the same size."""
    need_plugins("thermal", "lite", "scenes")
    from simmat_plugin_scenes.dataset import SIZE_HW, simulate_dataset

    from simmat.plugins.loader import load_plugins

    folder = tmp_path_factory.mktemp("pages")
    simulate_dataset(
        load_plugins().modality("thermal"),
        folder / "scenes",
        count=3,
        seed=0,
        size_hw=SIZE_HW,
    )
    simulate_dataset(
        load_plugins().modality("rgb"), folder / "rgb", count=3, seed=0, size_hw=SIZE_HW
    )
    shutil.copy(next((folder / "rgb/images").rglob("*.png")), folder / "photo.png")
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(
    page: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing that a data scientist copies; two small steps in place of eighty."""
    import simmat

    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    assert "steps=80" in code
    monkeypatch.chdir(tmp_path)
    for path in scenes.iterdir():
        (tmp_path / path.name).symlink_to(path)
    names: dict[str, object] = {}
    exec(compile(code.replace("steps=80", SMALL), str(page), "exec"), names)
    assert simmat.load("run-from-python", device="cpu").adapter.name == "thermal"


def test_the_list_of_packages_names_what_each_brings() -> None:
    """The error for an unknown name sends people there; the core knows no package by what it brings."""
    from simmat.plugins.loader import load_plugins

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(
            r"^\| `(simmat[\w-]*)` (?:\(the core\) )?\| (.*) \|$", readme, re.MULTILINE
        )
    )
    kinds = (
        "modality",
        "foundation model",
        "foundation family",
        "transfer layer",
        "command",
    )
    for report in load_plugins().reports:
        if report.distribution in rows and report.distribution != "simmat":
            names = [name for kind in kinds for name in report.gives.get(kind, ())]
            assert [
                name
                for name in names
                if name.split()[-1] not in rows[report.distribution]
            ] == []
