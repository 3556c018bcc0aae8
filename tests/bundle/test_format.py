"""The file of a bundle: written whole or not at all, and refused by name if it was damaged or made to harm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import change_json, change_tensors, tiny_bundle
from runs import registry
from test_model import ask, inputs, network
from torch import Tensor

from simmat.bundle import (
    FILE_NAME,
    ImageDigests,
    load_bundle,
    load_tensors,
    read_bundle,
    read_bundle_spec,
    trained_tensors,
    write_sensors,
)
from simmat.errors import BundleError, ConfigError
from simmat.model import SimMAT
from simmat.nn.tuners import set_train_mode
from simmat.plugins.builtin import TRANSFER_LAYERS, TUNERS
from simmat.types import Window

SIZES = {"width": 8, "contrast": 1.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(
        tmp_path_factory.mktemp("made") / "bundle",
        mat="mat-residual",
        mat_options=SIZES,
    )


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


class Crash(BaseException):
    """The end of the process."""


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
@pytest.mark.parametrize("is_done", [False, True])
def test_a_crash_at_any_step_leaves_the_old_bundle_or_the_new_one(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_done: bool
) -> None:
    """A training replaces its best bundle many times, and machines fail."""
    old = read_bundle_spec(bundle)
    _, tensors = read_bundle(bundle)
    new = old.model_copy(update={"licence": "mit"})
    original = {"open": Path.open, "fsync": os.fsync, "replace": os.replace}[step]

    def crash(*arguments: Any, **named: Any) -> Any:
        if is_done:
            original(*arguments, **named)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Path if step == "open" else os, step, crash)
        with pytest.raises(Crash):
            write_sensors(bundle / FILE_NAME, {"": (new, tensors)})
    was_replaced = step == "replace" and is_done
    assert read_bundle_spec(bundle).licence == ("mit" if was_replaced else "")
    assert [path.name for path in bundle.iterdir()] == [FILE_NAME]


KILLED = """
import os, signal, sys
from pathlib import Path
from simmat.bundle import read_bundle, write_sensors
file = Path(sys.argv[1])
spec, tensors = read_bundle(file)
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before":
    os.replace = kill
else:
    replace = os.replace
    os.replace = lambda *names: (replace(*names), kill())
write_sensors(file, {"": (spec.model_copy(update={"licence": "mit"}), tensors)})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("when", "licence"), [("before", ""), ("after", "mit")])
def test_a_killed_process_leaves_the_old_bundle_or_the_new_one(
    bundle: Path, when: str, licence: str
) -> None:
    """Nothing of it runs any more, not even a `finally`."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(bundle / FILE_NAME), when], check=False
    )
    assert done.returncode < 0
    assert read_bundle_spec(bundle).licence == licence


def test_equal_bundles_are_equal_files(bundle: Path, tmp_path: Path) -> None:
    """A checksum beside a download means something only if it can be had again."""
    write_sensors(tmp_path / "again.safetensors", {"": read_bundle(bundle)})
    assert (tmp_path / "again.safetensors").read_bytes() == (
        bundle / FILE_NAME
    ).read_bytes()


def test_every_changed_byte_of_the_content_is_noticed(bundle: Path) -> None:
    """A mean of another sensor gives masks that look like masks, and so does a changed weight."""
    file = bundle / FILE_NAME
    content = file.read_bytes()
    changed = content.replace(b'\\"mean\\": 60.0', b'\\"mean\\": 61.0')
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    renamed = content.replace(b"mat.stack.0.weight", b"mat.stack.9.weight")
    for other in (changed, flipped, renamed):
        assert other != content
        file.write_bytes(other)
        for read in (read_bundle_spec, lambda path: load_bundle(path, registry())):
            with pytest.raises(
                BundleError,
                match=r"bundle\.safetensors is damaged \(.*was changed.*again",
            ):
                read(bundle)


def test_a_picture_in_place_of_a_bundle_is_called_no_bundle(tmp_path: Path) -> None:
    """Who forgets the bundle gives an image first; it is not damaged."""
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    with pytest.raises(
        BundleError, match=r"a\.png is not a bundle.*bundle\.safetensors"
    ):
        load_bundle(picture, registry())


def put(bundle: Path, name: str, value: float) -> None:
    """Put a number into a tensor of a bundle."""

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[0] = value

    change_tensors(bundle, change)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    bundle: Path, value: float
) -> None:
    """A network of NaN answers every click with an empty mask, and no error says why."""
    put(bundle, "mat.stack.0.weight", value)
    with pytest.raises(
        BundleError,
        match=r"bundle\.safetensors holds NaN or infinity in the tensor 'mat\.stack\.0",
    ):
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
def test_a_network_of_terabytes_is_refused_before_memory_is_taken(
    bundle: Path, wanted: dict[str, Any]
) -> None:
    """A kilobyte from a stranger must not end the machine; its weights tell how large the network can be."""
    change_json(bundle, **wanted)
    with pytest.raises(
        (BundleError, ConfigError), match=r"do(es)? not fit|cannot be built"
    ):
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
        ({"modality": 3}, "modality"),
        ({"selected_channels": [[1]]}, "selected_channels"),
        ({"zero_shot": [["a"], ["b"], ["c"]]}, "zero_shot"),
        (
            {
                "packages": [
                    {
                        "kind": "tuner",
                        "name": "a",
                        "distribution": "-r x",
                        "version": "1",
                    }
                ]
            },
            "distribution",
        ),
    ],
)
def test_a_value_that_no_training_writes_is_damage(
    bundle: Path, value: dict[str, Any], said: str
) -> None:
    """Left alone, it fails deep in the network or in the model card."""
    change_json(bundle, **value)
    for read in (read_bundle_spec, lambda path: load_bundle(path, registry())):
        with pytest.raises(
            BundleError, match=rf"bundle\.safetensors is damaged \(.*{said}"
        ):
            read(bundle)


@pytest.mark.parametrize(
    "modality", ["/etc/hostname.toml", "gray+../sonar.TOML", "sensor.toml"]
)
def test_a_sensor_that_is_a_path_is_refused(
    bundle: Path, tmp_path: Path, modality: str
) -> None:
    """A stranger's file must not choose which files are read here."""
    (tmp_path / "sensor.toml").write_text("format = 1")
    change_json(bundle, modality=modality)
    for read in (read_bundle_spec, lambda path: load_bundle(path, registry())):
        with pytest.raises(
            BundleError, match="must be the names of sensors, got the path"
        ):
            read(bundle)


def test_a_newer_format_is_refused_by_name(bundle: Path) -> None:
    """Nobody guesses at what they cannot read."""
    change_json(bundle, format=99)
    with pytest.raises(
        BundleError,
        match=r"bundle format 99.*reads format 3.*pip install --upgrade simmat",
    ):
        load_bundle(bundle, registry())


def test_a_window_is_known_by_its_pixels() -> None:
    """Blocks of one image are in all splits, and another --crop cuts other windows."""
    block, digest = Window(0, 0, 32, 32), np.zeros((1, 32), np.uint8)
    found = ImageDigests.of(digest, [block])
    assert found is not None
    for window, known in (
        (Window(31, 31, 40, 40), True),
        (Window(0, 32, 32, 64), False),
        (None, True),
    ):
        assert found.has(digest, [window]) == [known]
        assert found.has(digest + 1, [window]) == [False]
    whole = ImageDigests.of(digest, [None])
    assert whole is not None
    assert whole.has(digest, [block]) == [True]


@pytest.mark.parametrize(
    "record",
    [
        {"digests": "AAAAAAA="},
        {"digests": "no base64"},
        {"digests": "", "windows": "AA=="},
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, record: dict[str, str]) -> None:
    """It must not count as a bundle that saw no image."""
    bundle = tiny_bundle(tmp_path / "bundle")
    change_json(bundle, trained_on=record)
    with pytest.raises(BundleError, match=r"trained_on: .*digests"):
        read_bundle_spec(bundle)


LAYERS = [(spec.name, "lora") for spec in TRANSFER_LAYERS] + [
    ("mat-residual", spec.name) for spec in TUNERS
]
PAIRS = [*dict.fromkeys(LAYERS), ("channel-attention", "full")]


def answer(model: SimMAT) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a model answers in evaluation."""
    with torch.inference_mode():
        prediction = model.eval()(*inputs(3), ask())
    return prediction.logits, prediction.iou


def trained(mat: str, tune: str) -> SimMAT:
    """Return a model after two training steps."""
    model = network(3, mat, tune)
    set_train_mode(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, 0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of dropout
        for _ in range(2):
            optimiser.zero_grad()
            prediction = model(*inputs(3), ask())
            (
                prediction.logits.square().mean() + prediction.iou.square().mean()
            ).backward()
            optimiser.step()
    return model


@pytest.mark.parametrize(("mat", "tune"), PAIRS, ids=map("+".join, PAIRS))
def test_what_a_bundle_holds_gives_the_trained_model_back(mat: str, tune: str) -> None:
    """Whatever training moved and a bundle forgot would be lost without a word."""
    expect_same_after_a_bundle(mat, tune)


def expect_same_after_a_bundle(mat: str, tune: str) -> None:
    """Train, and compare the answers with those of a model that is filled from the trained tensors."""
    model, again = trained(mat, tune), network(3, mat, tune)
    fresh = answer(again)
    expected = answer(model)
    assert not torch.equal(fresh[0], expected[0])
    load_tensors(again, trained_tensors(model), "test")
    assert all(torch.equal(a, b) for a, b in zip(answer(again), expected, strict=True))
