"""A sensor and its sample files for the checks: simulated, given by its author, or with other planes written in."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError
from simmat.io.images import image_size, write_image
from simmat.sensors.adapter import ModalityAdapter, fitted_to_card
from simmat.sensors.simulated_scene import Scene, import_scenes
from simmat.testing.checks import CheckFailed, CheckSkipped, NoSamples
from simmat.types import SensorImage

Planes = npt.NDArray[Any]

TIFF = (".tif", ".tiff")
REWRITABLE = (*TIFF, ".png", ".npy")
"""Formats that keep numbers unchanged."""
_GDAL_NODATA = 42113
_KEPT_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112)  # OGC GeoTIFF 1.1, GDAL_METADATA

SIZE_HW = (61, 83)
"""Size of simulated samples: odd, and not square."""
EVEN_HW = (60, 84)
"""Size for sensors that refuse odd sizes, as one with a mosaic of filters must."""
SIMULATED = 3
"""Number of simulated samples."""
CARD = {"intrinsics": {"fx": 83.0, "fy": 83.0, "cx": 41.0, "cy": 30.0}}
"""The data card of the samples, with a camera of `SIZE_HW`."""


@dataclass(frozen=True)
class Sample:
    """The files of one sample.

    Attributes:
        files: source name -> file.
        simulated: the image saved in them; None if the files were given.
    """

    files: dict[str, Path]
    simulated: SensorImage | None = None


class ModalityCase:
    """A sensor with its samples.

    Attributes:
        declared: the sensor as its author gave it.
        given: sample files by the author; empty where the sensor simulates its own.
    """

    def __init__(
        self, adapter: ModalityAdapter, folder: Path, samples: Sequence[Mapping[str, Path]] | None = None
    ) -> None:
        self.declared = adapter
        self.folder = folder
        self.given = tuple(samples or ())
        self._samples: tuple[Sample, ...] = ()
        self._unusable: CheckSkipped | None = None

    @cached_property
    def adapter(self) -> ModalityAdapter:
        """The sensor, ready for a data set whose card states a camera."""
        return fitted_to_card(self.declared, CARD)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples, written on first use; raises once, then skips, if the sensor cannot load them."""
        if self._unusable is not None:
            raise self._unusable
        if not self._samples:
            try:
                self._samples = self._readable()
            except NoSamples:
                self._unusable = NoSamples("no sample files, see above")
                raise
            except CheckFailed:
                self._unusable = CheckSkipped("the sample cannot be loaded, see above")
                raise
        return self._samples

    def load(self, files: Mapping[str, Path], *, nodata: Mapping[str, float] | None = None) -> SensorImage:
        """Load a sample, with source -> number as the user's nodata; fail where the result is not a SensorImage."""
        adapter = self.adapter if nodata is None else fitted_to_card(self.declared, {**CARD, "nodata": nodata})
        image = adapter.load(files)
        if not isinstance(image, SensorImage):
            raise CheckFailed(
                f"load returned {type(image).__name__}", "return a simmat.types.SensorImage, see from_planes"
            )
        return image

    def size_hw(self) -> tuple[int, int] | None:
        """Return the (height, width) of the first sample; None if only the sensor can read it."""
        sample = self.samples[0]
        if sample.simulated is not None:
            return sample.simulated.size_hw
        try:
            return image_size(sample.files[self.adapter.source_names()[0]])
        except DataError:
            return None

    def copy(self, files: Mapping[str, Path], name: str) -> dict[str, Path]:
        """Copy the files of a sample into a new folder `name`, under their own names."""
        copied = {source: self.folder / name / source / file.name for source, file in files.items()}
        for source, file in copied.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[source], file)
        return copied

    def _readable(self) -> tuple[Sample, ...]:
        """Return samples that the sensor can load: simulated ones have an even size where it refuses odd ones."""
        samples = self._written(SIZE_HW)
        try:
            self.adapter.load(samples[0].files)
        except Exception as error:
            if isinstance(error, DataError) and not self.given:
                even = self._written(EVEN_HW)
                with contextlib.suppress(Exception):
                    self.adapter.load(even[0].files)
                    return even
            raise CheckFailed(
                f"the sample {next(iter(samples[0].files.values()))} cannot be loaded: {type(error).__name__}: {error}",
                "give files that this sensor writes" if self.given else "let load read what save writes",
            ) from error
        return samples

    def _written(self, size_hw: tuple[int, int]) -> tuple[Sample, ...]:
        """Return copies of the given files, which a broken sensor cannot harm, or simulated files."""
        needed = set(self.adapter.source_names())
        for files in self.given:
            if set(files) != needed:
                raise CheckFailed(
                    f"the sample files are {sorted(files)}", f"give one file for each source: {sorted(needed)}"
                )
        if not self.given:
            return tuple(self._simulated(index, size_hw) for index in range(SIMULATED))
        copies = (self.copy(files, f"sample{index}") for index, files in enumerate(self.given))
        return tuple(Sample(files) for files in copies)

    def _simulated(self, index: int, size_hw: tuple[int, int]) -> Sample:
        try:
            image = self.adapter.simulate(scene_number(index, size_hw), np.random.default_rng([index, 1]))
            folder = self.folder / f"sample{index}"
            files = {s.name: folder / s.name / f"a{s.extensions[0]}" for s in self.adapter.sources}
            for file in files.values():
                file.parent.mkdir(parents=True, exist_ok=True)
            self.adapter.save(image, files)
        except ConfigError as error:
            how = " ".join(f"--source {name}=FILE" for name in self.adapter.source_names())
            raise NoSamples(f"{error}; give sample files: {how}, or the fixture `samples`") from error
        return Sample(files, image)


def same_bits(one: SensorImage, other: SensorImage) -> bool:
    """Return True if two images are equal bit for bit, channels included."""
    return (
        one.channels == other.channels
        and np.array_equal(one.valid, other.valid)
        and np.array_equal(one.data, other.data, equal_nan=True)
    )


@lru_cache(maxsize=4 * SIMULATED)
def scene_number(index: int, size_hw: tuple[int, int] = SIZE_HW) -> Scene:
    """Return a synthetic scene, the same for every sensor; ConfigError without simmat-plugin-scenes."""
    scene: Scene = import_scenes("generate").generate_scene(np.random.default_rng([index, 0]), size_hw)
    return scene


def rewrite(path: Path, planes: Planes, *, nodata: float | None = None) -> None:
    """Replace the (P, H, W) planes of a file; the tags of a TIFF are kept, with another GDAL_NODATA if one is given."""
    if path.suffix.lower() not in TIFF:
        write_image(path, planes)
        return
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        codes = _KEPT_TAGS if nodata is not None else (*_KEPT_TAGS, _GDAL_NODATA)
        tags: list[tuple[int, Any, int | None, Any, bool]] = [
            (tag.code, tag.dtype, tag.count, tag.value, True) for tag in map(page.tags.get, codes) if tag
        ]
        photometric, interleaved, description = page.photometric, page.axes == "YXS", page.description
    if nodata is not None:
        tags.append((_GDAL_NODATA, "s", 0, f"{nodata:.17g}", True))
    several = len(planes) > 1
    tifffile.imwrite(
        path,
        np.moveaxis(planes, 0, 2) if interleaved else planes if several else planes[0],
        photometric=photometric,
        planarconfig=("contig" if interleaved else "separate") if several else None,
        description=description or None,
        metadata=None,
        extratags=tags,
    )
