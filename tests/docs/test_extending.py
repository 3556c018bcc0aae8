"""The parts of docs/extending.md, as they are written there."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed import need_plugins
from PIL import Image
from runs import gray_set
from runs import registry as installed_parts
from simmat_testing.find_parts import find_checkable
from simmat_testing.scaffold import make_plugin

import simmat
from simmat import FrameSequence
from simmat.cli.tables import score_rows
from simmat.errors import DataError, PluginError, UnknownNameError
from simmat.evaluation.prompts import metric_value
from simmat.io import frames
from simmat.plugin_specs import MetricSpec
from simmat.plugins.kinds import KINDS
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry, import_from_string
from simmat.training import RunFolder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(
    re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
)
"""Path of a file -> its text."""
GENERATED = dict(
    re.findall(r"`simmat\s+plugins\s+new\s+([\w-]+)\s+--kind\s+(\w+)`", PAGE)
)
"""Name of a plugin -> its kind, for those that the page does not show but generates."""
SETTINGS: dict[str, Any] = {
    "foundation": "tiny",
    "image_size": 64,
    "batch_size": 2,
    "steps": 1,
    "device": "cpu",
}
PICTURE = np.zeros((8, 8, 3), np.uint8)


def load(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *others: str
) -> Registry:
    """Return the built-in parts and those of a plugin of the page, and of other plugins that are installed.

    The page has the files of the plugin, or names the kind with which `simmat plugins new` writes it.
    """
    module = f"simmat_plugin_{name.replace('-', '_')}"
    if kind := GENERATED.get(name):
        folder = make_plugin(name, folder, kind) / "src"
    for path, text in FILES.items():
        if path.startswith(f"src/{module}/"):
            (folder / path.removeprefix("src/")).parent.mkdir(exist_ok=True)
            (folder / path.removeprefix("src/")).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    entries = [importlib.metadata.EntryPoint(name, module, "simmat")]
    for other in others:
        entries += importlib.metadata.entry_points(group="simmat", name=other)
    return load_plugins(entries, {"SIMMAT_STRICT_PLUGINS": "1"})


def test_the_layer_of_the_page_keeps_its_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is copied from; a slip in it is a slip in many."""
    ((_, _, run_in),) = find_checkable("gain", load("gain", tmp_path, monkeypatch))
    results = list(run_in(tmp_path))
    assert results
    assert [result for result in results if result.status == "failed"] == []


def test_a_format_of_followed_objects_is_written_of_a_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes are those of the masks in each frame."""
    need_plugins("sequences")
    from simmat_plugin_sequences.tracks import TrackRow, Tracks, named_formats

    (chosen,) = named_formats(["mot"], load("mot", tmp_path, monkeypatch))
    plane = np.zeros((8, 8), np.uint8)
    plane[2:5, 1:7] = 3
    for number in range(2):
        Image.fromarray(plane * number).save(tmp_path / f"frame{number}.png")
    frames = FrameSequence(tmp_path, "gray")
    tracks = Tracks(frames, tmp_path, [TrackRow(1, 3, 18, 1.0)], {1: [3]}, {})
    name = import_from_string(chosen.write)(tracks, tmp_path)
    assert (tmp_path / name).read_text() == "2,3,1,2,6,3,1,-1,-1,-1\n"


def test_a_format_of_frames_is_read_frame_by_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording is a sequence as any other, and one that is cut is refused by name."""
    registry = load("raw", tmp_path, monkeypatch)
    monkeypatch.setattr(frames, "plugin_formats", lambda: registry.all("stack format"))
    recorded = np.random.default_rng(0).integers(0, 2**16, (2, 1, 512, 640), np.uint16)
    (tmp_path / "a.raw").write_bytes(recorded.astype("<u2").tobytes())
    (tmp_path / "cut.raw").write_bytes(b"short")
    found = list(FrameSequence(tmp_path / "a.raw", "gray"))
    assert np.array_equal([image.data for image in found], recorded)
    with pytest.raises(DataError, match=r"cut\.raw: damaged"):
        FrameSequence(tmp_path / "cut.raw", "gray")


def test_a_loss_trains_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its terms are those of the log, and an unknown name is refused with those that are known."""
    registry = load("poly", tmp_path, monkeypatch, "testing")
    given = {
        "modality": "gray",
        "data": gray_set(tmp_path / "data", train=2, val=1),
        "progress": False,
        **SETTINGS,
    }
    run = simmat.train(out=tmp_path / "run", loss="poly", registry=registry, **given)
    (step,) = (one for one in RunFolder(run).records() if one["kind"] == "train")
    assert step["loss"] > 0
    assert {"mask", "dice"} <= step.keys()
    with pytest.raises(UnknownNameError, match=r"no loss 'pole'.*'poly'"):
        simmat.train(out=tmp_path / "other", loss="pole", registry=registry, **given)


def test_a_metric_is_in_scores_table_and_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but its own file names it."""
    registry = load("missed", tmp_path, monkeypatch, "testing")
    title = "share of an object's pixels that the mask lacks"
    data = gray_set(tmp_path / "data", train=2, val=1, test=1)
    given = {"modality": "gray", "data": data, "progress": False, **SETTINGS}
    run = simmat.train(out=tmp_path / "run", registry=registry, **given)
    model = simmat.load(run, registry=registry, device="cpu")
    scores = simmat.evaluate(model, data, registry=registry)
    row = (
        scores.objects[0]
        if isinstance(scores.objects, list)
        else scores.objects.iloc[0]
    )
    assert 0 <= row["missed"] <= 1
    assert 0 <= scores["tuned"]["missed"] <= 1
    rows = dict(score_rows(scores["tuned"], {}, registry.all("metric")))
    assert rows[f"  {title}"] == f"{scores['tuned']['missed']:.4f}"
    need_plugins("hub")
    from simmat_plugin_hub import model_card

    assert model.bundle is not None
    assert title in model_card(model.bundle.spec, registry=registry)


def test_a_metric_of_what_is_found_without_prompts(tmp_path: Path) -> None:
    """It gets all images at once, and its figure is in the block beside SimMAT's own."""
    data = gray_set(tmp_path / "data", train=2, val=2)
    items = [
        ("metric", MetricSpec(f"n_{kind}", kind, "builtins:len", kind), "test")
        for kind in ("objects", "classes")
    ]
    known = installed_parts()
    known = Registry(
        [],
        [
            *items,
            *((kind, part, "simmat") for kind in KINDS for part in known.all(kind)),
        ],
    )
    given = {
        "modality": "gray",
        "data": data,
        "progress": False,
        "heads": "prompt,dense",
        **SETTINGS,
    }
    run = simmat.train(out=tmp_path / "run", registry=known, **given)
    scores = simmat.evaluate(
        run,
        data,
        split="val",
        everything=True,
        semantic=True,
        device="cpu",
        registry=known,
    )
    assert scores["tuned"]["everything"]["n_objects"] == 2
    assert scores["tuned"]["semantic"]["n_classes"] >= 1


def test_a_metric_that_fails_is_named() -> None:
    """Or its author looks for the fault in SimMAT."""
    spec = MetricSpec("size", "number of parts", "builtins:len")
    with pytest.raises(PluginError, match=r"metric 'size' failed \(TypeError"):
        metric_value(spec, 1)
