"""Weights of timm's models: fetched through the Hub, refused by name where they do not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from bundles import read_parts
from runs import gray_set
from safetensors.torch import save_file

from simmat.cli import run
from simmat.errors import WeightsError

MODEL = "test_vit"
"""timm's own tiny model for tests, 0.4 M parameters."""


def weights_of(network: Any) -> dict[str, torch.Tensor]:
    return {
        name: tensor.contiguous().clone()
        for name, tensor in network.state_dict().items()
    }


def test_a_torch_file_of_timm_is_read_too(make_family: Any, tmp_path: Path) -> None:
    """Older weights are no safetensors."""
    family = make_family("ViT")
    source = family.theirs(num_classes=None)
    torch.save(source.state_dict(), tmp_path / "w.bin")
    loaded = family.ours(seed=1, weights=tmp_path / "w.bin").backbone.body.model
    assert torch.equal(loaded.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)


class Bomb:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_weight_file_is_not_run(make_family: Any, tmp_path: Path) -> None:
    """A stranger's file must not own the machine."""
    torch.save({"a": Bomb(tmp_path / "hit")}, tmp_path / "w.bin")
    with pytest.raises(WeightsError, match="without running code"):
        make_family("ViT").ours(weights=tmp_path / "w.bin")
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_damaged_file_is_refused(
    suffix: str, make_family: Any, tmp_path: Path
) -> None:
    """A cut download must not end in a stack trace."""
    (tmp_path / f"w{suffix}").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(WeightsError, match="damaged"):
        make_family("ViT").ours(weights=tmp_path / f"w{suffix}")


def test_weights_of_another_model_are_refused_by_name(
    family: Any, tmp_path: Path
) -> None:
    """A wrong file must not fill half a network."""
    save_file({"conv1.weight": torch.zeros(4, 3, 7, 7)}, tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsError, match=rf"w.safetensors does not fit timm/{family.model}: .*"
    ):
        family.ours(weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "title",
    ["ViT", "DINOv3", "Swin", "Hiera", *(pytest.param(t, marks=pytest.mark.slow) for t in
                                         ("SigLIP without a pooling", "DaViT of Florence"))],
)  # fmt: skip
def test_a_missing_tensor_is_refused_and_named(
    title: str, make_family: Any, tmp_path: Path
) -> None:
    """timm itself goes on with random values in its place where the classifier is left out."""
    family = make_family(title)
    state = weights_of(family.theirs(num_classes=None))
    lost = next(name for name in state if name.endswith("mlp.fc2.weight"))
    del state[lost]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=f"Missing key.*{lost}"):
        family.ours(weights=tmp_path / "w.safetensors")


def test_a_bundle_is_rebuilt_from_name_and_weights(tmp_path: Path) -> None:
    """Train on a weight file, then use the bundle where only that file and the name are known."""
    data = gray_set(tmp_path / "set", train=1, val=1, test=1)
    file = tmp_path / "w.safetensors"
    save_file(weights_of(timm.create_model(MODEL)), file)
    out = tmp_path / "run"
    common = ["--data", str(data), "--checkpoint", str(file), "--device", "cpu"]
    training = [
        "--modality",
        "gray",
        "--foundation",
        f"timm/{MODEL}",
        "--tune",
        "lora",
    ]
    sizes = [
        "--image-size",
        "64",
        "--steps",
        "2",
        "--batch-size",
        "1",
        "--prompts-per-image",
        "1",
        "--no-pictures",
    ]
    assert run(["train", *common, *training, *sizes, "--out", str(out)]) == 0
    document, _ = read_parts(out)
    assert document["foundation"] == f"timm/{MODEL}"
    assert (
        document["foundation_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    )
    assert run(["eval", str(out), *common, "--split", "test"]) == 0
    predict = ["predict", str(out), str(data / "images/s2.png"), "--point", "20,20"]
    assert (
        run([*predict, "--checkpoint", str(file), "--out", str(tmp_path / "masks")])
        == 0
    )
    assert list((tmp_path / "masks").glob("*mask.png"))
    save_file(weights_of(timm.create_model(MODEL)), file)  # others, random anew
    assert (
        run([*predict, "--checkpoint", str(file), "--out", str(tmp_path / "again")])
        == 2
    )
