"""A sensor and its sample files for the checks: simulated, or given by its author."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from simmat_plugin_scenes import Scene
from simmat_plugin_scenes.generate import generate_scene

from simmat.errors import ConfigError
from simmat.sensors.adapter import ModalityAdapter, with_data_card
from simmat.types import SensorImage
from simmat_testing.checks import CheckFailed, CheckSkipped, NoSamples, fault

SIZE_HW = (60, 84)
"""Size of simulated samples: not square, and even as a mosaic of filters must be."""
SIMULATED = 3
"""Number of simulated samples."""
CARD = {"intrinsics": {"fx": 83.0, "fy": 83.0, "cx": 41.0, "cy": 30.0}}
"""The data card of the samples, with a camera of `SIZE_HW`."""


class ModalityCase:
    """A sensor with its samples.

    Attributes:
        declared: the sensor as its author gave it.
        given: sample files by the author; empty if the sensor simulates its own.
        simulated: the images that the samples were saved from; empty if the files were given.
    """

    def __init__(
        self,
        adapter: ModalityAdapter,
        folder: Path,
        samples: Sequence[Mapping[str, Path]] | None = None,
    ) -> None:
        self.declared = adapter
        self.folder = folder
        self.given = tuple(samples or ())
        self.simulated: list[SensorImage] = []
        self._samples: tuple[dict[str, Path], ...] = ()
        self._unusable: CheckSkipped | None = None

    @cached_property
    def adapter(self) -> ModalityAdapter:
        """The sensor, ready for a data set whose card states a camera."""
        return with_data_card(self.declared, CARD)

    @property
    def samples(self) -> tuple[dict[str, Path], ...]:
        """Source name -> file of each sample, written on first use; raises once, then skips, if that fails."""
        if self._unusable is not None:
            raise self._unusable
        if not self._samples:
            try:
                self._samples = self._copied() if self.given else self._simulate()
                self._check_readable(self._samples[0])
            except NoSamples:
                self._unusable = NoSamples("no sample files, see above")
                raise
            except CheckFailed:
                self._unusable = CheckSkipped("the sample cannot be loaded, see above")
                raise
        return self._samples

    def load(
        self, files: Mapping[str, Path], *, nodata: Mapping[str, float] | None = None
    ) -> SensorImage:
        """Load a sample, with source -> number as the user's nodata; fail where the result is not a SensorImage."""
        adapter = (
            self.adapter
            if nodata is None
            else with_data_card(self.declared, {**CARD, "nodata": nodata})
        )
        image = adapter.load(files)
        if not isinstance(image, SensorImage):
            raise CheckFailed(
                f"load returned {type(image).__name__}",
                "return a simmat.types.SensorImage, see from_planes",
            )
        return image

    def saved(self, image: SensorImage, name: str) -> dict[str, Path]:
        """Save an image as the files of a sample, in a new folder `name` that has no others.

        Raises:
            CheckSkipped: the sensor does not write files.
        """
        files = {}
        for source in self.adapter.sources:
            files[source.name] = (
                self.folder / name / source.name / f"a{source.extensions[0]}"
            )
        for file in files.values():
            file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.adapter.save(image, files)
        except ConfigError as error:
            raise CheckSkipped(str(error)) from error
        return files

    def copy(self, files: Mapping[str, Path], name: str) -> dict[str, Path]:
        """Copy the files of a sample into a new folder `name`, under their own names."""
        copied = {
            source: self.folder / name / source / file.name
            for source, file in files.items()
        }
        for source, file in copied.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[source], file)
        return copied

    def _copied(self) -> tuple[dict[str, Path], ...]:
        """Return copies of the given files, which a broken sensor cannot harm."""
        needed = set(self.adapter.source_names())
        for files in self.given:
            if set(files) != needed:
                raise CheckFailed(
                    f"the sample files are {sorted(files)}",
                    f"give one file for each source: {sorted(needed)}",
                )
        return tuple(
            self.copy(files, f"sample{index}") for index, files in enumerate(self.given)
        )

    def _simulate(self) -> tuple[dict[str, Path], ...]:
        samples = []
        try:
            for index in range(SIMULATED):
                image = self.adapter.simulate(
                    numbered_scene(index), np.random.default_rng([index, 1])
                )
                files = self.saved(image, f"sample{index}")
                self.simulated.append(image)
                samples.append(files)
        except (CheckSkipped, ConfigError) as error:
            how = " ".join(
                f"--source {name}=FILE" for name in self.adapter.source_names()
            )
            raise NoSamples(
                f"{error}; give sample files: {how}, or the fixture `samples`"
            ) from error
        return tuple(samples)

    def _check_readable(self, files: Mapping[str, Path]) -> None:
        try:
            self.adapter.load(files)
        except Exception as error:
            raise CheckFailed(
                f"the sample {next(iter(files.values()))} cannot be loaded: {fault(error)}",
                "give files that this sensor writes"
                if self.given
                else "let load read what save writes",
            ) from error


def same_bits(one: SensorImage, other: SensorImage) -> bool:
    """Return True if two images are equal bit for bit, channels included."""
    return (
        one.channels == other.channels
        and np.array_equal(one.valid, other.valid)
        and np.array_equal(one.data, other.data, equal_nan=True)
    )


@lru_cache(maxsize=SIMULATED)
def numbered_scene(index: int) -> Scene:
    """Return a synthetic scene, the same for every sensor."""
    return generate_scene(np.random.default_rng([index, 0]), SIZE_HW)
