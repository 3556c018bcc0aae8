"""From a name to a spec: folders, configs alone, image processors, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from simmat_plugin_transformers.configs import FAMILIES
from simmat_plugin_transformers.specs import pixel_statistics, spec

from simmat.errors import SpecError, UnknownNameError, WeightsError
from simmat.io.weights import find_weights, sha256_of
from simmat.plugin_specs import FoundationSpec

SAM, SAM3 = FAMILIES["sam"], FAMILIES["sam3_tracker"]


def copy_of(tiny: Any, tmp_path: Path, **config: Any) -> Path:
    """Copy a model's folder, with other values in its config; None takes one out."""
    folder = tmp_path / "model"
    shutil.copytree(tiny.folder, folder)
    values = {**json.loads((folder / "config.json").read_text()), **config}
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in values.items() if v is not None})
    )
    return folder


def read(folder: Path) -> FoundationSpec:
    found = spec(str(folder))
    assert found is not None
    return found


def test_a_folder_relative_to_here_is_found(
    tiny_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one types it, `hf/./sam`."""
    folder = tiny_of("sam").folder
    monkeypatch.chdir(folder.parent)
    found = spec(f"./{folder.name}")
    assert found is not None
    assert (found.name, found.image_size, found.size_multiple) == (
        f"hf/./{folder.name}",
        64,
        16,
    )


@pytest.mark.parametrize(
    ("name", "size", "multiple"), [("sam2", 64, 32), ("sam3", 56, 14)]
)
def test_input_sizes_come_from_the_config(
    tiny_of: Any, name: str, size: int, multiple: int
) -> None:
    """Other sizes are refused by the core, by this multiple."""
    found = read(tiny_of(name).folder)
    assert (found.image_size, found.size_multiple) == (size, multiple)


def test_weights_of_a_folder_are_known_by_their_digest(tiny_of: Any) -> None:
    """A bundle is refused on other weights."""
    folder = tiny_of("sam").folder
    weights = read(folder).weights
    assert weights is not None
    assert weights.path == folder / "model.safetensors"
    assert weights.sha256 == sha256_of(folder / "model.safetensors")


@pytest.mark.parametrize("alone", [True, False])
def test_a_config_without_weights_asks_for_them_or_for_a_random_start(
    tiny_of: Any, tmp_path: Path, alone: bool
) -> None:
    """A folder that holds no weights, and the json file by itself."""
    shutil.copy(tiny_of("sam").folder / "config.json", tmp_path)
    found = read(tmp_path / "config.json" if alone else tmp_path)
    with pytest.raises(WeightsError, match="--from-scratch"):
        find_weights(found)


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        (
            {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]},
            (127.5, 102, 76.5),
            (51, 51, 25.5),
        ),
        (
            {"image_processor": {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}},
            (0, 0, 0),
            (255, 255, 255),
        ),
        (
            {"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
            (0, 0, 0),
            (255, 255, 255),
        ),
        (
            {"do_rescale": False, "image_mean": [9, 9, 9], "image_std": [2, 2, 2]},
            (9, 9, 9),
            (2, 2, 2),
        ),
        ({}, SAM.pixels[0], SAM.pixels[1]),
    ],
)
def test_pixel_statistics_are_what_the_image_processor_does(
    processor: Any, mean: Any, std: Any
) -> None:
    """A model sees RGB as it was trained on, whatever scale its file speaks in."""
    found = pixel_statistics(processor, SAM, "x")
    assert found[0] == pytest.approx(mean)
    assert found[1] == pytest.approx(std)


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        ({"rescale_factor": None}, "rescale_factor None"),
        ({"rescale_factor": 0}, "rescale_factor 0"),
        ({"rescale_factor": 10**400}, "above 0"),
        ({"image_processor": [1]}, "table"),
        ({"image_mean": [0, 0, 0], "image_std": [1, 1, float("nan")]}, "three planes"),
        ({"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}, "positive"),
    ],
)
def test_damaged_statistics_are_named_with_their_file(
    processor: Any, said: str
) -> None:
    """A plugin's fault is what a TypeError would look like."""
    with pytest.raises(SpecError, match=rf"image processor .*{said}"):
        pixel_statistics(processor, SAM, "here")


def test_without_a_processors_file_the_familys_own_statistics_hold() -> None:
    """SAM 3 is trained on -1..1, the others on ImageNet's statistics."""
    assert pixel_statistics({}, SAM3, "x") == ((127.5,) * 3, (127.5,) * 3)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "bert"}, "model_type 'bert'; hf/ takes sam"),
        ({"model_type": "sam3"}, "sam3_tracker"),
        ({"model_type": "dinov2"}, "timm/"),
        ({"model_type": None}, "model_type None"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"image_size": [56, 28]}, "a square's side"),
        ({"image_size": 57}, "differ in image_size"),
        ({"num_channels": 4}, "4 input planes"),
        ({"hidden_size": "wide"}, "damaged"),
        ({"hidden_size": 2**40}, "hidden_size"),
        ({"num_hidden_layers": 2**40}, "num_hidden_layers"),
        ({"patch_size": 0}, "damaged"),
        ({"patch_size": {}}, "damaged"),
    ],
)
def test_a_config_that_cannot_be_taken_is_refused_with_the_reason(
    tiny_of: Any, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    """Before anything is built, naming the file."""
    folder = copy_of(
        tiny_of("sam"), tmp_path, **in_vision_config(tiny_of("sam").folder, config)
    )
    with pytest.raises(SpecError, match=r"config[.]json") as error:
        spec(str(folder))
    assert re.search(said, str(error.value))


def in_vision_config(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return fields of a config, those of the encoder within its own."""
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    own = {
        key: value
        for key, value in config.items()
        if key in vision and key != "model_type"
    }
    return {
        "vision_config": {**vision, **own},
        **{key: value for key, value in config.items() if key not in own},
    }


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    """Half a download."""
    (tmp_path / "config.json").write_text('{"model_type": "sa')
    with pytest.raises(SpecError, match=r"config\.json: not valid json"):
        spec(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "said"),
    [("no-such", "does not exist"), (".", "has no config.json")],
)
def test_a_place_without_a_model_is_refused(
    tmp_path: Path, name: str, said: str
) -> None:
    """The full path is named: it may be another than one thinks."""
    with pytest.raises(UnknownNameError, match=said) as error:
        spec(str(tmp_path / name))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("pytorch_model.bin", "pickle"),
        ("model.safetensors.index.json", "max_shard_size"),
    ],
)
def test_weights_of_another_form_are_refused(
    tiny_of: Any, tmp_path: Path, file: str, said: str
) -> None:
    """A pickle could run code; several files have no one digest. Both can be mended by save_pretrained."""
    folder = copy_of(tiny_of("sam"), tmp_path)
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(WeightsError, match=said):
        spec(str(folder))
