"""Bundles that were damaged or made to harm: noticed by name, before memory is taken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import change_json, tiny_bundle
from runs import registry
from safetensors.torch import load_file, save_file

from simmat.bundle import load_bundle, pull_bundle, push_bundle, read_bundle_spec
from simmat.errors import BundleError, ConfigError, SimMATError
from simmat.io.weights import sha256_of

JOBS: dict[str, Callable[[Path], object]] = {
    "load": lambda bundle: load_bundle(bundle, registry()),
    "push": lambda bundle: push_bundle(bundle, str(bundle.with_name("pushed.zip"))),
    "pull": lambda bundle: pull_bundle(str(bundle), bundle.with_name("pulled")),
}
SIZES = {"width": 8, "contrast": 1.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("made") / "bundle", mat="mat-residual", mat_options=SIZES)


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def put(bundle: Path, name: str, value: float) -> None:
    """Put a number into a tensor of a bundle, whose json then names the new file."""
    file = bundle / "weights.safetensors"
    tensors = load_file(file)
    tensors[name].view(-1)[0] = value
    save_file(tensors, file)
    change_json(bundle, weights_sha256=sha256_of(file))


@pytest.mark.parametrize("job", JOBS)
def test_a_changed_value_in_the_json_is_noticed(bundle: Path, job: str) -> None:
    """A mean of another sensor gives masks that look like masks."""
    file = bundle / "bundle.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"mean": 60.0', '"mean": 61.0'), encoding="utf-8")
    with pytest.raises(BundleError, match=r"bundle\.json is damaged \(.*a value in it was changed.*again"):
        JOBS[job](bundle)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_another_layout_of_the_json_is_not_a_change(bundle: Path) -> None:
    """Line ends, spaces and the order of keys are what tools and mail programs change."""
    before = read_bundle_spec(bundle)
    file = bundle / "bundle.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    file.write_bytes(json.dumps(dict(reversed(document.items())), indent=7).replace("\n", "\r\n").encode())
    assert read_bundle_spec(bundle) == before


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(bundle: Path, job: str, value: float) -> None:
    """A network of NaN answers every click with an empty mask, and no error says why."""
    put(bundle, "mat.stack.0.weight", value)
    with pytest.raises(BundleError, match=r"weights\.safetensors holds NaN or infinity in the tensor 'mat\.stack\.0"):
        JOBS[job](bundle)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_weights_of_more_dimensions_than_torch_computes_with_are_refused(bundle: Path) -> None:
    """torch loads 5,000 of them, and fails later."""
    file = bundle / "weights.safetensors"
    save_file({**load_file(file), "mat.stack.0.weight": torch.zeros([1] * 80)}, file)
    change_json(bundle, weights_sha256=sha256_of(file))
    with pytest.raises(BundleError, match=r"weights\.safetensors is damaged .*weight' has 80 dimensions"):
        load_bundle(bundle, registry())


def test_weights_of_another_type_of_numbers_are_refused(bundle: Path) -> None:
    """Whole numbers in place of floats would be taken in silence, cut at the point."""
    file = bundle / "weights.safetensors"
    save_file({name: tensor.to(torch.int64) for name, tensor in load_file(file).items()}, file)
    change_json(bundle, weights_sha256=sha256_of(file))
    with pytest.raises(BundleError, match=r"needed \(.*\) float32, got \(.*\) int64"):
        load_bundle(bundle, registry())


@pytest.mark.parametrize(
    "wanted",
    [
        {"mat": "mat-residual", "mat_options": {**SIZES, "width": 10**9}},
        {"mat": "mat-residual", "mat_options": {**SIZES, "width": 10**8}},
        {"tune": "lora", "tune_options": {"rank": 10**9}},
        {"tune": "lora", "tune_options": {"rank": 10**7}},
        {"tune": "prompt", "tune_options": {"tokens": 10**8}},
        {"tune": "adapter", "tune_options": {"width": 10**8}},
    ],
)
def test_a_network_of_terabytes_is_refused_before_memory_is_taken(bundle: Path, wanted: dict[str, Any]) -> None:
    """A kilobyte from a stranger must not end the machine; its weights tell how large the network can be."""
    change_json(bundle, **wanted)
    with pytest.raises((BundleError, ConfigError), match=r"weights\.safetensors does not fit|cannot be built"):
        load_bundle(bundle, registry("baselines"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"image_size": 2**36}, "image_size .*16384, got 68719476736"),
        ({"image_size": 2**70}, "71 bits"),
        ({"seed": 2**63}, "seed"),
        ({"seed": -1}, "seed .*0, got -1"),
        ({"metrics": {"val": {"miou_object": 0.5, "miou_image": 10**400}}}, "bits"),
        ({"metrics": {"step": 10**30}}, "bits"),
        ({"metrics": {"val": {"miou_image": float("inf")}}}, "Infinity"),
        ({"mat": "mat", "mat_options": {"width": 10**400}}, "bits"),
    ],
)
def test_a_number_that_no_training_writes_is_damage(bundle: Path, value: dict[str, Any], said: str) -> None:
    """Left alone, it fails deep in the network or in the model card."""
    change_json(bundle, **value)
    for job in JOBS.values():
        with pytest.raises(BundleError, match=rf"bundle\.json is damaged \(.*{said}"):
            job(bundle)


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(bundle: Path) -> None:
    """Reading one waits for a writer that never comes."""
    for name in ("weights.safetensors", "bundle.json"):
        (bundle / name).unlink()
        os.mkfifo(bundle / name)
        with pytest.raises(SimMATError, match=rf"{name}: a pipe"):
            load_bundle(bundle, registry())
