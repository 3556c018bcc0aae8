"""The case of a modality: the adapter, and sample files, simulated or given by its author."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from simmat.errors import ConfigError, DataError
from simmat.io.images import StatedNodata
from simmat.sensors.adapter import ModalityAdapter, fitted_to_card
from simmat.sensors.scene import Scene, import_scenes
from simmat.testing.checks import CheckFailed, CheckSkipped, NoSamples
from simmat.types import BoolArray, SensorImage

SIZE_HW = (61, 83)
"""Size of simulated samples: odd, and no square."""
EVEN_HW = (60, 84)
"""Size for sensors that refuse the other, as one with a mosaic of filters must."""
SIMULATED = 3
"""How many samples are simulated."""


@dataclass(frozen=True)
class Sample:
    """The files of one sample.

    Attributes:
        files: source name -> file.
        simulated: what was saved into them; None for files that the author gave.
        region: (H, W) bool, something one may click on; None where nobody knows.
    """

    files: dict[str, Path]
    simulated: SensorImage | None = None
    region: BoolArray | None = None


class ModalityCase:
    """A modality with its samples, as the checks see it.

    Attributes:
        declared: the sensor as its author gave it.
        folder: a scratch folder; nothing else is written to.
        given: sample files by the author; empty where the sensor simulates its own.
    """

    def __init__(
        self, adapter: ModalityAdapter, folder: Path, samples: Sequence[Mapping[str, Path]] | None = None
    ) -> None:
        self.declared = adapter
        self.folder = folder
        self.given = tuple(samples or ())
        self._samples: tuple[Sample, ...] | None = None
        self._unusable: CheckSkipped | None = None
        self._odd_refusal = ""

    @cached_property
    def adapter(self) -> ModalityAdapter:
        """The sensor, ready for a data set whose card states a camera."""
        return fitted_to_card(self.declared, _card())

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples, written on first use.

        Raises:
            NoSamples: the sensor cannot be simulated, and no files were given.
            CheckFailed: the sensor cannot load its samples; once this is said, CheckSkipped.
        """
        if self._unusable is not None:
            raise self._unusable
        if self._samples is None:
            try:
                self._samples = self._readable()
            except NoSamples:
                self._unusable = NoSamples("no sample files, see above")
                raise
        return self._samples

    @property
    def odd_refusal(self) -> str:
        """What the sensor said of files of odd height and width; empty where it takes them."""
        return self._odd_refusal

    def _readable(self) -> tuple[Sample, ...]:
        """Return samples that the sensor has loaded once; simulated ones of even size where it refuses odd ones."""
        samples = self._written(SIZE_HW)
        error = self._load_error(samples[0])
        if isinstance(error, DataError) and not self.given:
            even = self._written(EVEN_HW)
            if self._load_error(even[0]) is None:
                self._odd_refusal = str(error)
                return even
        if error is not None:
            self._unusable = CheckSkipped("the sample cannot be loaded, see above")
            raise CheckFailed(
                f"the sample {next(iter(samples[0].files.values()))} cannot be loaded: {type(error).__name__}: {error}",
                "give files that this sensor writes" if self.given else "let load read what save writes",
            ) from error
        return samples

    def _load_error(self, sample: Sample) -> Exception | None:
        try:
            self.adapter.load(sample.files)
        except Exception as error:
            return error
        return None

    def _written(self, size_hw: tuple[int, int]) -> tuple[Sample, ...]:
        if self.given:
            return tuple(self._copied(index, files) for index, files in enumerate(self.given))
        return tuple(self._simulated(index, size_hw) for index in range(SIMULATED))

    def load(self, files: Mapping[str, Path], *, nodata: StatedNodata | None = None) -> SensorImage:
        """Load a sample; an answer that is no SensorImage fails."""
        image = self.adapter.load(files, nodata=nodata)
        if not isinstance(image, SensorImage):
            raise CheckFailed(
                f"load returned {type(image).__name__}", "return a simmat.types.SensorImage, see from_planes"
            )
        return image

    def copy(self, sample: Sample, name: str) -> dict[str, Path]:
        """Copy the files of a sample into a new folder `name`, under their own names."""
        folder = self.folder / name
        copied = {}
        for source, file in sample.files.items():
            copied[source] = folder / source / file.name
            copied[source].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied[source])
        return copied

    def _copied(self, index: int, files: Mapping[str, Path]) -> Sample:
        """Copy given files, so that nothing a broken adapter does reaches the author's own."""
        needed = set(self.adapter.source_names())
        if set(files) != needed:
            raise CheckFailed(
                f"the sample files are {sorted(files)}", f"give one file for each source: {sorted(needed)}"
            )
        original = Sample({source: Path(file) for source, file in files.items()})
        return Sample(self.copy(original, f"sample{index}"))

    def _simulated(self, index: int, size_hw: tuple[int, int]) -> Sample:
        try:
            scene = scene_number(index, size_hw)
            image = self.adapter.simulate(scene, np.random.default_rng([index, 1]))
            folder = self.folder / f"sample{index}"
            files = {s.name: folder / s.name / f"a{s.extensions[0]}" for s in self.adapter.sources}
            for file in files.values():
                file.parent.mkdir(parents=True, exist_ok=True)
            self.adapter.save(image, files)
        except ConfigError as error:
            how = " ".join(f"--source {name}=FILE" for name in self.adapter.source_names())
            raise NoSamples(f"{error}; give sample files: {how}, or the fixture `samples`") from error
        number = np.bincount(scene.instance.ravel())[1:].argmax() + 1 if scene.instance.any() else 0
        return Sample(files, image, np.asarray(scene.instance == number))


@lru_cache(maxsize=4 * SIMULATED)
def scene_number(index: int, size_hw: tuple[int, int] = SIZE_HW) -> Scene:
    """Return a synthetic scene; every modality sees the same ones.

    Raises:
        ConfigError: simmat-plugin-scenes is not installed.
    """
    scene: Scene = import_scenes("generate").generate_scene(np.random.default_rng([index, 0]), size_hw)
    return scene


def _card() -> dict[str, Any]:
    """Return the data card of the samples: the intrinsics of a camera, in pixels."""
    height, width = SIZE_HW
    return {"intrinsics": {"fx": float(width), "fy": float(width), "cx": (width - 1) / 2, "cy": (height - 1) / 2}}
