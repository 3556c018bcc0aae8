"""The case of a modality: the adapter, and sample files, simulated or given by its author."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from simmat.errors import ConfigError
from simmat.modality import ModalityAdapter
from simmat.scene import Scene, generate_scene
from simmat.testing.checks import CheckFailed, NoSamples
from simmat.types import BoolArray, SensorImage

SIZE_HW = (61, 83)
"""Size of simulated samples: odd, and no square."""
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

    @cached_property
    def adapter(self) -> ModalityAdapter:
        """The sensor, ready for a data set whose camera sees what the simulated scenes show."""
        return self.declared.configured(_card())

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The samples, written on first use.

        Raises:
            NoSamples: the sensor cannot be simulated, and no files were given.
        """
        if self.given:
            return tuple(self._copied(index, files) for index, files in enumerate(self.given))
        return tuple(self._simulated(index) for index in range(SIMULATED))

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Load a sample; an answer that is no SensorImage fails."""
        image = self.adapter.load(files)
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
            copied[source].parent.mkdir(parents=True)
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

    def _simulated(self, index: int) -> Sample:
        scene = scene_number(index)
        try:
            image = self.adapter.simulate(scene, np.random.default_rng([index, 1]))
            folder = self.folder / f"sample{index}"
            files = {s.name: folder / s.name / f"a{s.extensions[0]}" for s in self.adapter.sources}
            for file in files.values():
                file.parent.mkdir(parents=True)
            self.adapter.save(image, files)
        except ConfigError as error:
            raise NoSamples(f"{error}; give sample files") from error
        number = np.bincount(scene.instance.ravel())[1:].argmax() + 1 if scene.instance.any() else 0
        return Sample(files, image, np.asarray(scene.instance == number))


@lru_cache(maxsize=2 * SIMULATED)
def scene_number(index: int) -> Scene:
    """Return a synthetic scene of `SIZE_HW`; every modality sees the same ones."""
    return generate_scene(np.random.default_rng([index, 0]), SIZE_HW)


def _card() -> dict[str, Any]:
    """Return the data card of the samples: the intrinsics of the scenes' camera, in pixels."""
    height, width = SIZE_HW
    focal = scene_number(0).focal_px
    return {"intrinsics": {"fx": focal, "fy": focal, "cx": (width - 1) / 2, "cy": (height - 1) / 2}}
