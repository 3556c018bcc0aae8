"""The panel beside the image: choose a model, mark objects, find all of them, follow them, write them."""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from inspect import isgeneratorfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker
from napari.utils.notifications import (
    notification_manager,
    show_error,
    show_info,
    show_warning,
)
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

import simmat
from napari_simmat.images import LayerImage, images_in, prompts_of
from napari_simmat.masks import (
    FRAMES,
    TITLE,
    FoundMask,
    add_objects,
    frame_names,
    mask_path,
    note_found,
    titled,
    with_classes,
    write_mask,
)
from napari_simmat.opengl import hide_triton
from napari_simmat.reader import choose_sensor
from simmat.errors import ConfigError, SimMATError
from simmat.plugins.loader import installed

if TYPE_CHECKING:  # imports torch
    from simmat_plugin_annotate.remote import RemotePredictor

    from simmat.predictor import ClassMap, Prediction

PROMPT_DELAY_MS = 80
"""Time without a change of the prompts after which they are answered: dragging a box is many changes."""
ON, OFF, BOXES, PREVIEW = (
    "SimMAT: on the object",
    "SimMAT: not on it",
    "SimMAT: boxes",
    "SimMAT: preview",
)
UNTUNED, BUNDLE = "an untuned model", "a bundle or a server"
FOLLOWED = "simmat_followed"
"""Key of a labels layer's metadata: frame -> checksum of what `follow` wrote there."""


class Panel(QWidget):  # type: ignore[misc,unused-ignore]
    """The panel of one viewer."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.predictor: Any = None
        self.images: dict[str, LayerImage] = {}
        self.shown: list[Prediction] = []
        self._at: tuple[LayerImage, int] | None = None
        self._encoded: tuple[tuple[int, ...], LayerImage] | None = None
        self._worker: Any = None
        self._asked_again = False
        self._timer = QTimer(self, singleShot=True, interval=PROMPT_DELAY_MS)
        self._timer.timeout.connect(self.answer_prompts)
        self._build()
        events = napari_viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(lambda: self._list_images())
        napari_viewer.dims.events.current_step.connect(lambda: self._show_preview())
        self._add_on_enter(napari_viewer)
        self._list_images()

    def _build(self) -> None:
        self.kind, self.bundle, self.options = (
            _choice([UNTUNED, BUNDLE]),
            QLineEdit(),
            QLineEdit(),
        )
        self.foundation, self.sensor = (
            _choice(simmat.list_foundations()),
            _choice(simmat.list_modalities()),
        )
        with suppress(ConfigError):  # none is ready to use
            self.foundation.setCurrentText(installed().default_foundation())
        for editable in (self.foundation, self.sensor):  # hf/NAME, rgb+thermal
            editable.setEditable(True)
        self.bundle.setPlaceholderText(
            "bundle, folder of a run, hf://ORG/NAME, address of simmat serve"
        )
        self.options.setPlaceholderText('unit = "cK", nodata = 0')
        self.image, self.as_class = _choice([]), _choice([])
        self.load_button = _button(
            "Load", "Load the model; its sensor then opens files", self.load
        )
        self.points = _button(
            "+ Point", "Click on the object", partial(self.prompt_layer, ON)
        )
        self.off_points = _button(
            "− Point", "Click beside the object", partial(self.prompt_layer, OFF)
        )
        self.boxes = _button(
            "Box",
            "Drag boxes, one around each object",
            partial(self.prompt_layer, BOXES),
        )
        self.add = _button(
            "Add (Enter)", "Label what the preview shows", self.add_shown
        )
        self.clear = _button("Clear", "Remove points and boxes", self.clear_prompts)
        self.all = _button(
            "Everything", "Label every object that is not labelled", self.everything
        )
        self.class_map = _button(
            "Classes", "Show the class of every pixel", self.classes
        )
        self.follow_button = _button(
            "Follow", "Find the objects of this frame in all frames", self.follow
        )
        self.stop = _button(
            "Stop", "Stop after this frame", lambda: self._worker.quit()
        )
        self.write = _button(
            "Save labels…", "Write the mask file that SimMAT trains on", self.save
        )
        self.status = QLabel(
            "Load a model, then open files of its sensor.", wordWrap=True
        )
        self.form = QFormLayout(self)
        self.bundle_row = _row(
            self.bundle, _button("…", "Choose a bundle", self._browse)
        )
        network = {
            "Network": self.foundation,
            "Sensor": self.sensor,
            "Options": self.options,
        }
        for label, field in {
            "Model": self.kind,
            "Bundle": self.bundle_row,
            **network,
        }.items():
            self.form.addRow(label, field)
        self.form.addRow(self.load_button)
        self.form.addRow(
            "Image", _row(self.image, _button("…", "Open a file", self._open))
        )
        self.form.addRow(_row(self.points, self.off_points, self.boxes))
        self.form.addRow("Class", self.as_class)
        tasks = _row(self.all, self.class_map, self.follow_button, self.stop)
        for row in (_row(self.add, self.clear), tasks, self.write, self.status):
            self.form.addRow(row)
        self.kind.currentTextChanged.connect(lambda: self._enable())

    def _add_on_enter(self, where: Any) -> None:
        where.bind_key("Enter", lambda _: self.add_shown(), overwrite=True)

    def _enable(self) -> None:
        """Offer what can be done now."""
        ready, idle = (
            self.predictor is not None and bool(self.images),
            self._worker is None,
        )
        bundle = self.kind.currentText() == BUNDLE
        untuned = dict.fromkeys(
            (self.foundation, self.sensor, self.options), not bundle
        )
        for field, shown in {
            self.bundle_row: bundle,
            **untuned,
            self.as_class: self.as_class.count() > 1,
        }.items():
            field.setVisible(shown)
            self.form.labelForField(field).setVisible(shown)
        for button in (self.points, self.off_points, self.boxes, self.add, self.clear):
            button.setEnabled(ready)
        for button in (self.all, self.class_map, self.follow_button, self.write):
            button.setEnabled(ready and idle)
        self.load_button.setEnabled(idle)
        stack = ready and any(image.is_stack for image in self.images.values())
        self.follow_button.setVisible(stack and hasattr(self.predictor, "follow"))
        self.stop.setVisible(not idle and hasattr(self._worker, "yielded"))

    def _browse(self) -> None:
        file, _ = QFileDialog.getOpenFileName(
            self, "Bundle", self.bundle.text(), "Bundle (*.safetensors *.zip)"
        )
        if file:
            self.bundle.setText(file)

    def _open(self) -> None:
        if paths := QFileDialog.getOpenFileNames(self, "Image, or one of each source")[
            0
        ]:
            self.viewer.open(paths, plugin="napari-simmat", stack=len(paths) > 1)

    def run(
        self,
        text: str,
        work: Callable[[], Any],
        then: Callable[[Any], object],
        total: int = 0,
    ) -> None:
        """Do work in napari's thread, and show what it raises as a notification.

        Args:
            text: what is done.
            work: returns a result; a generator yields several.
            then: takes each result, in the thread of the window.
            total: how many a generator yields.
        """
        self.status.setText(f"{text} …")
        progress = {"total": total, "desc": text} if total else None
        self._worker = worker = create_worker(
            work, _start_thread=False, _progress=progress, _ignore_errors=True
        )
        (worker.yielded if isgeneratorfunction(work) else worker.returned).connect(then)
        worker.errored.connect(_show_failure)
        worker.finished.connect(self._finish)
        self._enable()
        worker.start()

    def _finish(self) -> None:
        self._worker = None
        if self.status.text().endswith(" …"):
            self.status.setText("")
        self._enable()
        if self._asked_again:
            self.answer_prompts()

    def load(self) -> None:
        """Load the chosen model."""
        hide_triton()
        bundle = self.bundle.text() if self.kind.currentText() == BUNDLE else None
        network, sensor, text = (
            self.foundation.currentText(),
            self.sensor.currentText(),
            self.options.text(),
        )

        def work() -> simmat.Predictor | RemotePredictor:
            if bundle is None:
                return simmat.load(
                    foundation=network,
                    modality=sensor,
                    modality_options=options_in(text),
                )
            if not bundle.startswith(("http://", "https://")):
                return simmat.load(bundle)
            from simmat_plugin_annotate.remote import RemotePredictor

            return RemotePredictor(bundle)

        self.run("Loading the model", work, self.use_model)

    def use_model(self, predictor: Any) -> None:
        """Ask this model from now on."""
        self.predictor, self._encoded = predictor, None
        choose_sensor(predictor.adapter)
        self.as_class.clear()
        self.as_class.addItem("as predicted", None)
        for value, name in predictor.class_names.items():
            self.as_class.addItem(f"{value} {name}", value)
        self._list_images()
        channels = ", ".join(
            f"{channel.name} [{channel.unit}]"
            for channel in predictor.image_loader.channels
        )
        self.status.setText(
            f"Loaded for {predictor.adapter.name}: {channels or 'any channels'}"
        )

    def _list_images(self) -> None:
        chosen, known = self.image.currentText(), self.images
        new = self.images = images_in(
            self.viewer.layers,
            len(self.predictor.image_loader.channels) if self.predictor else 0,
        )
        if [*new] != [*known]:
            self.image.clear()
            self.image.addItems(new)
            stays = chosen in new and new.keys() <= known.keys()
            self.image.setCurrentText(chosen if stays else next(reversed(new), ""))
        self._enable()

    def current(self) -> tuple[LayerImage, int]:
        """Return the chosen image, and the frame that is shown of it; ConfigError without a model or an image."""
        if self.predictor is None or not self.images:
            raise ConfigError("load a model and open an image first")
        image = self.images[self.image.currentText()]
        return image, image.frame_at(self.viewer.dims.point)

    def encoded(self, image: LayerImage, frame: int) -> Any:
        """Return the predictor with a frame as its image, in the thread of the work."""
        wanted = frame, *map(id, image.sources)
        if self._encoded is None or self._encoded[0] != wanted:
            self._encoded = None
            self.predictor.set_image(image[frame])
            self._encoded = wanted, image  # which keeps the sources, and so their ids
        return self.predictor

    def prompt_layer(self, name: str) -> Any:
        """Return a layer of prompts, new if it is missing, with its tool for drawing chosen."""
        image, _ = self.current()
        if name not in self.viewer.layers:
            common = {"name": name, "ndim": len(image.scale), "scale": image.scale}
            if name == BOXES:
                width = max(1, max(image.size_hw) / 300)
                layer = self.viewer.add_shapes(
                    face_color="transparent",
                    edge_color="yellow",
                    edge_width=width,
                    **common,
                )
            # small, as a point reaches into the frames beside its own; and never smaller than 10 on the screen
            else:
                colour = "lime" if name == ON else "red"
                layer = self.viewer.add_points(
                    face_color=colour, size=1, canvas_size_limits=(10, 10), **common
                )
            layer.events.data.connect(lambda: self._timer.start())
            self._add_on_enter(layer)  # shapes have an Enter of their own
        layer = self.viewer.layers[name]
        self.viewer.layers.selection.active = layer
        layer.mode = "add_rectangle" if name == BOXES else "add"
        return layer

    def answer_prompts(self) -> None:
        """Show the objects that the prompts on this frame mark."""
        self._asked_again = self._worker is not None
        if self._asked_again or self.predictor is None or not self.images:
            return
        image, frame = self.current()
        layers = {layer.name: layer for layer in self.viewer.layers}
        on, off = (image.points_on(frame, layers.get(name)) for name in (ON, OFF))
        prompts = prompts_of(on, off, image.boxes_on(frame, layers.get(BOXES)))
        show = partial(self._show, image, frame)
        if prompts:
            self.run(
                "Segmenting",
                lambda: self.encoded(image, frame).predict_prompts(prompts),
                show,
            )
        else:
            show([])

    def _show(self, image: LayerImage, frame: int, found: list[Prediction]) -> None:
        self.shown, self._at = found, (image, frame)
        plane = np.zeros(image.size_hw, np.uint16)
        for number, one in enumerate(found, 1):
            plane[one.mask & (plane == 0)] = number
        if PREVIEW in self.viewer.layers:
            self.viewer.layers[PREVIEW].data = plane
        elif found:
            self._add_labels(plane, PREVIEW, image)
        self._show_preview()
        names = self.predictor.class_names
        if found:
            self.status.setText(
                "; ".join(
                    f"score {one.score:.2f} {names.get(one.class_id, '')}"
                    for one in found[:4]
                )
            )
        for warning in {one.warning for one in found} - {""}:
            show_warning(warning)

    def _show_preview(self) -> None:
        """Show the preview on its own frame alone."""
        if PREVIEW in self.viewer.layers and self._at is not None:
            image, frame = self._at
            self.viewer.layers[PREVIEW].visible = (
                bool(self.shown) and image.frame_at(self.viewer.dims.point) == frame
            )

    def add_shown(self) -> None:
        """Label the objects of the preview, and remove their prompts."""
        if self.shown and self._at is not None:
            chosen, (image, frame) = self.as_class.currentData(), self._at
            found = [
                FoundMask(
                    one.window,
                    one.mask,
                    one.score,
                    one.class_id if chosen is None else chosen,
                )
                for one in self.shown
            ]
            self._label(image, frame, found, free_only=False)
            self.clear_prompts()

    def clear_prompts(self) -> None:
        """Remove points, boxes and preview."""
        for name in (ON, OFF, BOXES):
            if name in self.viewer.layers:
                self.viewer.layers[name].data = []
        if self._at is not None:
            self._show(*self._at, [])

    def labels(self, image: LayerImage) -> Any:
        """Return the labels layer of an image, new if it is missing."""
        title, frames = f"{image.path} labels", (len(image),) if image.is_stack else ()
        empty = np.zeros((*frames, *image.size_hw), np.int32)
        layer = titled(self.viewer.layers, title)
        if layer is None:
            layer = self._add_labels(empty, title, image)
        if image.is_stack and FRAMES not in layer.metadata:
            sources = self.predictor.adapter.sources
            layer.metadata[FRAMES] = frame_names(image.path, sources, len(image))
        return layer

    def _add_labels(
        self, data: Any, title: str, image: LayerImage, **attributes: Any
    ) -> Any:
        """Add a labels layer, and leave the active one active."""
        active = self.viewer.layers.selection.active
        attributes |= {
            "name": Path(title).name,
            "metadata": {TITLE: title},
            "scale": image.scale[-data.ndim :],
        }
        layer = self.viewer.add_labels(data, opacity=0.5, **attributes)
        self.viewer.layers.selection.active = active
        return layer

    def _label(
        self, image: LayerImage, frame: int, found: list[FoundMask], *, free_only: bool
    ) -> None:
        layer = self.labels(image)
        plane = frame if image.is_stack else None
        added = add_objects(layer, plane, found, free_only=free_only)
        # those without a click are for free pixels
        if free_only:
            note_found(layer, plane, added)
        self.status.setText(f"{len(added)} object{'s' * (len(added) != 1)} added")

    def everything(self) -> None:
        """Label every object of this frame that is not labelled."""
        image, frame = self.current()

        def work() -> list[FoundMask]:
            objects = self.encoded(image, frame).segment_everything()
            return [
                FoundMask(
                    one.instance.window,
                    one.instance.crop,
                    one.score,
                    one.instance.class_id,
                )
                for one in objects
            ]

        self.run(
            "Finding every object",
            work,
            lambda found: self._label(image, frame, found, free_only=True),
        )

    def classes(self) -> None:
        """Show the class of every pixel of this frame as a layer."""
        image, frame = self.current()

        def show(found: ClassMap) -> None:
            title = f"{image.path} classes" + f" {frame}" * image.is_stack
            if layer := titled(self.viewer.layers, title):
                self.viewer.layers.remove(layer)
            names = [found.class_names.get(value, str(value)) for value in found.values]
            self._add_labels(
                found.labels,
                title,
                image,
                features={"index": found.values, "name": names},
            )

        self.run(
            "Finding classes",
            lambda: self.encoded(image, frame).segment_semantic(),
            show,
        )

    def follow(self) -> None:
        """Find the objects of this frame, and of frames that were labelled or corrected by hand, in all others."""
        image, current = self.current()
        layer, predictor, given = self.labels(image), self.predictor, {}
        written = layer.metadata.setdefault(FOLLOWED, {})
        for index, plane in enumerate(layer.data):
            if plane.any() and (
                index == current or zlib.crc32(plane) != written.get(index)
            ):
                # What is missing in a frame that was followed and corrected is not there; in others it is looked for.
                masks = {
                    int(number): plane == number
                    for number in np.unique(plane[plane > 0])
                }
                given[index] = plane.copy() if index in written else masks
        self._encoded = None

        def work() -> Iterator[Any]:
            yield from predictor.follow(image, given)

        def show(found: Any) -> None:
            plane = layer.data[found.index]
            if found.index not in given:
                plane[:] = 0
            for number, mask in found.masks.items():
                plane[mask & (plane == 0)] = number
            if found.index not in given:
                written[found.index] = zlib.crc32(plane)
                note_found(layer, found.index, found.masks)
            layer.refresh()

        self.run("Following", work, show, total=len(image))

    def save(self) -> None:
        """Write the labels where SimMAT looks for masks, or elsewhere."""
        image, _ = self.current()
        layer = self.labels(image)
        path = mask_path(
            image.path, self.predictor.adapter.sources, frames=image.is_stack
        )
        if path := QFileDialog.getSaveFileName(
            self, "Save labels", path, "*.png *.tif *.npy"
        )[0]:
            labels = np.asarray(layer.data)
            rule = (
                "instances"
                if with_classes(labels, layer.features) is labels
                else "panoptic"
            )
            self.run(
                "Saving",
                lambda: write_mask(
                    path,
                    labels,
                    {"features": layer.features, "metadata": dict(layer.metadata)},
                ),
                lambda _: show_info(f'{path}: written, for regions = "{rule}"'),
            )


def options_in(text: str) -> dict[str, Any]:
    """Return the options of a sensor, written as in `card.toml` with commas; ConfigError if they are not."""
    try:
        return tomllib.loads(f"options = {{ {text} }}")["options"]  # type: ignore[no-any-return]
    # a number with thousands of digits raises a plain ValueError
    except (ValueError, RecursionError):
        raise ConfigError(
            f'options are written as unit = "cK", nodata = 0; got {text}'
        ) from None


def _show_failure(error: Exception) -> None:
    if isinstance(error, SimMATError):
        show_error(str(error))
    else:  # with a traceback
        notification_manager.receive_error(type(error), error)


def _choice(names: Any) -> Any:
    box = QComboBox()
    box.addItems(names)
    box.setMinimumContentsLength(12)
    return box


def _button(text: str, tip: str, clicked: Callable[[], object]) -> Any:
    button = QPushButton(text, toolTip=tip)
    button.clicked.connect(lambda: clicked())
    if text == "…":
        button.setFixedWidth(28)
    return button


def _row(*widgets: Any) -> Any:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)
    return row
