"""What needs maps says which package brings them, before any work; all else works without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import save_image
from installed import is_installed

from simmat.data.dataset import open_dataset
from simmat.errors import SimMATError
from simmat.inference.request import choose_formats
from simmat.plugins.loader import load_plugins
from simmat.predictor.open import ImageLoader
from simmat.sensors.builtin import Gray

pytestmark = pytest.mark.plugins()


def polygons(folder: Path) -> None:
    save_image(folder / "images/a.npy", np.ones((1, 8, 8)))
    (folder / "masks").mkdir()
    (folder / "masks/a.geojson").write_text("{}")
    open_dataset(folder, Gray())


@pytest.mark.parametrize(
    "ask",
    [
        lambda _: ImageLoader(Gray(), None).reader("https://host/a.tif", (), 100),
        lambda _: ImageLoader(Gray(), None).mosaic(["a.tif"], ()),
        polygons,
    ],
)
def test_the_package_is_named(tmp_path: Path, ask: Callable[[Path], object]) -> None:
    """The command to install it is all a user needs."""
    with pytest.raises(SimMATError, match=r"pip install 'simmat\[geo\]'"):
        ask(tmp_path)


def test_a_format_of_maps_names_it_as_it_is_here() -> None:
    """Who has the package and leaves it out need not install it."""
    left_out = r"simmat-plugin-geo .* brings it, but SIMMAT_PLUGINS leaves it out"
    with pytest.raises(
        SimMATError,
        match=left_out if is_installed("simmat-plugin-geo") else r"simmat\[geo\]",
    ):
        choose_formats(["labels", "gpkg"], ["objects"], load_plugins())
