"""Weights: loaded by the library itself, refused where they do not fit, random where one asks for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from simmat_plugin_transformers import build
from simmat_plugin_transformers.library import quiet
from simmat_plugin_transformers.specs import spec

from simmat.assemble import build_foundation
from simmat.errors import ConfigError, SpecError, WeightsError


def built_with(found: Any, weights: Path | None, size: int) -> Any:
    return build_foundation(found, image_size=size, weights=weights, seed=0)


def test_half_precision_weights_come_as_float32(tiny: Any, tmp_path: Path) -> None:
    """Training needs float32; what a hub holds is often 16 bits."""
    half = {
        name: tensor.half()
        for name, tensor in load_file(tiny.folder / "model.safetensors").items()
    }
    save_file(half, tmp_path / "half.safetensors")
    model = built_with(tiny.spec(), tmp_path / "half.safetensors", tiny.size)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    convolution = model.backbone.first_layer.weight
    assert torch.equal(
        convolution, tiny.build().backbone.first_layer.weight.half().float()
    )


def test_weights_of_another_family_are_refused_naming_what_lacks(tiny_of: Any) -> None:
    """They would leave a model half random."""
    with pytest.raises(WeightsError, match="does not fit SAM"):
        built_with(
            tiny_of("sam").spec(), tiny_of("sam2").folder / "model.safetensors", 64
        )


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_a_damaged_or_pickled_file_is_refused(
    tiny_of: Any, tmp_path: Path, name: str
) -> None:
    """A cut download, and a file that could run code."""
    torch.save({"a": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(WeightsError, match="damaged"):
        built_with(tiny_of("sam").spec(), tmp_path / name, 64)


def test_a_random_start_is_alive(tiny: Any) -> None:
    """The library starts SAM's encoder at 1e-10, for weights to come; trained from there it stays dead."""
    model = tiny.build(scratch=True)
    images = torch.randn(
        2, 3, tiny.size, tiny.size, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        level = model.backbone.encode(model.backbone.embed(images)).levels[-1]
    assert (level[0] - level[1]).abs().mean() > 1e-3 * level.abs().mean()


def test_a_random_start_places_prompts_and_image_alike(tiny: Any) -> None:
    """SAM 2 keeps the Fourier matrix twice; drawn apart, a click would lie nowhere in the image."""
    decoder = tiny.build(scratch=True).decoder
    positions = decoder.shared_image_embedding.positional_embedding
    assert torch.equal(
        positions, decoder.prompt_encoder.shared_embedding.positional_embedding
    )
    assert 0.5 < positions.std() < 2


def test_sam2_as_published_for_video_is_taken_for_images(
    tiny_of: Any, tmp_path: Path
) -> None:
    """facebook/sam2.1-* say model_type sam2_video, and hold a memory that images do not need."""
    folder = tmp_path / "video"
    shutil.copytree(tiny_of("sam2").folder, folder)
    values = json.loads((folder / "config.json").read_text())
    values["prompt_encoder_config"]["model_type"] = "sam2_video_prompt_encoder"
    (folder / "config.json").write_text(
        json.dumps({**values, "model_type": "sam2_video", "num_maskmem": 7})
    )
    state = load_file(folder / "model.safetensors")
    save_file(
        {**state, "memory_temporal_positional_encoding": torch.zeros(7, 1, 1, 8)},
        folder / "model.safetensors",
    )
    assert_same_state(
        built_with(spec(str(folder)), folder / "model.safetensors", 64),
        tiny_of("sam2").build(),
    )


def test_sam3_as_published_for_video_is_taken_for_images(
    tiny_of: Any, tmp_path: Path
) -> None:
    """facebook/sam3 holds detector and tracker in one file; the tracker looks through the detector's encoder."""
    original = tiny_of("sam3")
    values = json.loads((original.folder / "config.json").read_text())
    config = {
        "model_type": "sam3_video",
        "detector_config": {},
        "tracker_config": {**values, "model_type": "x"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    places = {
        "vision_encoder.backbone.": "detector_model.vision_encoder.backbone.",
        "vision_encoder.neck.": "tracker_neck.",
    }
    state = {}
    for name, tensor in original.original.state_dict().items():
        old = next((place for place in places if name.startswith(place)), None)
        state[
            places[old] + name.removeprefix(old) if old else f"tracker_model.{name}"
        ] = tensor.contiguous().clone()
    state["detector_model.text_encoder.weight"] = torch.zeros(2)
    save_file(state, tmp_path / "model.safetensors")
    assert_same_state(
        built_with(spec(str(tmp_path)), tmp_path / "model.safetensors", 56),
        original.build(),
    )


def assert_same_state(one: Any, other: Any) -> None:
    others = other.state_dict()
    assert one.state_dict().keys() == others.keys()
    assert all(
        torch.equal(tensor, others[name]) for name, tensor in one.state_dict().items()
    )


def test_sam_at_another_size_equals_the_library_with_its_tables_resized(
    tiny_of: Any,
) -> None:
    """Absolute positions are resized once, as segment-anything's are in the core; relative ones by the library."""
    sam = tiny_of("sam")
    config = type(sam.original.config).from_dict(sam.original.config.to_dict())
    config.vision_config.image_size = config.prompt_encoder_config.image_size = 128
    config.prompt_encoder_config.image_embedding_size = 8
    with quiet():
        other = transformers.SamModel(config).eval()
    state = dict(sam.original.state_dict())
    resize = torch.nn.functional.interpolate
    grid = state["vision_encoder.pos_embed"].permute(0, 3, 1, 2)
    state["vision_encoder.pos_embed"] = resize(
        grid, (8, 8), mode="bicubic", antialias=True
    ).permute(0, 2, 3, 1)
    for axis in "hw":  # of the global block; the window's tables stay
        name = f"vision_encoder.layers.1.attn.rel_pos_{axis}"
        state[name] = resize(state[name].T[None], 15, mode="linear")[0].T
    other.load_state_dict(state)
    pixels = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    model = sam.build(128)
    with torch.no_grad():
        (level,) = model.backbone.encode(model.backbone.embed(pixels)).levels
        torch.testing.assert_close(
            level, other.vision_encoder(pixels).last_hidden_state, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    "values",
    [
        {"num_attention_heads": 0},
        {"hidden_act": "nothing"},
        {"layer_norm_eps": "small"},
    ],
)
def test_a_config_the_library_cannot_build_is_refused_by_its_file(
    tiny_of: Any, tmp_path: Path, values: dict[str, Any]
) -> None:
    """The library checks few values; a KeyError of an activation says nothing of the file it stands in."""
    config = json.loads((tiny_of("sam").folder / "config.json").read_text())
    config["vision_config"] |= values
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        SpecError, match=r"config\.json (describes no model|is damaged)"
    ):
        built_with(spec(str(tmp_path / "config.json")), None, 64)


@pytest.mark.parametrize(
    "values", [{"hidden_size": 2**20}, {"num_hidden_layers": 2**20}]
)
def test_a_config_that_asks_for_terabytes_is_refused(
    tiny_of: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
) -> None:
    """A kilobyte of a stranger must not end the machine."""
    # a million layers would take seconds
    monkeypatch.setattr(build, "MAX_CALLS", 10_000)
    config = json.loads((tiny_of("sam").folder / "config.json").read_text())
    config["vision_config"] |= values
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"config\.json .*more than"):
        built_with(spec(str(tmp_path / "config.json")), None, 64)
