"""Prompts on images larger than a window, and a disk that fills up: what a user meets, answered plainly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import tiny_bundle
from runs import registry

import simmat
from simmat.cli import run
from simmat.errors import ConfigError
from simmat.foundation import PromptBatch
from simmat.io.images import write_image
from simmat.model_spec import DenseSpec
from simmat.predictor import (
    Prediction,
    Predictor,
    TiledImage,
    tiled_image,
)
from simmat.predictor.tiles import prompt_windows
from simmat.types import Prompt, Window

pytestmark = pytest.mark.plugins()

SIZE_HW = (300, 400)
"""Of an image that is cut into windows."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both heads, as it is before training; its input has 32 pixels a side."""
    dense = DenseSpec(background=True, classes=(1, 2))
    return tiny_bundle(
        tmp_path_factory.mktemp("prompts") / "bundle", dense=dense, image_size=32
    )


def _scene(path: Path, planes: Any = None) -> Path:
    if planes is None:
        planes = (
            np.random.default_rng(0).integers(0, 200, (1, 150, 180)).astype(np.uint8)
        )
    write_image(path, planes)
    return path


def _predict(bundle: Path, image: Path, out: Path, *options: str) -> int:
    return run(
        [
            "predict",
            str(bundle),
            str(image),
            *options,
            "--out",
            str(out),
            "--device",
            "cpu",
        ]
    )


def test_a_negative_point_far_away_widens_no_window(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the object, and the window between both would be shrunk to nothing."""
    image, sizes = _scene(tmp_path / "a.tif"), []
    real = TiledImage.encode_window

    def look(self: TiledImage, window: Any, **given: Any) -> Any:
        sizes.append(window.size_hw)
        return real(self, window, **given)

    monkeypatch.setattr(TiledImage, "encode_window", look)
    call = ["--point", "10,10", "--negative", "170,140", "--tile", "32"]
    assert _predict(bundle, image, tmp_path / "out", *call) == 0
    assert sizes[0] == (32, 32)


def test_a_box_larger_than_memory_is_refused(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A box around a whole scene would read all of it at once."""
    monkeypatch.setattr(tiled_image, "MAX_WINDOW_VALUES", 100 * 100)
    image = _scene(tmp_path / "a.tif")
    assert (
        _predict(
            bundle, image, tmp_path / "out", "--box", "0,0,180,150", "--tile", "32"
        )
        == 2
    )
    assert "180x150" in capsys.readouterr().err
    assert (
        _predict(bundle, image, tmp_path / "out", "--box", "0,0,60,60", "--tile", "32")
        == 0
    )


def test_a_point_where_nothing_is_measured_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network would answer with noise."""
    planes = np.full((1, 150, 180), np.nan, np.float32)
    planes[0, :20, :20] = np.arange(400).reshape(20, 20)
    image = _scene(tmp_path / "a.tif", planes)
    assert (
        _predict(bundle, image, tmp_path / "out", "--point", "170,140", "--tile", "32")
        == 2
    )
    assert "no pixel around the prompt" in capsys.readouterr().err


def test_windows_hold_their_prompt_with_room_around_it() -> None:
    """An object cut by a border has another shape."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        tile = int(rng.integers(16, 120))
        x0, y0 = rng.uniform(0, 300, 2)
        box = np.asarray(
            [
                x0,
                y0,
                min(x0 + rng.uniform(0, 200), 400),
                min(y0 + rng.uniform(0, 200), 300),
            ],
            np.float32,
        )
        click, marked = (
            Prompt.points([(x0, y0)]),
            Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), box),
        )
        for prompt, (left, top, right, bottom), part in (
            (click, (x0, y0, x0, y0), 4.1),
            (marked, box, 16),
        ):
            windows = list(prompt_windows(prompt, SIZE_HW, tile))
            for window in windows:
                assert 0 <= window.y0 < window.y1 <= SIZE_HW[0]
                assert 0 <= window.x0 < window.x1 <= SIZE_HW[1]
                room = max(window.size_hw) / part - 1
                assert window.y0 == 0 or top >= window.y0 + room
                assert window.x0 == 0 or left >= window.x0 + room
                assert window.y1 == SIZE_HW[0] or bottom <= window.y1 - room
                assert window.x1 == SIZE_HW[1] or right <= window.x1 - room
        sides = [max(window.size_hw) for window in prompt_windows(click, SIZE_HW, tile)]
        assert sides == [
            min(side, 400) for side in (tile, 2 * tile, 4 * tile) if side < 800
        ]


@pytest.fixture
def given_masks(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The mask of every call of the decoder."""
    masks: list[Any] = []
    decode = model.model.decode

    def look(embedding: Any, prompts: PromptBatch) -> Any:
        masks.append(prompts.mask_input)
        return decode(embedding, prompts)

    monkeypatch.setattr(model.model, "decode", look)
    return masks


@pytest.fixture
def model(bundle: Path) -> Predictor:
    """The predictor of the bundle."""
    return simmat.load(bundle, device="cpu", registry=registry())


def _click(x: float, y: float) -> tuple[Any, Any]:
    """Return the coordinates and the label of a point on the object."""
    return np.asarray([[x, y]], np.float32), np.ones(1, np.int64)


def with_mask(prompt: Prompt, found: Prediction) -> Prompt:
    """Return a prompt with the mask of an earlier answer."""
    return replace(
        prompt, mask_input=found.low_res_logits, mask_window=found.low_res_window
    )


def test_an_earlier_mask_refines_the_answer_of_its_own_window(
    model: Predictor, tmp_path: Path, given_masks: list[Any]
) -> None:
    """There the logits are those that the decoder gave, bit for bit."""
    image = model.open_image(_scene(tmp_path / "a.tif"), tile=64)
    click = Prompt.points([(90, 70)])
    first = image.predict(click)
    given_masks.clear()
    second = image.predict(with_mask(click, first))
    assert second.low_res_window == first.low_res_window
    assert any(np.array_equal(mask[0, 0], first.low_res_logits) for mask in given_masks)


def test_an_earlier_mask_keeps_its_place_in_another_window(
    model: Predictor, tmp_path: Path, given_masks: list[Any]
) -> None:
    """Logits say where in their own window the object is; elsewhere they would mark something else."""
    image = model.open_image(_scene(tmp_path / "a.tif"), tile=64)
    known = Window(20, 40, 84, 104)
    logits = np.full((8, 8), -5, np.float32)
    logits[4:, :4] = 5  # the lower left quarter: rows 52 to 84, columns 40 to 72
    click = Prompt(*_click(60, 60), mask_input=logits, mask_window=known)
    image.predict(click)
    windows = list(prompt_windows(click, image.size_hw, 64))[: len(given_masks)]
    assert known not in windows
    for window, mask in zip(windows, given_masks, strict=True):
        cell = max(window.size_hw) / 8
        rows, columns = np.nonzero((mask[0, 0] > 0).numpy())
        assert abs(rows.min() * cell + window.y0 - max(52, window.y0)) <= cell
        assert abs((rows.max() + 1) * cell + window.y0 - min(84, window.y1)) <= cell
        assert abs(columns.min() * cell + window.x0 - max(40, window.x0)) <= cell
        assert abs((columns.max() + 1) * cell + window.x0 - min(72, window.x1)) <= cell


def test_logits_that_may_be_of_any_window_are_refused(
    model: Predictor, tmp_path: Path
) -> None:
    """They were used as if they were of the window around the click; the prediction knows where they are from."""
    model.set_image(_scene(tmp_path / "a.tif"))
    first = model.predict([(90, 70)])
    assert first.window == (0, 0, 150, 180)
    with pytest.raises(ConfigError, match="mask=found"):
        model.predict([(20, 20)], mask=first.low_res_logits)
    assert model.predict([(20, 20)], mask=first).mask.shape == (150, 180)
