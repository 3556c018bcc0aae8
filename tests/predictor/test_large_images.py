"""Images that are too large for one look: windows give what the whole gives, in memory, from files and after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
from large_scene import EVERY, large_scene
from runs import registry

import simmat
from simmat.predictor import Predictor
from simmat.types import Window


@pytest.fixture
def model(dense_bundle: Path) -> Predictor:
    """The bundle's predictor."""
    return simmat.load(dense_bundle, device="cpu", registry=registry())


def test_a_large_image_is_cut_at_the_resolution_of_training(
    model: Predictor, tmp_path: Path
) -> None:
    """Windows see what the network was trained on."""
    image = model.open_image(large_scene(tmp_path / "large.tif"))
    assert model.bundle is not None
    assert image.tile == model.bundle.spec.image_side == 56
    assert len(image.windows) > 4
    assert not image.shrink_warning()
    assert "64" in model.open_image(tmp_path / "large.tif", tile=128).shrink_warning()


def test_a_model_of_windows_keeps_their_scale(model: Predictor, tmp_path: Path) -> None:
    """Objects of a whole image would be smaller than in any window of the training."""
    trained = Predictor(model.model, model.pipeline, image_side=56, takes_windows=True)
    assert trained.tile_size((40, 70)) == 70
    assert trained.tile_size((40, 71)) == 56
    image = trained.open_image(large_scene(tmp_path / "image.tif", (75, 90)))
    assert image.tile == 56
    assert len(image.windows) > 1


def test_windows_from_a_file_and_from_memory_agree(
    model: Predictor, tmp_path: Path
) -> None:
    """How an image is read does not change what is found in it."""
    file = large_scene(tmp_path / "large.tif")
    image = model.open_image(file)
    loaded = model.set_image(file)
    assert type(image.reader).__name__ == "FileImage"
    assert loaded.size_hw == image.reader.size_hw == (150, 180)
    found, again = image.segment_everything(EVERY), model.segment_everything(EVERY)
    assert [(one.instance.window, one.score) for one in found] == [
        (one.instance.window, one.score) for one in again
    ]
    assert (image.segment_semantic().labels == model.segment_semantic().labels).all()


def test_what_is_in_view_is_found_without_the_rest_and_can_be_stopped(
    model: Predictor, tmp_path: Path
) -> None:
    """In the annotator nobody waits for a scene of which one corner is looked at."""
    image, box, done = (
        model.open_image(large_scene(tmp_path / "large.tif")),
        Window(0, 0, 40, 40),
        list[int](),
    )
    seen = image.segment_everything(EVERY, box=box, progress=done.append)
    assert done == list(range(1, len(image.windows_in(box)) + 1))
    assert len(done) < len(image.windows)
    assert seen
    assert all(
        one.instance.window[0] < 40 and one.instance.window[1] < 40 for one in seen
    )

    class StoppedError(Exception):
        pass

    def stop(count: int) -> None:
        raise StoppedError(count)

    with pytest.raises(StoppedError, match="1"):
        image.segment_everything(EVERY, progress=stop)
