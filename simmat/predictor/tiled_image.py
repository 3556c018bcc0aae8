"""An image that a predictor has opened: how it is cut into windows, and which of them are encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simmat.former_names import former_keywords
from simmat.predictor.encoded import EncodedImage
from simmat.predictor.open import LoadedImage, NoValidPixelsError
from simmat.types import ImageReader, Prompt, SensorImage, Window

if TYPE_CHECKING:
    from simmat.predictor.objects import EverythingSettings
    from simmat.predictor.predictor import Predictor
    from simmat.predictor.prompts import MaskSelection
    from simmat.predictor.reference import Reference
    from simmat.predictor.results import ClassMap, FoundObjects, Prediction
    from simmat.predictor.uncertainty import Uncertainty

_CACHE_BYTES = 2**28
"""Windows with their embeddings that an image keeps in memory; the one used longest ago is dropped."""


class TiledImage:
    """An image of any size, which `Predictor.open_image` opened and cut into windows.

    Its methods ask the predictor that opened it.

    Attributes:
        predictor: the predictor that opened it.
        reader: reads its windows.
        windows: its parts in raster order; one where the whole image fits.
        tile: side of a window in pixels.
        overlap: smallest overlap of neighbouring windows in pixels.
        cache_folder: folder that keeps the embeddings of the windows around prompts; None keeps none.
        warning: how the values of a window differ from those of training; "" if no window's did.
        views: flipped and shifted views of one window, encoded for `uncertainty`: window -> name -> view.
    """

    def __init__(
        self,
        predictor: Predictor,
        reader: ImageReader,
        windows: Sequence[Window],
        *,
        tile: int,
        overlap: int,
        cache_folder: Path | None = None,
    ) -> None:
        self.predictor = predictor
        self.reader = reader
        self.windows = windows
        self.tile = tile
        self.overlap = overlap
        self.cache_folder = cache_folder
        self.warning = ""
        self.views: dict[Window, dict[str, EncodedImage]] = {}
        self._encoded: dict[Window, tuple[SensorImage, EncodedImage]] = {}  # the one used last is at the end
        self._loaded_bytes = self.cached_bytes  # no window is encoded yet

    @property
    def size_hw(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.reader.size_hw

    @property
    def cached_bytes(self) -> int:
        """Memory of the image, if it was loaded as a whole, and of the windows and embeddings that are cached."""
        pixels = {}  # a window may be the image itself
        if isinstance(self.reader, LoadedImage):
            pixels[id(self.reader.image)] = self.reader.image
        for image, _ in self._encoded.values():
            pixels[id(image)] = image
        used = sum(image.data.nbytes + image.valid.nbytes for image in pixels.values())
        return used + sum(encoded.nbytes for _, encoded in self._encoded.values())

    def cached(self, window: Window) -> tuple[SensorImage, EncodedImage] | None:
        """Return the pixels of a window and its embedding, if they are cached."""
        found = self._encoded.pop(window, None)
        if found is not None:
            self._encoded[window] = found
        return found

    def cache(self, window: Window, pixels: SensorImage, encoded: EncodedImage) -> None:
        """Cache the pixels of a window and its embedding; drop the windows used longest ago if there are too many."""
        self._encoded[window] = pixels, encoded
        while len(self._encoded) > 1 and self.cached_bytes - self._loaded_bytes > _CACHE_BYTES:
            del self._encoded[next(iter(self._encoded))]

    def windows_in(self, box: Window) -> list[Window]:
        """Return the windows that a part of the image touches, in raster order."""
        return [window for window in self.windows if window.intersection(box) is not None]

    def check_measured(self, empty_windows: int) -> None:
        """Raise NoValidPixelsError if so many windows without a measurement are all that there are."""
        if empty_windows == len(self.windows):
            raise NoValidPixelsError(f"{self.reader.origin}: no pixel holds a measurement")

    @former_keywords(choice="mask_selection")
    def predict(self, prompt: Prompt, mask_selection: MaskSelection = "single") -> Prediction:
        """Segment the object that a prompt marks, in a window around the prompt.

        The window is widened while the mask reaches its border, up to four times its side. Points that are not on the
        object count where they lie in the window.

        Raises:
            ConfigError: a point or the box is outside of the image, or the prompt takes a window larger than memory.
            DataError: no pixel around the prompt holds a measurement.
            BundleError: the network's output is not finite.
            OutputError: an embedding cannot be written.
        """
        return self.predictor.predict_in(self, prompt, mask_selection)

    def predict_all(self, prompt: Prompt) -> list[Prediction]:
        """Return every mask that the model has for a prompt: the single one of `predict`, then by falling score.

        All are of the window in which the single mask does not reach the border.

        Raises:
            SimMATError: as `predict` raises it.
        """
        return self.predictor.predict_all_in(self, prompt)

    @former_keywords(choice="mask_selection")
    def predict_prompts(self, prompts: Sequence[Prompt], mask_selection: MaskSelection = "single") -> list[Prediction]:
        """Return the mask of each prompt; those of one kind are decoded together if the image is one window.

        Raises:
            SimMATError: as `predict` raises it; a prompt outside of the image before any is answered.
        """
        return self.predictor.predict_prompts_in(self, prompts, mask_selection)

    @former_keywords(choice="mask_selection")
    def uncertainty(
        self, prompt: Prompt, mask_selection: MaskSelection = "single", window: Window | None = None
    ) -> Uncertainty:
        """Return how much the mask of a prompt differs between up to five views of its window: flips and small shifts.

        Args:
            prompt: its mask is left out.
            mask_selection: as for `predict`.
            window: that of the mask, `Prediction.window`; None finds it first.

        Raises:
            SimMATError: as `predict` raises it.
        """
        return self.predictor.uncertainty_in(self, prompt, mask_selection, window)

    @former_keywords(like="reference")
    def segment_everything(
        self,
        settings: EverythingSettings | None = None,
        *,
        reference: Reference | None = None,
        box: Window | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> FoundObjects:
        """Find every object, best first.

        Args:
            settings: how objects are found.
            reference: find what a reference shows only, see `Predictor.reference`.
            box: part of the image to search; only the windows that it touches are segmented.
            progress: called with the number of windows that are done; what it raises ends the search.

        Raises:
            NoValidPixelsError: no pixel of the image holds a measurement.
        """
        return self.predictor.segment_everything_in(self, settings, reference=reference, box=box, progress=progress)

    def segment_semantic(self, *, probabilities: bool = False) -> ClassMap:
        """Return the class of every pixel, see `Predictor.segment_semantic`."""
        return self.predictor.segment_semantic_in(self, probabilities=probabilities)
