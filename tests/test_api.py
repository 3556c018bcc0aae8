"""`import simmat`: what a notebook has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image
from runs import gray_set, registry

import simmat
from simmat.bundle import push_bundle
from simmat.errors import BundleError, ConfigError, UnknownNameError

SETTINGS = {"foundation": "sam_vit_tiny", "image_size": 64, "batch_size": 2, "prompts_per_image": 1, "device": "cpu"}


def test_importing_imports_no_torch() -> None:
    """Listing sensors in a shell must answer at once; heavy libraries are loaded when they are used."""
    code = (
        "import sys, simmat; simmat.Channel, simmat.SensorImage, simmat.Prompt, simmat.ModalityAdapter, simmat.Source\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "assert all(hasattr(simmat, name) for name in simmat.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`from simmat import predict` must say that it is not there, not fail in an import machinery."""
    with pytest.raises(AttributeError, match="no attribute 'predict_all'"):
        simmat.predict_all  # noqa: B018 - the access is the test


def test_train_load_predict_and_evaluate(tmp_path: Path) -> None:
    """Ten lines of a notebook."""
    data = gray_set(tmp_path / "data", train=2, val=1, test=1)
    run = simmat.train(
        modality="gray", data=data, out=tmp_path / "run", steps=1, progress=False, registry=registry(), **SETTINGS
    )
    model = simmat.load(str(run), device="cpu", registry=registry())
    model.set_image(data / "images/s0.png")
    found = model.predict(points=[(14, 20)])
    assert found.mask.shape == (40, 56)
    scores = simmat.evaluate(model, data, registry=registry())
    assert scores["tuned"]["objects"] == 2
    assert scores["zero_shot"] is None


def test_every_place_of_a_bundle_is_taken(tmp_path: Path) -> None:
    """A run, a bundle, its json and a zip of it are one model to those who use it."""
    bundle = tiny_bundle(tmp_path / "run" / "bundle")
    push_bundle(bundle, str(tmp_path / "b.zip"), licence="mit")
    scores = set()
    for place in (bundle, str(bundle), tmp_path / "run", tmp_path / "b.zip"):
        model = simmat.load(place, registry=registry(), device="cpu")
        model.set_image(np.arange(64.0).reshape(1, 8, 8))
        scores.add(model.predict(points=[(2, 2)]).score)
    assert len(scores) == 1


class Doubled(simmat.ModalityAdapter):
    """A sensor as one defines it in a notebook: text files of numbers."""

    name = "doubled"
    description = "twice what a text file says"
    sources = (simmat.Source("doubled", (".txt",)),)
    channels = (simmat.Channel("doubled", "counts", "count"),)

    def load(self, files: Mapping[str, Path]) -> simmat.SensorImage:
        path = Path(files["doubled"])
        return simmat.SensorImage.from_planes(2 * np.loadtxt(path), self.channels, origin=str(path))


def test_a_sensor_defined_in_a_notebook_is_trained_and_used(tmp_path: Path) -> None:
    """Nobody writes a package to try a sensor."""
    data = gray_set(tmp_path / "data", train=2, val=1, test=1)
    for picture in sorted((data / "images").iterdir()):
        np.savetxt(picture.with_suffix(".txt"), np.asarray(Image.open(picture)))
    text = (data / "manifest.csv").read_text().replace(".png,masks", ".txt,masks")
    (data / "manifest.csv").write_text(text)
    run = simmat.train(
        modality=Doubled, data=data, out=tmp_path / "run", steps=1, progress=False, registry=registry(), **SETTINGS
    )
    with pytest.raises(UnknownNameError, match="doubled"):
        simmat.load(run, registry=registry())
    model = simmat.load(run, modality=Doubled(), registry=registry(), device="cpu")
    assert model.set_image(data / "images/s0.txt").data.max() > 255


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, TypeError, "give source, or both foundation and modality"),
        ({"foundation": "sam_vit_tiny"}, TypeError, "both foundation and modality"),
        ({"source": "none"}, BundleError, "none: no such run, bundle or zip"),
        ({"foundation": "sam_vit_tiny", "modality": "gray"}, ConfigError, "untuned.*random"),
    ],
)
def test_what_cannot_be_loaded_is_refused(given: dict[str, str], error: type[Exception], words: str) -> None:
    """Wrong arguments get Python's words, wrong files and names SimMAT's."""
    with pytest.raises(error, match=words):
        simmat.load(**given, registry=registry())  # type: ignore[arg-type]


def test_an_unknown_setting_is_a_type_error(tmp_path: Path) -> None:
    """A keyword that is passed over would be a run with other settings than one thinks."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        simmat.train(modality="gray", data=tmp_path, out=tmp_path / "run", step=1)


def test_what_is_installed_is_listed() -> None:
    """The first thing one asks."""
    assert {"gray", "rgb", "raster"} <= set(simmat.list_modalities(registry()))
    assert "sam_vit_b" in simmat.list_foundations(registry())
