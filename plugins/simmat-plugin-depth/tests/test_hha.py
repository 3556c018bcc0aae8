"""HHA: what Gupta et al. define, from depth and a camera, in physical units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import maximum_filter
from simmat_plugin_depth.geometry import (
    LEVEL_UP,
    Intrinsics,
    estimate_up,
    hha,
    surface_normals,
)
from simmat_plugin_depth.hha import ENCODED, PHYSICAL, Hha, HhaOptions
from simmat_plugin_scenes.generate import generate_scene

from simmat.data.dataset import open_dataset
from simmat.errors import DataError
from simmat.sensors.adapter import ModalityAdapter

HHA, LEVEL = Hha(), Hha(HhaOptions(gravity="level"))
SIZE_HW = (60, 80)
CAMERA = Intrinsics(70.0, 65.0, 41.0, 28.0)
HEIGHT_M, WALL_M = 1.5, 4.0
CARD = {"intrinsics": {"fx": 70.0, "fy": 65.0, "cx": 41.0, "cy": 28.0}}


def room(tilt_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return depth, true up, and where the floor is, seen 1.5 m above a floor and 4 m before a wall, looking down."""
    tilt = np.deg2rad(tilt_deg)
    up = np.array([0, -np.cos(tilt), -np.sin(tilt)])
    forward = np.array([0, -np.sin(tilt), np.cos(tilt)])
    rows, columns = np.indices(SIZE_HW)
    rays = np.stack(
        [
            (columns - CAMERA.cx) / CAMERA.fx,
            (rows - CAMERA.cy) / CAMERA.fy,
            np.ones(SIZE_HW),
        ]
    )
    with np.errstate(divide="ignore"):
        floor = -HEIGHT_M / np.einsum("c,chw->hw", up, rays)
    floor[floor < 0] = np.inf
    wall = WALL_M / np.einsum("c,chw->hw", forward, rays)
    return np.minimum(floor, wall), up, floor < wall


@pytest.mark.parametrize("tilt_deg", [0.0, 20.0, 35.0])
def test_a_floor_and_a_wall_have_their_height_and_angle(tilt_deg: float) -> None:
    """Also where the camera looks down, for gravity is found in the scene."""
    depth, _, floor = room(tilt_deg)
    planes, valid = hha(depth, np.ones(SIZE_HW, dtype=bool), CAMERA)
    np.testing.assert_allclose(planes[0], 1 / depth)
    corner = np.diff(floor, axis=0, prepend=floor[:1])
    away = ~maximum_filter(corner, 9)
    np.testing.assert_allclose(planes[1][floor], 0, atol=0.02)
    np.testing.assert_allclose(planes[2][floor & away], 0, atol=1)
    np.testing.assert_allclose(planes[2][~floor & away], 90, atol=1)
    assert planes[1][~floor].max() > 0.6
    assert valid.all()


def test_a_level_camera_is_taken_at_its_word() -> None:
    """A camera over a slope must not have the slope called a floor."""
    depth, up, floor = room(20.0)
    planes, _ = hha(depth, np.ones(SIZE_HW, dtype=bool), CAMERA, np.asarray(LEVEL_UP))
    assert planes[2][floor][200] == pytest.approx(20, abs=1)
    assert np.rad2deg(np.arccos(up @ np.asarray(LEVEL_UP))) == pytest.approx(20)


def test_normals_of_a_slanted_plane_are_exact() -> None:
    """The reciprocal depth of a plane is linear in the pixels, so nothing is approximated."""
    normal = np.array([0.3, -0.5, -0.8]) / np.linalg.norm([0.3, -0.5, -0.8])
    rows, columns = np.indices(SIZE_HW)
    rays = np.stack(
        [
            (columns - CAMERA.cx) / CAMERA.fx,
            (rows - CAMERA.cy) / CAMERA.fy,
            np.ones(SIZE_HW),
        ]
    )
    depth = -2.0 / np.einsum("c,chw->hw", normal, rays)
    depth[depth < 0] = 500.0
    seen = (depth < 20) & (depth > 0)
    normals, known = surface_normals(depth, seen, CAMERA)
    assert known.sum() > 0.5 * seen.sum()
    np.testing.assert_allclose(
        normals[:, known].T, np.broadcast_to(normal, (known.sum(), 3)), atol=1e-6
    )


def test_a_step_does_not_tilt_the_normals_beside_it() -> None:
    """An object's outline is what segmentation needs; a fit across it would blur it."""
    depth = np.full(SIZE_HW, 3.0)
    depth[:, 40:] = 2.0
    normals, known = surface_normals(depth, np.ones(SIZE_HW, dtype=bool), CAMERA)
    assert known.all()
    np.testing.assert_allclose(normals[2], -1, atol=1e-9)


def test_up_is_found_among_noisy_normals() -> None:
    """Floors vote for it and walls against."""
    rng = np.random.default_rng(0)
    up = np.array([0.1, -0.9, -0.4]) / np.linalg.norm([0.1, -0.9, -0.4])
    side = np.cross(up, [0, 0, 1.0])
    side /= np.linalg.norm(side)
    normals = np.concatenate(
        [np.tile(up, (300, 1)), np.tile(side, (300, 1))]
    ) + 0.05 * rng.normal(size=(600, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    assert np.rad2deg(np.arccos(estimate_up(normals) @ up)) < 1
    np.testing.assert_allclose(estimate_up(np.zeros((0, 3))), LEVEL_UP)


def test_pixels_without_depth_have_no_hha() -> None:
    """A hole must stay a hole, and not become a far floor."""
    depth, _, _ = room(20.0)
    valid = np.ones(SIZE_HW, dtype=bool)
    valid[20:40, 30:50] = False
    holed, known = hha(np.where(valid, depth, 0), valid, CAMERA)
    whole, _ = hha(depth, np.ones(SIZE_HW, dtype=bool), CAMERA)
    assert not known[:, ~valid].any()
    np.testing.assert_allclose(holed[:2, valid], whole[:2, valid], atol=0.02)


def test_a_depth_file_becomes_hha_with_the_cards_camera(tmp_path: Path) -> None:
    """Intrinsics are a fact of the data set, not of every command."""
    depth, _, floor = room(20.0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in "abc":
        Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(
            tmp_path / f"images/{name}.png"
        )
        Image.fromarray(floor.astype(np.uint8)).save(tmp_path / f"masks/{name}.png")
    numbers = "".join(f"{key} = {value}\n" for key, value in CARD["intrinsics"].items())
    (tmp_path / "card.toml").write_text(f'regions = "classes"\n[intrinsics]\n{numbers}')
    dataset = open_dataset(tmp_path, HHA)
    image = dataset.image(dataset.first)
    assert image.channels == PHYSICAL
    assert np.median(image.data[2][floor]) == pytest.approx(0, abs=1)
    assert np.median(image.data[2][~floor]) == pytest.approx(90, abs=1)


def test_a_depth_file_without_a_camera_is_refused_with_what_to_write(
    tmp_path: Path,
) -> None:
    """A guessed focal length bends every surface."""
    np.save(tmp_path / "a.npy", np.ones((9, 9), dtype=np.float32))
    with pytest.raises(DataError, match=r"write into card\.toml.*\[intrinsics\]"):
        HHA.load({"hha": tmp_path / "a.npy"})
    with pytest.raises(DataError, match="intrinsics"):
        HHA.configured({"intrinsics": None}).load({"hha": tmp_path / "a.npy"})


def test_precomputed_eight_bits_are_counts(tmp_path: Path) -> None:
    """Encodings differ by program; their counts are no metres. No camera is needed."""
    values = np.random.default_rng(0).integers(1, 256, (4, 5, 3)).astype(np.uint8)
    values[1, 2] = 0
    Image.fromarray(values).save(tmp_path / "a.png")
    image = HHA.load({"hha": tmp_path / "a.png"})
    assert image.channels == ENCODED
    np.testing.assert_array_equal(image.data, np.moveaxis(values, 2, 0))
    assert not image.valid[:, 1, 2].any()
    assert image.valid.sum() == 3 * 19


def test_other_files_are_refused(tmp_path: Path) -> None:
    """Three planes of 16 bits are neither."""
    np.save(tmp_path / "a.npy", np.ones((3, 8, 8), dtype=np.uint16))
    with pytest.raises(DataError, match=r"floats, got 3 of uint16"):
        HHA.load({"hha": tmp_path / "a.npy"})


@pytest.mark.parametrize("adapter", [HHA, LEVEL], ids=["estimated", "level"])
def test_a_simulated_scene_has_a_floor(adapter: ModalityAdapter) -> None:
    """The ground is where most of the pixels look up."""
    scene = generate_scene(np.random.default_rng(2), (48, 64))
    image = adapter.simulate(scene, np.random.default_rng(0))
    ground = (scene.instance == 0) & (scene.surface.normal[1] < -0.8) & image.valid[2]
    assert ground.any()
    assert np.median(image.data[2][ground]) < 35
    assert (image.channels, image.size_hw) == (PHYSICAL, (48, 64))
