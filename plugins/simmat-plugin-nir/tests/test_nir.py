"""Near-infrared alone, with colour, and with red: what is read, refused, and what the camera shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from simmat_plugin_guess.guess import guess_folder
from simmat_plugin_nir.planes import NIR
from simmat_plugin_nir.red_nir import Nir, RedNir, RedNirOptions
from simmat_plugin_scenes import Scene
from simmat_plugin_scenes.camera import Noise
from simmat_plugin_scenes.generate import outdoors
from simmat_plugin_scenes.render import render
from simmat_plugin_scenes.world import CLASSES

from simmat.errors import DataError
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.builtin import MODALITIES

ADAPTERS: dict[str, ModalityAdapter] = {
    "nir": Nir(),
    "red-nir": RedNir(),
    "red-nir-files": RedNir(RedNirOptions(separate_files=True)),
}
SIZE_HW = (48, 64)
RED_COUNTS = np.array([[10, 100, 0], [200, 50, 30]], dtype=np.uint8)
NIR_COUNTS = np.array([[30, 100, 0], [0, 150, 90]], dtype=np.uint8)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A sunny place with a plant."""
    worlds = (outdoors(np.random.default_rng(seed)) for seed in range(200))
    world = next(
        w
        for w in worlds
        if max(w.light.sun_rgb) > 0.5
        and any(thing.class_name == "plant" for thing in w.things)
    )
    return render(world, SIZE_HW, Noise(np.random.default_rng(0)))


def save_png(path: Path, *planes: np.ndarray) -> Path:
    Image.fromarray(planes[0] if len(planes) == 1 else np.dstack(planes)).save(path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_nir_keeps_the_counts_of_the_file(tmp_path: Path, dtype: type) -> None:
    """A count is what the camera wrote, 8 bits or 16."""
    stored = NIR_COUNTS.astype(dtype) * (257 if dtype is np.uint16 else 1)
    image = ADAPTERS["nir"].load({"nir": save_png(tmp_path / "a.png", stored)})
    assert image.channels == (NIR,)
    np.testing.assert_array_equal(image.data[0], stored)


def test_nir_refuses_a_colour_picture(tmp_path: Path) -> None:
    """Which of its planes saw infrared, only the user knows."""
    path = save_png(tmp_path / "a.png", RED_COUNTS, NIR_COUNTS, RED_COUNTS)
    with pytest.raises(DataError, match="modality 'nir' needs one plane"):
        ADAPTERS["nir"].load({"nir": path})


@pytest.mark.parametrize(
    "third",
    [RED_COUNTS, NIR_COUNTS, np.zeros_like(RED_COUNTS)],
    ids=["red", "nir", "empty"],
)
def test_a_third_plane_that_adds_nothing_is_passed_over(
    tmp_path: Path, third: np.ndarray
) -> None:
    """The two planes of a PNG are grey and alpha, so two-band cameras write three and fill the third."""
    path = save_png(tmp_path / "a.png", RED_COUNTS, NIR_COUNTS, third)
    image = ADAPTERS["red-nir"].load({"red-nir": path})
    assert [channel.name for channel in image.channels] == ["red", "nir"]
    np.testing.assert_array_equal(image.data, [RED_COUNTS, NIR_COUNTS])


@pytest.mark.parametrize(
    ("planes", "said"),
    [
        ((RED_COUNTS,), "got 1; .*separate_files=true"),
        ((RED_COUNTS, NIR_COUNTS, RED_COUNTS + 1), "use rgb"),
        ((RED_COUNTS, RED_COUNTS, RED_COUNTS), "one band"),
    ],
)
def test_other_files_are_refused_with_what_to_use(
    tmp_path: Path, planes: tuple[np.ndarray, ...], said: str
) -> None:
    """A colour picture read as red and near-infrared would give an index of nothing."""
    with pytest.raises(DataError, match=said):
        ADAPTERS["red-nir"].load({"red-nir": save_png(tmp_path / "a.png", *planes)})


def test_a_jpeg_of_several_planes_is_refused(tmp_path: Path) -> None:
    """Its colour compression mixes red into near-infrared."""
    Image.fromarray(np.dstack([RED_COUNTS, NIR_COUNTS, RED_COUNTS])).save(
        tmp_path / "a.jpg"
    )
    with pytest.raises(DataError, match="JPEG"):
        ADAPTERS["red-nir"].load({"red-nir": tmp_path / "a.jpg"})


@pytest.mark.parametrize("name", ["png", "two.tif", "three.tif"])
def test_alpha_is_not_near_infrared(tmp_path: Path, name: str) -> None:
    """It is 255 everywhere, which is an NDVI of vegetation."""
    path, alpha = tmp_path / f"a.{name}", np.full_like(RED_COUNTS, 255)
    if name == "png":
        save_png(path, RED_COUNTS, alpha)
    else:
        planes = (
            (RED_COUNTS, alpha)
            if name == "two.tif"
            else (RED_COUNTS, NIR_COUNTS, alpha * 0)
        )
        extra = (2,) if name == "two.tif" else (0, 2)  # unspecified, unassociated alpha
        tifffile.imwrite(
            path,
            np.dstack(planes),
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=extra,
        )
    with pytest.raises(DataError, match=r"'red-nir' .*alpha .*TIFF"):
        ADAPTERS["red-nir"].load({"red-nir": path})


def test_two_files_are_joined(tmp_path: Path) -> None:
    """Many cameras write one file a band."""
    files = {
        "red": save_png(tmp_path / "r.png", RED_COUNTS),
        "nir": save_png(tmp_path / "n.png", NIR_COUNTS),
    }
    np.testing.assert_array_equal(
        ADAPTERS["red-nir-files"].load(files).data, [RED_COUNTS, NIR_COUNTS]
    )


@pytest.mark.parametrize("modality", ["red-nir", "red-nir-files"])
def test_an_index_of_numbers_that_are_not_the_values_is_refused(
    tmp_path: Path, modality: str
) -> None:
    """Of reflectance stored with an offset, the counts give 0.56 where the NDVI is 0.82."""
    text = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.0001</Item></GDALMetadata>'
    tag = [(42112, "s", 0, text, True)]
    planes = np.array([[[1400, 1400]], [[5000, 5000]]], np.uint16)
    paths = [tmp_path / name for name in ("both.tif", "red.tif", "nir.tif")]
    for path, stored in zip(paths, (planes, planes[0], planes[1]), strict=True):
        tifffile.imwrite(
            path, stored, photometric="minisblack", metadata=None, extratags=tag
        )
    files = {"red-nir": paths[0], "red": paths[1], "nir": paths[2]}
    with pytest.raises(DataError, match=r"0.0001 plus 0.*'red-nir'"):
        ADAPTERS[modality].load(
            {source.name: files[source.name] for source in ADAPTERS[modality].sources}
        )


def test_two_files_of_different_kind_are_refused(tmp_path: Path) -> None:
    """8 bits beside 16 have no common scale, and an index of them no meaning."""
    wide = NIR_COUNTS.astype(np.uint16)
    files = {
        "red": save_png(tmp_path / "r.png", RED_COUNTS),
        "nir": save_png(tmp_path / "n.png", wide),
    }
    with pytest.raises(DataError, match="nir is 3x2 uint16, red is 3x2 uint8"):
        ADAPTERS["red-nir-files"].load(files)


def test_the_network_gets_the_index_as_a_third_channel(tmp_path: Path) -> None:
    """(nir - red) / (nir + red); where nothing was received it is invalid, and the counts are not."""
    path = save_png(tmp_path / "a.png", RED_COUNTS, NIR_COUNTS, RED_COUNTS)
    seen = ADAPTERS["red-nir"].transform(ADAPTERS["red-nir"].load({"red-nir": path}))
    assert [channel.name for channel in seen.channels] == ["red", "nir", "ndvi"]
    np.testing.assert_allclose(seen.data[2], [[0.5, 0, 0], [-1, 0.5, 0.5]])
    np.testing.assert_array_equal(
        seen.valid[2], [[True, True, False], [True, True, True]]
    )
    assert seen.valid[:2].all()


@pytest.mark.parametrize(
    ("dtype", "description", "full"),
    [
        (np.uint8, None, 255),
        (np.uint16, None, 65520),
        (np.uint16, '{"bits": 12}', 4095),
        (np.float32, None, np.inf),
    ],
)
def test_a_saturated_band_says_nothing_of_plants(
    tmp_path: Path, dtype: type, description: str | None, full: float
) -> None:
    """Two white bands have an index of 0, as bare ground has; how bright they are at least is known."""
    most = full if np.isfinite(full) else 4095.0
    planes = np.array([[[most, most, 50]], [[most, 100, 50]]]).astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif",
        planes,
        planarconfig="separate",
        description=description,
        metadata=None,
    )
    tifffile.imwrite(
        tmp_path / "red.tif", planes[0], description=description, metadata=None
    )
    tifffile.imwrite(
        tmp_path / "nir.tif", planes[1], description=description, metadata=None
    )
    for name in ("red-nir", "red-nir-files"):
        sources = ADAPTERS[name].source_names()
        files = {
            source: tmp_path / ("a.tif" if name == "red-nir" else f"{source}.tif")
            for source in sources
        }
        seen = ADAPTERS[name].transform(ADAPTERS[name].load(files))
        assert seen.valid[:2].all()
        whole = np.isinf(full)
        assert seen.valid[2].tolist() == [[whole, whole, True]]


def test_simulated_saturation_is_known_after_saving(
    tmp_path: Path, scene: Scene
) -> None:
    """12 bits in a file of 16: nobody but the description says where it is full."""
    sensor = ADAPTERS["red-nir"]
    image = sensor.simulate(scene, np.random.default_rng(0))
    image.data[:, 5, 7] = 4095
    sensor.save(image, {"red-nir": tmp_path / "a.tif"})
    assert not sensor.transform(sensor.load({"red-nir": tmp_path / "a.tif"})).valid[
        2, 5, 7
    ]


def test_a_missing_band_makes_the_index_invalid(tmp_path: Path) -> None:
    """It would be +1 or -1 for no reason."""
    planes = np.stack([RED_COUNTS, NIR_COUNTS]).astype(np.float32)
    planes[1, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", planes)
    seen = ADAPTERS["red-nir"].transform(
        ADAPTERS["red-nir"].load({"red-nir": tmp_path / "a.npy"})
    )
    np.testing.assert_array_equal(seen.valid[:, 0, 0], [True, False, False])


def test_plants_shine_in_the_near_infrared(scene: Scene) -> None:
    """The case for such a camera."""
    plants = scene.class_id == CLASSES.index("plant")
    seen = ADAPTERS["red-nir"].transform(
        ADAPTERS["red-nir"].simulate(scene, np.random.default_rng(0))
    )
    assert seen.data[2][plants & seen.valid[2]].mean() > 0.5
    assert seen.data[1][plants].mean() > 3 * seen.data[0][plants].mean()


def test_a_picture_that_repeats_a_plane_has_two_bands(tmp_path: Path) -> None:
    """As a colour picture, it would be read as one."""
    planes = np.random.default_rng(0).integers(0, 256, (24, 32, 2)).astype(np.uint8)
    Image.fromarray(planes[:, :, [0, 1, 0]]).save(tmp_path / "a.png")
    (group,) = guess_folder(tmp_path, [*MODALITIES, RedNir()]).groups
    assert group.best is not None
    assert group.best.modality == "red-nir"
    assert any("near-infrared" in text for text in group.questions)


def test_a_colour_picture_is_not_taken_for_two_bands(tmp_path: Path) -> None:
    """Its third plane has information of its own."""
    planes = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    Image.fromarray(planes).save(tmp_path / "a.png")
    (group,) = guess_folder(tmp_path, [*MODALITIES, RedNir()]).groups
    assert group.best is not None
    assert group.best.modality == "rgb"
