"""A sensor's own code fails: what is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_sets import Planes

from simmat.errors import DataError, PluginError
from simmat.sensors.adapter import PathsBySource, load_sample
from simmat.types import SensorImage


class Faulty(Planes):
    """Does what it is told instead of reading."""

    name = "faulty"

    def __init__(self, does: Any) -> None:
        super().__init__()
        self.does = does

    def load(self, files: PathsBySource) -> SensorImage:
        if isinstance(self.does, Exception):
            raise self.does
        return self.does  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "does", [RuntimeError("camera on fire"), FileNotFoundError("x"), None, [1, 2]]
)
def test_a_fault_of_a_sensor_names_sensor_and_file(does: object) -> None:
    """It is not SimMAT's, and of a thousand files one must be found."""
    with pytest.raises(
        PluginError,
        match=r"modality 'faulty' \(\S*test_adapter_faults\) failed on a/b\.npy",
    ):
        load_sample(Faulty(does), {"planes": Path("a/b.npy")})


def test_what_a_sensor_says_on_purpose_stays(tmp_path: Path) -> None:
    """Its words are the best there are."""
    with pytest.raises(DataError, match=r"^too dark$"):
        load_sample(Faulty(DataError("too dark")), {"planes": tmp_path})
