"""Image files and masks, as the core reads them."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import numpy as np

from fuzz.case import Case, Place, Target
from simmat.data.card import make_card
from simmat.data.instances import label_from_mask, read_mask
from simmat.errors import SimMATError
from simmat.geo import read_georeference
from simmat.io.images import image_size, read_image
from simmat.types import Window

_LARGEST_LABEL = 2**53


def _image(place: Place, rng: random.Random, endings: tuple[str, ...]) -> Case:
    path = place.damaged("images", rng, endings)

    def read() -> None:
        found = read_image(path)
        planes = found.planes
        assert planes.ndim == 3, f"planes have shape {planes.shape}"
        assert 0 not in planes.shape, f"planes have shape {planes.shape}"
        assert planes.dtype.kind in "buif", f"planes are {planes.dtype}"
        assert planes.dtype.isnative, f"planes are {planes.dtype}"
        assert found.measured.shape == planes.shape, (
            f"measured has shape {found.measured.shape}"
        )
        assert found.valid.shape == planes.shape, "valid has another shape"
        assert len(found.scales) in (0, len(planes)), (
            f"{len(found.scales)} scales of {len(planes)} planes"
        )

    return Case(read)


def _window(place: Place, rng: random.Random) -> Case:
    path = place.damaged("images", rng, (".tif", ".npy"))
    down, right, low, wide = (rng.random() for _ in range(4))

    def read() -> None:
        height, width = image_size(path)
        y0, x0 = int(down * height), int(right * width)
        window = Window(
            y0,
            x0,
            y0 + 1 + int(low * min(height - y0, 300)),
            x0 + 1 + int(wide * min(width - x0, 300)),
        )
        part = read_image(path, window=window).planes
        assert part.shape[1:] == window.size_hw, (
            f"a window of {window.size_hw} has shape {part.shape}"
        )
        try:
            whole = read_image(path).planes
        except SimMATError:  # the damage lies elsewhere
            return
        assert part.dtype == whole.dtype, (
            f"a window of {part.dtype}, an image of {whole.dtype}"
        )
        assert np.array_equal(
            part, whole[:, *window.slices], equal_nan=part.dtype.kind == "f"
        ), "not that part"

    return Case(read)


def _mask(place: Place, rng: random.Random) -> Case:
    path = place.damaged("masks", rng)
    values = {
        "regions": rng.choice(("instances", "classes", "components")),
        "ignore": rng.choice((None, 255)),
    }
    card = make_card(values, where="card")

    def read() -> None:
        mask = read_mask(path)
        assert mask.dtype == np.int64, f"a mask of {mask.dtype}"
        assert mask.ndim == 2, f"a mask of shape {mask.shape}"
        assert np.abs(mask).max() <= _LARGEST_LABEL, (
            "a label that float64 does not hold"
        )
        label = label_from_mask(mask, card)
        assert label.size_hw == mask.shape, (
            f"a label of {label.size_hw} from a mask of {mask.shape}"
        )

    return Case(read)


def _georeference(place: Place, rng: random.Random) -> Case:
    path = place.damaged("geotiffs", rng)

    def read() -> None:
        found = read_georeference(path)
        if found is not None:
            assert found.crs, "no coordinate system"
            assert len(found.transform) == 6, f"transform is {found.transform}"
            assert np.isfinite(found.transform).all(), f"transform is {found.transform}"

    return Case(read)


def _of(*endings: str) -> Callable[[Place, random.Random], Case]:
    return partial(_image, endings=endings)


TARGETS = (
    Target("png", _of(".png")),
    Target("jpeg", _of(".jpg")),
    Target("tiff", _of(".tif")),
    Target("npy", _of(".npy")),
    Target("window", _window),
    Target("mask", _mask),
    Target("georeference", _georeference, needs=("simmat_plugin_geo",)),
)
