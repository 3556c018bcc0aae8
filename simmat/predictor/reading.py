"""What a predictor reads, and the mask it finds in a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from simmat.data.card import DataCard
from simmat.sensors.adapter import Missing, ModalityAdapter, load_sample
from simmat.types import BoolArray, FloatArray, Georeference, SensorImage, Window

if TYPE_CHECKING:
    from simmat.data.instances import FoundObject

Choice = Literal["single", "best"]


@dataclass(frozen=True)
class LoadedImage:
    """An image in memory."""

    image: SensorImage

    @property
    def size_hw(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.size_hw

    @property
    def georeference(self) -> Georeference | None:
        """Of the whole image."""
        return self.image.georeference

    @property
    def origin(self) -> str:
        """Source of the image."""
        return self.image.origin

    def read(self, window: Window) -> SensorImage:
        """Return a part of the image, or the image itself."""
        return self.image if window == (0, 0, *self.size_hw) else self.image.cut(window)


@dataclass(frozen=True)
class FileImage:
    """An image whose files are read in parts.

    Attributes:
        adapter: the sensor.
        files: source name -> file.
        size_hw: (H, W) in pixels, from `ModalityAdapter.window_size`.
        card: states the nodata of the files.
        missing: channels that the files lack.
        georeference: of the whole image.
    """

    adapter: ModalityAdapter
    files: Mapping[str, Path]
    size_hw: tuple[int, int]
    card: DataCard
    missing: Missing
    georeference: Georeference | None = None

    @property
    def origin(self) -> str:
        """The first file."""
        return str(next(iter(self.files.values())))

    def read(self, window: Window) -> SensorImage:
        """Read a part of the files."""
        nodata = self.card.stated_nodata(self.files)  # a new one, as it keeps what was read
        return load_sample(self.adapter, self.files, nodata=nodata, missing=self.missing, window=window)


ImageReader: TypeAlias = LoadedImage | FileImage
"""An image that is read in parts."""


@dataclass(frozen=True)
class Prediction:
    """A mask of one image; those of `LargeImage` cover a window of it.

    Attributes:
        mask: (H, W) bool at the original resolution.
        logits: (H, W) float32; the mask is where they are above 0.
        score: predicted IoU of the mask.
        low_res: (h, w) float32, the same logits at the decoder's own size; `predict(mask=)` takes them.
        image: what was loaded, of the size of the mask.
        window: the part of the whole image that the mask covers; all of it from `Predictor.predict`.
        doubt: how the values differ from those of training, so that the mask may be meaningless; "" if they do not.
        class_id: class that the object most likely has; None where the model does not distinguish classes.
        class_probability: of that class among all classes but the background.
    """

    mask: BoolArray
    logits: FloatArray
    score: float
    low_res: FloatArray
    image: SensorImage
    window: Window
    doubt: str = ""
    class_id: int | None = None
    class_probability: float | None = None

    def __repr__(self) -> str:
        """Give the size of the mask and its score, not half a million numbers."""
        return f"<Prediction: {int(self.mask.sum())} of {self.mask.size} pixels, score {self.score:.3f}>"

    def found_object(self, point_xy: tuple[float, float]) -> FoundObject | None:
        """Return the mask in pixels of the whole image; None if it is empty."""
        from simmat.data.instances import FoundObject, region_from_mask

        region = region_from_mask(self.mask, self.class_id, (self.window.y0, self.window.x0))
        return None if region is None else FoundObject(region, self.score, point_xy, self.class_probability)
