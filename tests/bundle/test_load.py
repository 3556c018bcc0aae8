"""Bundles: loaded from elsewhere, and refused where they do not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from bundles import SPEC, change_json, predict, tiny_bundle
from PIL import Image
from runs import config, gray_set, registry
from safetensors.torch import save_file
from simmat_testing.tiny import TINY
from torch import nn

from simmat import training
from simmat.assemble import build_foundation
from simmat.bundle import (
    FILE_NAME,
    Package,
    check_sensor_channels,
    load_bundle,
    read_bundle_spec,
)
from simmat.errors import BundleError, DataError, UnknownNameError
from simmat.evaluation import evaluate_bundle, seen_note
from simmat.io.weights import sha256_of
from simmat.plugin_specs import WeightFile
from simmat.plugins.registry import Registry
from simmat.sensors.builtin import band_channels
from simmat.types import Prompt

REGISTRY = registry()


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.train(
        config(data, tmp_path_factory.mktemp("run") / "run", steps=2, val_every=1),
        REGISTRY,
    )


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(trained, tmp_path / "moved bündle.safetensors"))


@pytest.mark.slow
def test_a_bundle_needs_nothing_but_itself(
    bundle: Path, data: Path, trained: Path
) -> None:
    """People send each other bundles, not run folders."""
    picture = data / "images/s0.png"
    script = (
        "import sys; from pathlib import Path; from runs import registry; from simmat.bundle import load_bundle\n"
        "from bundles import predict; from simmat.types import Prompt\n"
        "import torch; torch.set_num_threads(1)\n"
        f"b = load_bundle(Path({str(bundle)!r}), registry())\n"
        f"print(repr(predict(b, {{'gray': Path({str(picture)!r})}}, Prompt.points([(14, 20)])).score))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command,
        cwd=bundle.parent,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    here = predict(
        load_bundle(trained, REGISTRY), {"gray": picture}, Prompt.points([(14, 20)])
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(here.score, abs=1e-6)


def test_the_loaded_network_is_the_one_that_was_validated(
    trained: Path, data: Path
) -> None:
    """Scores in a bundle must be those of the weights in it."""
    bundle = load_bundle(trained, REGISTRY)
    scores, zero = evaluate_bundle(
        bundle, data, "val", zero_shot=True, registry=REGISTRY
    )
    assert scores.summary()["miou_object"] == pytest.approx(
        bundle.spec.metrics["val"]["miou_object"], abs=1e-6
    )
    assert zero is None


def test_a_bundle_holds_no_pickle_and_no_clock(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    """Equal runs give equal files, and a bundle from a stranger runs no code."""
    again = training.train(
        config(data, tmp_path / "again", steps=2, val_every=1), REGISTRY
    )
    assert again.read_bytes() == trained.read_bytes()
    assert again == tmp_path / "again" / FILE_NAME


def test_other_channels_are_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    """Kelvin in a network trained on counts would give a mask that looks like one."""
    change_json(
        bundle, lambda document: document["sensor_channels"][0].update(unit="K")
    )
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(BundleError, match=r"gray \[count\].*gray \[K\]"):
        predict(
            load_bundle(bundle, REGISTRY),
            {"gray": tmp_path / "x.png"},
            Prompt.points([(1, 1)]),
        )


def test_a_file_of_just_the_picked_planes_is_told_what_to_do(tmp_path: Path) -> None:
    """Planes are known by their place alone, so two planes may be any of three."""
    stored = band_channels(3)
    spec = SPEC.model_copy(
        update={
            "modality": "raster",
            "selected_channels": (0, 2),
            "sensor_channels": stored,
        }
    )
    picked = [channel.with_statistics(1.0, 1.0) for channel in (stored[0], stored[2])]
    spec = spec.model_copy(update={"channels": tuple(picked)})
    with pytest.raises(BundleError) as refused:
        check_sensor_channels(spec, band_channels(2), "two.npy", tmp_path)
    for words in ("two.npy", "--channels 0,2", "file of all 3", "train without"):
        assert words in str(refused.value)
    check_sensor_channels(spec, stored, "three.npy", tmp_path)


def test_the_folder_of_a_run_stands_for_its_best_bundle(
    trained: Path, data: Path
) -> None:
    """It holds one bundle, so there is nothing to ask back."""
    assert read_bundle_spec(trained.parent) == read_bundle_spec(trained)
    loaded, direct = (
        load_bundle(trained.parent, REGISTRY),
        load_bundle(trained, REGISTRY),
    )
    sources, prompt = {"gray": data / "images/s0.png"}, Prompt.points([(14, 20)])
    assert (
        predict(loaded, sources, prompt).score == predict(direct, sources, prompt).score
    )


def test_the_region_rule_of_training_counts_where_the_data_set_has_none(
    tmp_path: Path,
) -> None:
    """A card that says one thing says nothing of the others; left out, the score would be of other objects."""
    data = gray_set(tmp_path / "set", test=8)
    silent = evaluate_bundle(
        load_bundle(
            training.train(config(data, tmp_path / "a", steps=1), REGISTRY), REGISTRY
        ),
        data,
    )
    areas = sorted(score.area for score in silent[0].objects)
    bar = areas[len(areas) // 2]
    stated = training.train(
        config(data, tmp_path / "b", steps=1, min_region=bar), REGISTRY
    )
    scores, _ = evaluate_bundle(load_bundle(stated, REGISTRY), data)
    assert (
        sorted(score.area for score in scores.objects)
        == [area for area in areas if area >= bar]
        != areas
    )


def moved(data: Path, root: Path, **splits: str) -> Path:
    """The data set with other splits, and every image under another name."""
    shutil.copytree(data, root)
    for number in range(9):
        (root / f"images/s{number}.png").rename(root / f"images/new{number}.png")
    rows = (
        (data / "manifest.csv")
        .read_text()
        .replace("images/s", "images/new")
        .splitlines()
    )
    parts = [row.split(",") for row in rows]
    changed = [
        ",".join([part[0], splits.get(part[0], part[1]), *part[2:]]) for part in parts
    ]
    (root / "manifest.csv").write_text("\n".join(changed))
    return root


@pytest.mark.parametrize(
    ("split", "splits", "scored", "seen"),
    [
        ("test", {}, ["s7", "s8"], ([], [], [])),
        ("test", {"s0": "test", "s5": "test"}, ["s7", "s8"], ([], [], ["s0", "s5"])),
        (
            "val",
            {"s0": "val", "s7": "val"},
            ["s5", "s6", "s7"],
            ([], ["s5", "s6"], ["s0"]),
        ),
        (
            "train",
            {"s7": "train"},
            ["s0", "s1", "s2", "s3", "s4", "s7"],
            (["s0", "s1", "s2", "s3", "s4"], [], []),
        ),
    ],
)
def test_images_of_training_have_no_score(
    trained: Path,
    data: Path,
    tmp_path: Path,
    split: str,
    splits: dict[str, str],
    scored: list[str],
    seen: Any,
) -> None:
    """However they came into the split, and whatever they are called now: their score says nothing of new images."""
    scores, _ = evaluate_bundle(
        load_bundle(trained, REGISTRY), moved(data, tmp_path / "set", **splits), split
    )
    assert list(scores.by_sample()) == scored
    assert scores.seen is not None
    assert (scores.seen.trained, scores.seen.validated, scores.seen.left_out) == tuple(
        map(tuple, seen)
    )
    assert bool(seen_note(scores.seen)) == any(seen)


def test_a_split_that_was_all_trained_on_is_refused(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    """There is no image left to score."""
    splits = dict.fromkeys(("s0", "s1", "s2", "s3"), "test") | {
        "s7": "train",
        "s8": "train",
    }
    with pytest.raises(DataError, match="trained on all 4 images of the test split"):
        evaluate_bundle(
            load_bundle(trained, REGISTRY),
            moved(data, tmp_path / "set", **splits),
            "test",
        )


def _registry_with(weights: Path) -> Registry:
    """A registry in which the tiny model has a weight file."""
    known = registry()
    file = WeightFile(weights.name, sha256_of(weights), path=weights)
    return Registry(
        (),
        [
            ("modality", known.modality("gray"), "test"),
            (
                "foundation model",
                replace(known.foundation("tiny"), weights=file),
                "test",
            ),
            ("transfer layer", known.transfer_layer("mat"), "test"),
            ("tuner", known.tuner("frozen"), "test"),
        ],
    )


def test_other_foundation_weights_are_refused_by_their_sha256(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tuned part alone means nothing on other weights, and gives masks that look like some."""
    monkeypatch.chdir(tmp_path)
    model = cast(
        nn.Module, build_foundation(TINY, image_size=256, weights=None, seed=1)
    )
    weights = model.state_dict()
    save_file(weights, "right.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in weights.items()}, "other.safetensors"
    )
    right, other = (
        sha256_of(Path(f"{name}.safetensors")) for name in ("right", "other")
    )
    bundle = tiny_bundle(tmp_path / "bundle", foundation_sha256=right)
    load_bundle(bundle, _registry_with(Path("right.safetensors")))
    with pytest.raises(
        BundleError,
        match=rf"'tiny' weights with sha256 {right[:12]}.* has {other[:12]}",
    ):
        load_bundle(bundle, _registry_with(Path("other.safetensors")))


@pytest.mark.parametrize("part", ["modality", "foundation", "mat", "tune"])
def test_a_missing_part_is_reported_with_the_packages_of_training(
    tmp_path: Path, part: str
) -> None:
    """Only the file knows who brought it; a name that SimMAT makes up could be anybody's package."""
    package = Package(
        kind="tuner", name="theirs", distribution="someones-tuners", version="2.1"
    )
    bundle = tiny_bundle(tmp_path / "bundle", packages=(package,))
    change_json(bundle, **{part: "theirs"})
    with pytest.raises(
        UnknownNameError,
        match=r"'theirs'.*According to the file, .* was trained with someones-tuners 2\.1",
    ):
        load_bundle(bundle, REGISTRY)
    change_json(bundle, packages=[])
    with pytest.raises(UnknownNameError) as caught:
        load_bundle(bundle, REGISTRY)
    assert "According to the file" not in str(caught.value)
