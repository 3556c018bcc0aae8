"""A sensor that keeps the contract, and one for each rule that breaks it and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from simmat_plugin_scenes import Scene

from simmat.errors import DataError
from simmat.io.images import image_size, read_image, write_image
from simmat.sensors.adapter import Axis, ModalityAdapter, PathsBySource, Source
from simmat.sensors.options import ModalityOptions
from simmat.types import Channel, SensorImage, Window, not_nodata

LWIR = Channel(
    "lwir",
    "brightness_temperature",
    "K",
    wavelength_um=10.0,
    valid_range=(150.0, 2500.0),
)
GLOSS = Channel("gloss", "degree_of_linear_polarization", "1", valid_range=(0.0, 1.0))
ANGLE = Channel("aolp", "angle_of_linear_polarization", "deg")


COUNTER = count()


class Good(ModalityAdapter):
    """Kelvin in one file, a ratio in another, both float32 npy."""

    name = "good"
    description = "a sensor that keeps the contract"
    sources = (Source("lwir", (".npy",)), Source("gloss", (".npy",)))
    channels = (LWIR, GLOSS)

    def load(self, files: PathsBySource) -> SensorImage:
        images = [
            read_image(files[source], self.nodata(source))
            for source in ("lwir", "gloss")
        ]
        if images[0].planes.shape != images[1].planes.shape:
            raise DataError(f"{files['gloss']}: another size than {files['lwir']}")
        planes = np.concatenate([image.planes[:1] for image in images])
        measured = np.concatenate([image.measured[:1] for image in images])
        return SensorImage.from_planes(
            planes, self.channels, valid=measured, origin=str(files["lwir"])
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        kelvin = 290 + 10 * rng.standard_normal(scene.size_hw) + scene.instance
        gloss = (rng.random(scene.size_hw) + scene.instance % 2) / 2
        return SensorImage.from_planes(np.stack([kelvin, gloss]), (LWIR, GLOSS))

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        for plane, source in zip(image.data, ("lwir", "gloss"), strict=True):
            write_image(files[source], plane[None])


def with_channel(**changes: Any) -> Callable[[], ModalityAdapter]:
    """Return the good sensor with one channel changed, past what Channel itself refuses."""

    def make() -> ModalityAdapter:
        channel = replace(LWIR)
        for name, value in changes.items():
            object.__setattr__(channel, name, value)
        adapter = Good()
        adapter.channels = (channel, GLOSS)
        return adapter

    return make


def with_load(
    change: Callable[[Good, Mapping[str, Path], SensorImage], Any],
) -> Callable[[], ModalityAdapter]:
    """Return the good sensor with something done to what it loads."""

    class Changed(Good):
        def load(self, files: PathsBySource) -> SensorImage:
            image: SensorImage = change(self, files, super().load(files))
            return image

    # pickles by reference, as the good one
    Changed.__qualname__ = Changed.__name__ = "Good"
    return Changed


class Unpicklable(Good):
    """Keeps a lambda."""

    def __init__(self) -> None:
        self.scale = lambda value: value


class WithoutPath(Good):
    """Refuses without saying which file."""

    def load(self, files: PathsBySource) -> SensorImage:
        try:
            return super().load(files)
        except DataError as error:
            if all(file.is_file() for file in files.values()):
                raise
            raise DataError("a file could not be opened") from error


class FillsUp(Good):
    """Fills with zeros what a short file lacks."""

    def load(self, files: PathsBySource) -> SensorImage:
        raw = files["gloss"].read_bytes()
        if raw[:6] != b"\x93NUMPY":
            return super().load(files)
        image = super().load({**files, "gloss": files["lwir"]})
        return replace(image, valid=np.ones_like(image.valid))


class ReadsAnything(Good):
    """Takes whatever it cannot read for an image of the other source's size."""

    def load(self, files: PathsBySource) -> SensorImage:
        content = files["gloss"].read_bytes() if files["gloss"].is_file() else b""
        if content[:4] == b"This":
            return super().load({**files, "gloss": files["lwir"]})
        return super().load(files)


class ScaledWindows(Good):
    """Scales what it loads by its own hottest pixel, and each window by that of the window."""

    def window_size(self, files: PathsBySource) -> tuple[int, int]:
        return image_size(files["lwir"])

    def load_window(self, files: PathsBySource, window: Window) -> SensorImage:
        image = self.load(files).cut(window)
        return replace(image, data=image.data / image.data.max())


class OtherWindows(ScaledWindows):
    """Says width and height."""

    def window_size(self, files: PathsBySource) -> tuple[int, int]:
        height, width = image_size(files["lwir"])
        return width, height


class Caches(Good):
    """Leaves an index beside the file."""

    def load(self, files: PathsBySource) -> SensorImage:
        image = super().load(files)
        files["lwir"].with_suffix(".idx").write_text(str(image.size_hw))
        return image


class HalfTurn(Good):
    """Believes that mirroring turns its angle by a half each time."""

    def flip(self, image: SensorImage, axis: Axis) -> SensorImage:
        flipped = super().flip(image, axis)
        return replace(flipped, data=flipped.data + np.float32(0.5))


class Rounds(Good):
    """Writes both in steps: of one kelvin and of a tenth."""

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        steps = np.float32([[[1]], [[0.1]]])
        super().save(replace(image, data=np.rint(image.data / steps) * steps), files)


class Filters(Good):
    """Takes the mean over nine pixels, as radars do against speckle."""

    def load(self, files: PathsBySource) -> SensorImage:
        image = super().load(files)
        padded = np.pad(image.data, ((0, 0), (1, 1), (1, 1)), mode="edge")
        height, width = image.size_hw
        data = sum(
            padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)
        ) / np.float32(9)
        return replace(image, data=np.asarray(data, dtype=np.float32))


class Clockwise(Good):
    """Turns the wrong way."""

    def rotate(self, image: SensorImage, quarter_turns: int) -> SensorImage:
        return super().rotate(image, -quarter_turns)


class NeverMirrors(Good):
    """Mirrors what is valid, and leaves the values where they are."""

    def flip(self, image: SensorImage, axis: Axis) -> SensorImage:
        return replace(image, valid=super().flip(image, axis).valid)


class Angles(Good):
    """Has an angle of polarization in place of the ratio, and turns it as told."""

    channels = (LWIR, ANGLE)

    def __init__(self, sign: int = -1, quarter: float = 90.0) -> None:
        self.sign, self.quarter = sign, quarter

    def load(self, files: PathsBySource) -> SensorImage:
        image = super().load(files)
        return replace(image, data=image.data * np.float32([[[1]], [[180]]]))

    def flip(self, image: SensorImage, axis: Axis) -> SensorImage:
        return self._turned(super().flip(image, axis), self.sign, 0)

    def rotate(self, image: SensorImage, quarter_turns: int) -> SensorImage:
        return self._turned(super().rotate(image, quarter_turns), 1, quarter_turns)

    def _turned(self, image: SensorImage, sign: int, quarter_turns: int) -> SensorImage:
        data = image.data.copy()
        data[1] = (sign * data[1] + quarter_turns * self.quarter) % 180
        return replace(image, data=data)


class AddsOffset(Good):
    """Converts to Celsius in the array it is given."""

    def transform(self, image: SensorImage) -> SensorImage:
        image.data[0] -= np.float32(273.15)
        return image


class Unseeded(Good):
    """Simulates with noise of its own."""

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        return super().simulate(scene, np.random.default_rng())


class Exploding(Good):
    """Divides by zero in transform, and calls the result valid."""

    def transform(self, image: SensorImage) -> SensorImage:
        data = image.data.copy()
        data[0, 20:40, 20:40] = np.nan
        return replace(image, data=data)


class _Undescribed(ModalityOptions):
    gain: float = 1.0


class UndescribedOption(Good):
    """Nobody who lists its options learns what they mean."""

    Options = _Undescribed


class PassesFillValuesOn(Good):
    """Does not look at what the file calls missing."""

    def load(self, files: PathsBySource) -> SensorImage:
        planes = [
            read_image(files[source], self.nodata(source)).planes[0]
            for source in ("lwir", "gloss")
        ]
        return SensorImage.from_planes(
            np.stack(planes), self.channels, origin=str(files["lwir"])
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        for plane, source in zip(
            np.rint(image.data).astype(np.uint16), ("lwir", "gloss"), strict=True
        ):
            write_image(files[source], plane[None])


class OwnFormat(Good):
    """Has a format of its own, with 65535 for what is missing."""

    sources = (Source("lwir", (".own",)),)
    channels = (LWIR,)

    def load(self, files: PathsBySource) -> SensorImage:
        path = files["lwir"]
        stored = self.stored(path)
        valid = not_nodata(stored, 65535, self.nodata("lwir"))
        return SensorImage.from_planes(
            stored / np.float32(100), self.channels, valid=valid, origin=str(path)
        )

    def stored(self, path: Path) -> np.ndarray:
        """Return the (1, H, W) numbers of a file."""
        try:
            content = path.read_bytes()
            height, width = np.frombuffer(content[4:12], "<u4")
            if content[:4] != b"OWN1":
                raise ValueError("another format")
            return np.frombuffer(content[12:], "<u2").reshape(1, height, width)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}") from error

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        return super().simulate(scene, rng).select([0])

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        stored = np.where(image.valid, np.rint(image.data * 100), 65535)
        with open(files["lwir"], "wb") as file:
            file.write(b"OWN1" + np.asarray(image.size_hw, "<u4").tobytes())
            file.write(stored.astype("<u2").tobytes())


class IgnoresItsSentinel(OwnFormat):
    """Takes its own number for missing pixels as a measurement."""

    def load(self, files: PathsBySource) -> SensorImage:
        stored = self.stored(files["lwir"])
        valid = not_nodata(stored, self.nodata("lwir"))
        return SensorImage.from_planes(
            stored / np.float32(100), self.channels, valid=valid
        )


class IgnoresNodata(OwnFormat):
    """Does not ask for what the user calls missing."""

    def load(self, files: PathsBySource) -> SensorImage:
        stored = self.stored(files["lwir"])
        return SensorImage.from_planes(
            stored / np.float32(100), self.channels, valid=stored != 65535
        )


class SwapsSides(OwnFormat):
    """Takes rows for columns, in files that it did not write."""

    def stored(self, path: Path) -> np.ndarray:
        planes = super().stored(path)
        return planes.reshape(1, *planes.shape[:0:-1])


class LoadsCounts(OwnFormat):
    """Declares kelvin, and loads what is stored."""

    def load(self, files: PathsBySource) -> SensorImage:
        image = super().load(files)
        channel = replace(LWIR, valid_range=None)
        return SensorImage.from_planes(
            image.data * np.float32(100), (channel,), valid=image.valid
        )


class IndexOfHoles(Good):
    """Computes a channel of two, and lets it be valid where the first is."""

    def transform(self, image: SensorImage) -> SensorImage:
        index = Channel("index", "thermal_gloss", "K")
        return SensorImage.from_planes(
            np.concatenate([image.data, image.data[:1] * image.data[1:]]),
            (*image.channels, index),
            valid=np.concatenate([image.valid, image.valid[:1]]),
        )


class SpawnShy(Good):
    """Works in a forked worker, not in one that starts from nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.lost = True

    def load(self, files: PathsBySource) -> SensorImage:
        if getattr(self, "lost", False):
            raise RuntimeError("the calibration was not sent along")
        return super().load(files)


def with_save(
    change: Callable[[np.ndarray], np.ndarray],
) -> Callable[[], ModalityAdapter]:
    """Return the good sensor with something done to the (2, H, W) values that it writes."""

    class Changed(Good):
        def save(self, image: SensorImage, files: PathsBySource) -> None:
            super().save(
                replace(image, data=change(image.data).astype(np.float32)), files
            )

    return Changed


def in_column(image: SensorImage, column: int) -> SensorImage:
    """Return an image whose second channel measures one column, as a line scanner does."""
    valid = np.zeros_like(image.valid)
    valid[0], valid[1, :, column] = True, True
    return replace(image, valid=valid)


def with_peaks(image: SensorImage) -> SensorImage:
    """Return an image with a few huge values, under which all others look alike."""
    data = image.data.copy()
    data[1, 0, :2] = 1e9
    return replace(image, data=data)


BROKEN: dict[str, list[tuple[Callable[[], ModalityAdapter], str]]] = {
    "unit-fits-quantity": [
        (
            with_channel(unit="degC"),
            "brightness_temperature in 'degC'; .* goes with 'K'",
        ),
        (
            with_load(
                lambda _, files, image: replace(
                    image, channels=(replace(LWIR, quantity="power"), GLOSS)
                )
            ),
            "power in 'K'; power goes with '1' or 'W'",
        ),
    ],
    "wavelengths-plausible": [
        (
            with_channel(wavelength_um=1e-5),
            "wavelength_um 1e-05; plausible are 0.01 to 3e",
        ),
        (
            with_channel(
                name="band1", quantity="reflectance", unit="1", wavelength_um=842.0
            ),
            "1000 nm are 1",
        ),
    ],
    "simulation-is-seeded": [(Unseeded, "gave two different images")],
    "loads-what-it-declares": [
        (with_load(lambda _, files, image: image.data), "load returned ndarray"),
        (
            with_load(lambda _, files, image: replace(image, valid=~image.valid)),
            "has no valid pixel",
        ),
        (
            with_load(lambda _, files, image: image.select([0])),
            "gave 1 channels .* declared are 2",
        ),
        (
            with_load(lambda _, files, image: image.cut(Window(0, 0, 60, 82))),
            r"\(60, 84\) was loaded as \(60, 82\)",
        ),
    ],
    "same-file-same-bits": [
        (
            with_load(
                lambda _, files, image: replace(
                    image, data=image.data + np.float32(next(COUNTER))
                )
            ),
            "different pixels",
        ),
        (Caches, "wrote, changed or removed a file"),
    ],
    "options-are-described": [(UndescribedOption, "option 'gain' has no description")],
    "windows-are-parts": [
        (ScaledWindows, "rows 0 to 60, columns 0 to 84 is not that part"),
        (OtherWindows, r"window_size is \(84, 60\), load gave \(60, 84\)"),
    ],
    "missing-stays-missing": [
        (
            PassesFillValuesOn,
            "of 'lwir', plane 0, is missing by --nodata; after `load` it is valid in lwir",
        ),
        (
            with_load(
                lambda _, files, image: replace(image, valid=np.ones_like(image.valid))
            ),
            "missing by --nodata; after `load` it is valid in lwir",
        ),
        (
            IgnoresItsSentinel,
            r"pixel \(0, 0\) was saved as missing, and is valid as loaded in lwir",
        ),
        (IgnoresNodata, "--nodata .* of 'lwir' is ignored: load never asks for it"),
        (
            IndexOfHoles,
            "of 'gloss', plane 0, .* after `transform` it is valid in index, computed from it",
        ),
    ],
    "bad-files-are-refused": [
        (WithoutPath, "does not name 'a.npy' in its error"),
        (FillsUp, "'gloss' was cut to 90% .* returned an image"),
        (ReadsAnything, "'gloss' was plain text .* returned an image"),
    ],
    "what-is-saved-is-loaded": [
        (
            with_save(lambda data: data[:, ::-1]),
            "channel 'lwir' was saved as .* with a mean difference",
        ),
        (
            with_save(lambda data: data * 2),
            "channel 'lwir' was saved as 2.* and loaded as 5.* K",
        ),
        (
            with_save(
                lambda data: np.where(
                    data[:1] > np.percentile(data[0], 60), data, np.nan
                )
            ),
            "was saved with 5040 valid pixels, of which 2016 are valid as loaded",
        ),
    ],
    "flips-and-turns-move-pixels": [
        (HalfTurn, "a horizontal flip, 2 times, changed the values"),
        (Clockwise, "after 1 quarter turn, the valid pixels are not where they belong"),
        (
            NeverMirrors,
            "after a horizontal flip, the values of channel 'lwir' are not where they belong",
        ),
        (
            lambda: Angles(sign=1),
            "after a horizontal flip, the angles of channel 'aolp' are not those of",
        ),
        (
            lambda: Angles(quarter=0),
            "after 1 quarter turn, the angles of channel 'aolp' are not those of",
        ),
    ],
    "images-are-not-written-into": [
        (AddsOffset, "transform changed the image it was given")
    ],
    "survives-pickle-and-json": [
        (Unpicklable, "a pickled copy could not load the sample: "),
        (SpawnShy, "calibration was not sent along"),
        (with_channel(wavelength_um=np.float32(10.0)), "does not survive json"),
    ],
    "normalized-samples-are-scaled": [
        (with_channel(mean=330.0, std=10.0), "has mean -[34].* mean 330 and std 10 K"),
        (
            with_load(lambda _, files, image: with_peaks(image)),
            "'gloss' has mean .* std 0.1 ",
        ),
    ],
    "training-reaches-every-channel": [
        (
            with_load(lambda _, files, image: in_column(image, 44)),
            "no gradient reaches the MAT through gloss",
        ),
        (Exploding, "'lwir' .* valid pixels after `transform`"),
    ],
}
"""Check -> sensors that break it, with what the failure must say."""
