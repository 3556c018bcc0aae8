"""The panel in the window of a real napari: run it with a display, or by xvfb-run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tifffile
import torch

pytest.importorskip("napari")
pytest.importorskip("pytestqt")
if sys.platform == "linux" and not (
    os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
):
    pytest.skip(
        "napari draws with OpenGL, and there is no display; use xvfb-run",
        allow_module_level=True,
    )

from napari.utils.notifications import notification_manager
from napari_simmat import reader
from napari_simmat.opengl import hide_triton
from napari_simmat.panel import BOXES, BUNDLE, OFF, ON, PREVIEW, Panel
from qtpy.QtCore import Qt, QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QFileDialog
from scripted_model import Scripted

from simmat.data.instances import read_mask
from simmat.data.pipeline import Pipeline
from simmat.data.predicted import read_predicted
from simmat.foundation import PromptBatch
from simmat.model import SimMAT
from simmat.plugins.loader import load_plugins
from simmat.predictor import Predictor

SIZE = 64


@pytest.fixture
def panel(make_napari_viewer_proxy: Callable[[], Any]) -> Iterator[Panel]:
    """The panel, in a window of its own."""
    _, found = make_napari_viewer_proxy().window.add_plugin_dock_widget(
        "napari-simmat", "SimMAT"
    )
    yield found
    reader.choose_sensor(None)
    hide_triton()  # fixtures load models, too


def test_loading_a_model_keeps_triton_out(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded later may import it, and that ends napari where Mesa draws."""
    done: list[str] = []
    monkeypatch.setattr(
        "napari_simmat.panel.hide_triton", lambda: done.append("hidden")
    )
    monkeypatch.setattr(panel, "run", lambda *_: done.append("loaded"))
    panel.load()
    assert done == ["hidden", "loaded"]


def squares(prompts: PromptBatch) -> torch.Tensor:
    """Answer a box by its inside, a point by the 9x9 pixels around it, less the 3x3 around points not on the object."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    masks = torch.zeros(len(prompts.image_index), 1, SIZE, SIZE, dtype=torch.bool)
    for row, mask in enumerate(masks[:, 0]):
        if prompts.boxes is not None:
            x0, y0, x1, y1 = prompts.boxes[row]
            mask |= (x + 0.5 > x0) & (x + 0.5 < x1) & (y + 0.5 > y0) & (y + 0.5 < y1)
        for (px, py), label in zip(
            prompts.point_coords[row], prompts.point_labels[row], strict=True
        ):
            near = torch.maximum((x - px).abs(), (y - py).abs())
            mask |= (near <= 4) & (label == 1)
            mask &= ~((near <= 1) & (label == 0))
    return masks


def scripted_predictor() -> Predictor:
    """A model of grey images that answers with `squares`."""
    adapter = load_plugins().modality("gray")
    channels = tuple(channel.with_statistics(100, 50) for channel in adapter.channels)
    return Predictor(cast(SimMAT, Scripted(squares)), Pipeline(adapter, channels, SIZE))


def load_scripted(panel: Panel) -> Predictor:
    """Give it to the panel."""
    predictor = scripted_predictor()
    panel.use_model(predictor)
    return predictor


def open_image(panel: Panel, path: Path, frames: int = 0) -> np.ndarray:
    """Write 16-bit noise and open it with the plugin."""
    shape = (frames, SIZE, SIZE) if frames else (SIZE, SIZE)
    noise = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, noise, photometric="minisblack")
    panel.viewer.open(str(path), plugin="napari-simmat")
    return noise


def preview_of(panel: Panel, qtbot: Any, area: int) -> np.ndarray:
    """Wait for a preview of so many pixels."""
    layers = panel.viewer.layers
    qtbot.waitUntil(
        lambda: PREVIEW in layers and np.count_nonzero(layers[PREVIEW].data) == area,
        timeout=60_000,
    )
    return np.asarray(layers[PREVIEW].data)


def test_points_become_a_label_that_can_be_undone_and_written(
    panel: Panel, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of an annotator, in the sensor's own values."""
    predictor = load_scripted(panel)
    noise = open_image(panel, tmp_path / "images" / "a.tif")
    panel.prompt_layer(ON).add([[20, 30]])
    assert preview_of(panel, qtbot, 81)[16:25, 26:35].all()
    np.testing.assert_array_equal(predictor.image.data[0], noise)
    panel.prompt_layer(OFF).add([[20, 30]])
    preview_of(panel, qtbot, 72)
    assert len(cast(Scripted, predictor.model).encoded) == 1
    qtbot.keyClick(panel.window().findChild(QOpenGLWidget), Qt.Key.Key_Return)
    labels = panel.viewer.layers["a.tif labels"]
    assert np.count_nonzero(labels.data == 1) == 72
    assert len(panel.viewer.layers[ON].data) == 0
    assert labels.features["score"].tolist() == [pytest.approx(0.9)]
    written = tmp_path / "masks" / "a.png"
    written.parent.mkdir()
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *arguments: (arguments[2], "")
    )
    panel.save()
    qtbot.waitUntil(written.exists, timeout=60_000)
    np.testing.assert_array_equal(read_mask(written), labels.data)
    labels.undo()
    assert not labels.data.any()


def test_boxes_mark_an_object_each_by_their_outer_edges(
    panel: Panel, qtbot: Any, tmp_path: Path
) -> None:
    """napari counts from the centre of a pixel, a prompt's box from its edge."""
    load_scripted(panel)
    open_image(panel, tmp_path / "a.tif")
    boxes = [[[9.5, 19.5], [14.5, 29.5]], [[39.5, 39.5], [41.5, 90]]]
    panel.prompt_layer(BOXES).add_rectangles([np.array(box) for box in boxes])
    found = preview_of(panel, qtbot, 5 * 10 + 2 * 24)
    assert (found[10:15, 20:30] == 1).all()
    assert (found[40:42, 40:] == 2).all()
    panel.add_shown()
    assert np.unique(panel.viewer.layers["a.tif labels"].data).tolist() == [0, 1, 2]


def test_images_with_the_same_file_name_have_layers_of_their_own(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cameras number their files alike, and the objects of one day must not be saved as the mask of another."""
    load_scripted(panel)
    found = SimpleNamespace(
        labels=np.zeros((SIZE, SIZE), np.uint8), values=(0,), class_names={}
    )
    monkeypatch.setattr(panel, "run", lambda text, work, then: then(found))
    for day in ("day1", "day2"):
        open_image(panel, tmp_path / day / "a.tif")
        image, _ = panel.current()
        for _ in range(2):
            panel.labels(image).data[:] += 1
            panel.classes()
    layers = {layer.name: layer for layer in panel.viewer.layers}
    assert [name for name in layers if "labels" in name] == [
        "a.tif labels",
        "a.tif labels [1]",
    ]
    assert [name for name in layers if "classes" in name] == [
        "a.tif classes",
        "a.tif classes [1]",
    ]
    assert (layers["a.tif labels"].data == 2).all()


def test_everything_keeps_what_is_labelled(
    panel: Panel, qtbot: Any, tmp_path: Path, dense_bundle: Path
) -> None:
    """By a real network; and its classes are a layer."""
    panel.kind.setCurrentText(BUNDLE)
    panel.bundle.setText(str(dense_bundle))
    panel.load()
    qtbot.waitUntil(lambda: panel.predictor is not None, timeout=60_000)
    open_image(panel, tmp_path / "a.tif")
    image, _ = panel.current()
    panel.labels(image).data[:, :40] = 1
    panel.everything()
    qtbot.waitUntil(lambda: "added" in panel.status.text(), timeout=60_000)
    assert (panel.labels(image).data[:, :40] == 1).all()
    panel.classes()
    qtbot.waitUntil(lambda: "a.tif classes" in panel.viewer.layers, timeout=60_000)
    assert panel.viewer.layers["a.tif classes"].data.shape == (SIZE, SIZE)


def test_the_model_can_be_on_another_machine(
    panel: Panel, qtbot: Any, tmp_path: Path
) -> None:
    """A laptop with napari, and `simmat serve` where the GPU is: frames go there in the units of the channels."""
    door = pytest.importorskip("annotate_server").door
    model = scripted_predictor()
    with door(model, tmp_path / "home") as address:
        panel.kind.setCurrentText(BUNDLE)
        panel.bundle.setText(address)
        panel.load()
        qtbot.waitUntil(lambda: panel.predictor is not None, timeout=60_000)
        noise = open_image(panel, tmp_path / "a.tif", frames=3)
        panel.viewer.dims.set_current_step(0, 2)
        panel.prompt_layer(ON).add([[2, 20, 30]])
        assert preview_of(panel, qtbot, 81)[16:25, 26:35].all()
        (sent,) = (tmp_path / "home").rglob("*.npy")
        np.testing.assert_array_equal(np.load(sent)[0], noise[2])
        assert not panel.follow_button.isVisible()


def test_prompts_and_labels_belong_to_a_frame_and_are_followed(
    panel: Panel, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corrected frames are given to `follow`; those that it wrote itself are not."""
    predictor, viewer, asked = load_scripted(panel), panel.viewer, []

    def follow(frames: Any, masks: dict[int, Any]) -> Iterator[Any]:
        asked.append(masks)
        assert frames[0].channels == predictor.adapter.channels
        yield from (
            SimpleNamespace(index=index, masks={1: masks[2][1]})
            for index in range(len(frames))
        )

    predictor.follow = follow
    noise = open_image(panel, tmp_path / "frames" / "a.tif", frames=4)
    viewer.dims.set_current_step(0, 2)
    panel.prompt_layer(ON).add([[2, 20, 30], [1, 50, 50]])
    preview_of(panel, qtbot, 81)
    np.testing.assert_array_equal(predictor.image.data[0], noise[2])
    viewer.dims.set_current_step(0, 1)
    assert not viewer.layers[PREVIEW].visible
    viewer.dims.set_current_step(0, 2)
    panel.add_shown()
    labels = viewer.layers["a.tif labels"]
    assert [np.count_nonzero(plane) for plane in labels.data] == [0, 0, 81, 0]
    panel.follow()
    qtbot.waitUntil(lambda: bool(labels.data.any((1, 2)).all()), timeout=60_000)
    qtbot.waitUntil(lambda: panel.write.isEnabled(), timeout=60_000)
    labels.data[3, :5] = 2
    panel.follow()
    qtbot.waitUntil(lambda: len(asked) == 2 and panel.write.isEnabled(), timeout=60_000)
    assert [sorted(masks) for masks in asked] == [[2], [2, 3]]
    np.testing.assert_array_equal(asked[1][3], labels.data[3])
    written = tmp_path / "masks" / "a.tif"
    written.parent.mkdir()
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *arguments: (arguments[2], "")
    )
    panel.save()
    qtbot.waitUntil(written.exists, timeout=60_000)
    # the frame of the click is a person's
    assert read_predicted(tmp_path) == {"a/0000", "a/0001", "a/0003"}


def test_a_layer_of_another_reader_is_taken_as_stored(panel: Panel, qtbot: Any) -> None:
    """Images come from other plugins, too."""
    predictor = load_scripted(panel)
    frames = (
        np.random.default_rng(0).integers(0, 60000, (3, SIZE, SIZE)).astype(np.uint16)
    )
    panel.viewer.add_image(frames, name="other", scale=(5, 2, 2))
    panel.viewer.dims.set_point(0, 10)
    panel.prompt_layer(ON).add([[2, 20, 30]])
    assert preview_of(panel, qtbot, 81)[16:25, 26:35].all()
    np.testing.assert_array_equal(predictor.image.data[0], frames[2])


def test_the_window_is_alive_while_work_goes_on(panel: Panel, qtbot: Any) -> None:
    """An encoder takes seconds."""
    alive, results = threading.Event(), []
    panel.run("Waiting", lambda: alive.wait(60), results.append)
    QTimer.singleShot(50, alive.set)
    qtbot.waitUntil(lambda: results == [True], timeout=60_000)


def test_what_is_wrong_is_a_notification_with_the_message_of_simmat(
    panel: Panel, qtbot: Any, tmp_path: Path
) -> None:
    """Nobody reads the terminal."""
    panel.kind.setCurrentText(BUNDLE)
    panel.bundle.setText(str(tmp_path / "nothing"))
    panel.load()
    qtbot.waitUntil(lambda: panel.load_button.isEnabled(), timeout=60_000)
    assert "nothing" in notification_manager.records[-1].message
    load_scripted(panel)
    open_image(panel, tmp_path / "a.tif")
    panel.classes()
    qtbot.waitUntil(lambda: panel.write.isEnabled(), timeout=60_000)
    assert "dense head" in notification_manager.records[-1].message
