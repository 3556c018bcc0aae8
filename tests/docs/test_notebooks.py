"""The notebooks of examples/: they run as they are, and git has them without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from installed import need_plugins

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
PLUGINS = {
    "follow-stack": ("lite", "sequences"),
    "follow-video": ("lite", "scenes", "thermal"),
    "measure-cells": ("microscopy",),
    "measure-plants": ("nir",),
    "measure-thermal": ("lite", "scenes", "thermal"),
    "satellite": ("lite", "multispectral"),
    "thermal": ("lite", "scenes", "thermal"),
}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    """Outputs are pictures in base64, which nobody can review and which make each change large."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    kept = [
        cell["id"]
        for cell in cells
        if cell.get("outputs") or cell.get("execution_count")
    ]
    assert kept == [], "clear them with `jupyter nbconvert --clear-output --inplace`"


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a data scientist reads first must do what it says, from its first cell to its last."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    need_plugins(*PLUGINS.get(notebook.stem, ("lite",)))
    if notebook.stem == "satellite":
        pytest.importorskip("simmat_plugin_geo")
    if notebook.stem.startswith("measure-"):
        pytest.importorskip("pandas")
    if notebook.stem == "follow-stack":
        pytest.importorskip("nibabel")
    # the tests' own; a kernel chooses inline
    monkeypatch.delenv("MPLBACKEND", raising=False)
    document = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(
        document,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    drawn = [
        output
        for cell in document.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert drawn, "it shows no picture"
