"""Embeddings on disk: a second session on an image needs no encoder, and a bad file never gives a wrong mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import registry
from safetensors.torch import load_file
from torch import Tensor

from simmat.bundle import Bundle, load_bundle
from simmat.cli import run
from simmat.foundation import ImageEmbedding
from simmat.io.images import write_image
from simmat.model import SimMAT
from simmat.predictor import Predictor
from simmat.predictor.cache import read_embedding, write_embedding
from simmat.types import Prompt, SensorImage, Window

SMALL, LARGE = (40, 56), (300, 400)
"""(H, W) of an image that fits the bundle's input of 64 pixels, and of one that is cut into windows."""


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The planes of every input that was encoded."""
    seen: list[Tensor] = []
    encode = SimMAT.encode

    def count(self: SimMAT, planes: Tensor, content: Tensor) -> ImageEmbedding:
        seen.append(planes)
        return encode(self, planes, content)

    monkeypatch.setattr(SimMAT, "encode", count)
    return seen


@pytest.fixture(scope="module")
def loaded(bundle: Path) -> Bundle:
    return load_bundle(bundle, registry())


def _scene(size_hw: tuple[int, int] = SMALL, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (1, *size_hw)).astype(np.uint8)


@pytest.mark.parametrize("size_hw", [SMALL, LARGE])
def test_a_second_session_gives_the_same_mask_without_the_encoder(
    loaded: Bundle, tmp_path: Path, encoded: list[Tensor], size_hw: tuple[int, int]
) -> None:
    """The encoder is nearly all of the cost of a click."""
    plain, first, second = (Predictor.of_bundle(loaded) for _ in range(3))
    plain.set_image(_scene(size_hw))
    expected = plain.predict([(20, 30)])
    first.set_image(_scene(size_hw), cache=tmp_path / "kept")
    found = first.predict([(20, 30)])
    encoded.clear()
    second.set_image(_scene(size_hw), cache=str(tmp_path / "kept"))
    again = second.predict([(20, 30)])
    assert encoded == []
    np.testing.assert_array_equal(again.logits, found.logits)
    np.testing.assert_allclose(
        again.logits, expected.logits, atol=0.01 * np.ptp(expected.logits)
    )
    files = list((tmp_path / "kept").iterdir())
    assert files
    assert all(file.suffix == ".safetensors" for file in files)
    assert {tensor.dtype for tensor in load_file(files[0]).values()} == {torch.float16}


def test_a_large_image_is_encoded_once_however_often_it_is_clicked(
    loaded: Bundle, tmp_path: Path, encoded: list[Tensor]
) -> None:
    """Windows do not move with the click, and are kept, those in which a mask reaches the border too."""
    write_image(tmp_path / "large.tif", _scene(LARGE))
    image = Predictor.of_bundle(loaded).open_image(tmp_path / "large.tif")
    clicks = [Prompt.points([(x, y)]) for x, y in ((60, 250), (200, 150), (204, 146))]
    found = [image.predict(click) for click in clicks]
    assert found[1].window == found[2].window != found[0].window
    encoded.clear()
    again = [image.predict(click) for click in clicks]
    assert encoded == []
    assert all(
        (one.mask == other.mask).all() for one, other in zip(found, again, strict=True)
    )


def test_windows_are_dropped_where_memory_is_full(
    loaded: Bundle, encoded: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scene has thousands; the one looked at last stays."""
    monkeypatch.setattr("simmat.predictor.tiled_image.CACHE_BYTES", 1)
    predictor = Predictor.of_bundle(loaded)
    image = SensorImage.from_planes(_scene(LARGE), predictor.channels, origin="a.tif")
    windows = predictor.open_reader(image)
    one, other = Window(0, 0, 64, 64), Window(0, 64, 64, 128)
    for window, count in ((one, 1), (one, 1), (other, 2), (other, 2), (one, 3)):
        windows.encode_window(window)
        assert len(encoded) == count
    assert 0 < windows.cached_bytes < 2**20


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 64
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _flip,
        lambda file: file.write_bytes(b"none"),
    ],
)
def test_a_damaged_or_foreign_file_is_written_again(
    loaded: Bundle,
    tmp_path: Path,
    encoded: list[Tensor],
    damage: Callable[[Path], object],
) -> None:
    """A full disk, another program or a bad copy must not change a mask."""
    kept = tmp_path / "kept"
    model = Predictor.of_bundle(loaded)
    model.set_image(_scene(), cache=kept)
    expected = model.predict([(20, 30)]).logits
    (file,) = kept.iterdir()
    content = file.read_bytes()
    damage(file)
    model.set_image(_scene(), cache=kept)
    assert len(encoded) == 2
    np.testing.assert_array_equal(model.predict([(20, 30)]).logits, expected)
    assert {path: path.read_bytes() for path in kept.iterdir()} == {file: content}


def test_values_too_large_for_fp16_are_not_kept(tmp_path: Path) -> None:
    """Infinity in place of a number makes a mask meaningless."""
    file = tmp_path / "kept/a.safetensors"
    embedding = ImageEmbedding((torch.full((1, 2, 3, 3), 1e6),), (16.0,))
    assert write_embedding(file, embedding) is embedding
    assert read_embedding(file) is None
    assert not file.parent.exists()


@pytest.mark.plugins
@pytest.mark.parametrize("size_hw", [SMALL, LARGE])
def test_the_command_keeps_embeddings(
    bundle: Path, tmp_path: Path, encoded: list[Tensor], size_hw: tuple[int, int]
) -> None:
    """Scripts click in many calls; each loads the model anew."""
    write_image(tmp_path / "a.tif", _scene(size_hw))
    call = [
        "predict",
        str(bundle),
        str(tmp_path / "a.tif"),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    kept = ["--cache", str(tmp_path / "kept")]
    assert run([*call, *kept, "--point", "20,30"]) == 0
    count = len(encoded)
    assert count == len(list((tmp_path / "kept").iterdir()))
    assert run([*call, *kept, "--point", "21,30"]) == 0
    assert len(encoded) == count
    # done already, whether embeddings are kept or not
    assert run([*call, "--point", "21,30"]) == 0
    assert len(encoded) == count
