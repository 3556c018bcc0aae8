"""`simmat.predict`: what the command line does, in Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image
from runs import registry

import simmat
from simmat.errors import DataError, PluginError
from simmat.inference import ImageOutcome, Progress, PromptResult
from simmat.model_spec import DenseSpec
from simmat.plugin_specs import ResultFormat
from simmat.plugins.kinds import KINDS
from simmat.plugins.registry import Registry

REGISTRY = registry()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both heads, as it is before training."""
    dense = DenseSpec(background=True, classes=(1, 2))
    return tiny_bundle(
        tmp_path_factory.mktemp("predict") / "bundle", dense=dense, image_size=32
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with two images and a damaged one."""
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((40, 56), 60, np.uint8)).save(
            tmp_path / f"images/{name}.png"
        )
    (tmp_path / "images/bad.png").write_bytes(b"not an image")
    return tmp_path / "images"


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.images: list[ImageOutcome] = []
        self.counts: list[tuple[int, int]] = []

    def started(self, total: int, skipped: int) -> None:
        self.counts.append((total, skipped))

    def image(self, outcome: ImageOutcome) -> None:
        self.images.append(outcome)


def test_a_folder_is_segmented_and_each_image_says_what_became_of_it(
    bundle: Path, images: Path
) -> None:
    """A script goes on with the files that are there, and knows why others are not."""
    told, out = Told(), images.parent / "out"
    model = simmat.load(bundle, registry=REGISTRY)
    asked = {
        "out": out,
        "everything": True,
        "semantic": True,
        "registry": REGISTRY,
        "progress": told,
    }
    a, b, bad = simmat.predict(model, images, formats="labels", classes="1,2", **asked)
    assert {path.name for path in a.written} == {
        "a_objects.png",
        "a_classes.png",
        "a.json",
    }
    assert all(path.is_file() for path in (*a.written, *b.written))
    assert json.loads((out / "a.json").read_text())["foundation"] == "tiny"
    assert isinstance(bad.error, DataError)
    assert bad.written == ()
    assert told.images == [a, b, bad]
    again = simmat.predict(model, images, formats=["labels"], classes=[1, 2], **asked)
    assert [outcome.skipped for outcome in again] == [True, True, False]
    assert set(again[0].written) == set(a.written)
    assert told.counts == [(3, 0), (3, 2)]


def write_area(result: PromptResult, folder: Path) -> str:
    """Write the pixels of a mask, as a plugin would."""
    name = f"{result.name}_area.txt"
    (folder / name).write_text(str(result.area))
    return name


def test_a_format_of_prompts_that_a_plugin_brings_is_written_for_each_object(
    bundle: Path, images: Path
) -> None:
    """It is named as any other, and its file is the object's own."""
    area = ResultFormat(
        "area", "pixels", f"{__name__}:write_area", ("_area.txt",), kinds=("prompts",)
    )
    parts = [(kind, one, "") for kind in KINDS for one in REGISTRY.all(kind)]
    known = Registry(REGISTRY.reports, [*parts, ("result format", area, "a plugin")])
    (images / "p.csv").write_text(
        'file,object,box\na.png,cow,"2,2,30,30"\na.png,calf,"5,5,20,20"\n'
    )
    out = images.parent / "out"
    (found,) = simmat.predict(
        bundle, prompts=images / "p.csv", formats="area", out=out, registry=known
    )
    assert {path.name for path in found.written} == {
        "a_cow_area.txt",
        "a_cow.json",
        "a_calf_area.txt",
        "a_calf.json",
    }
    assert (out / "a_cow_area.txt").read_text() == str(
        json.loads((out / "a_cow.json").read_text())["mask_pixels"]
    )


def write_elsewhere(result: PromptResult, folder: Path) -> str:
    """Write one file and return the name of another."""
    (folder / f"{result.name}_area.txt").write_text(str(result.area))
    return f"{result.name}_area.csv"


def write_undeclared(result: PromptResult, folder: Path) -> str:
    """Write a file with an ending that the format does not declare."""
    name = f"{result.name}_pixels.txt"
    (folder / name).write_text(str(result.area))
    return name


@pytest.mark.parametrize(
    ("writer", "said"),
    [
        (write_elsewhere, "returned the file 'a_cow_area.csv', which it did not write"),
        (write_undeclared, "'a_cow_pixels.txt', but its endings declare a_cow_area"),
    ],
)
def test_a_format_that_returns_another_file_is_refused(
    bundle: Path, images: Path, writer: Callable[..., object], said: str
) -> None:
    """The json of the image would name a file that is not there, and a later call would write it again."""
    area = ResultFormat(
        "area",
        "pixels",
        f"{__name__}:{writer.__name__}",
        ("_area.txt", "_area.csv"),
        kinds=("prompts",),
    )
    parts = [(kind, one, "") for kind in KINDS for one in REGISTRY.all(kind)]
    known = Registry(REGISTRY.reports, [*parts, ("result format", area, "a plugin")])
    (images / "p.csv").write_text('file,object,box\na.png,cow,"2,2,30,30"\n')
    out = images.parent / "out"
    (outcome,) = simmat.predict(
        bundle, prompts=images / "p.csv", formats="area", out=out, registry=known
    )
    assert isinstance(outcome.error, PluginError)
    assert "the result format 'area'" in str(outcome.error)
    assert said in str(outcome.error)
    assert not list(out.glob("a_cow*.json"))
