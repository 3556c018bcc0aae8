"""The images of a folder, the frames of its sequences, and the objects that these share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from simmat.data.formats.coco import annotation_files
from simmat.data.formats.folders import IMAGES, MASKS, find_samples
from simmat.data.formats.manifest import read_manifest
from simmat.data.samples import Sample
from simmat.errors import DataError
from simmat.io.paths import frame_of
from simmat.sensors.adapter import ModalityAdapter
from simmat_plugin_annotate.journal import Record


def find_images(
    root: Path, adapter: ModalityAdapter, stack_axis: str, has_manifest: bool
) -> list[Sample]:
    """Return the images of a folder, sorted by sequence, frame and name.

    Raises:
        DataError: there are none, or their labels cannot be edited.
    """
    if annotation_files(root):
        raise DataError(
            f"{root}: its labels are a COCO annotations.json, which the annotator cannot edit; convert "
            "them to masks first"
        )
    found = (
        read_manifest(root, adapter.sources)
        if has_manifest
        else find_samples(root, adapter.sources, masks=False, axis=stack_axis)
    )
    if not found:
        raise DataError(f"{root}: no image in {IMAGES}/")
    if stacked := next(
        (one.mask for one in found if one.mask and frame_of(one.mask)), None
    ):
        raise DataError(
            f"{stacked}: one of many masks in a file; to edit them, save each as {MASKS}/SEQUENCE/FRAME.png"
        )
    return sorted(found, key=lambda sample: (sample.sequence, sample.frame, sample.id))


class Frames:
    """The frames of the sequences in a folder."""

    def __init__(
        self, images: Mapping[str, Sample], last_step: Callable[[str], Record | None]
    ) -> None:
        """Group images by their sequence.

        Args:
            images: key -> files, sorted by sequence and frame.
            last_step: returns the last step of an image; None if none is known.
        """
        self._keys: dict[str, list[str]] = {}
        self._images, self._last_step = images, last_step
        for key, sample in images.items():
            if sample.sequence:
                self._keys.setdefault(sample.sequence, []).append(key)

    def of(self, key: str) -> list[str]:
        """Return the keys of all frames of the sequence of an image, in order; empty if it is not a frame."""
        return self._keys.get(self._images[key].sequence, [])

    def steps(self, key: str) -> dict[str, Record]:
        """Return the last steps of the frames of the sequence of an image, in order."""
        return {
            one: step
            for one in self.of(key)
            if (step := self._last_step(one)) is not None
        }

    def tracks(self, key: str) -> dict[int, int | None]:
        """Return id -> class of the objects in the sequence of an image."""
        return {
            number: class_id
            for step in self.steps(key).values()
            for number, class_id in step.ids or ()
        }
