"""What cameras write about where they look is read, and used as a start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin
from scipy import ndimage
from simmat_plugin_align.align import Aligned, align_rig
from simmat_plugin_align.camera_tags import CameraFile, CameraStart, camera_start
from simmat_plugin_align.pairs import Rig, open_rig

from simmat.errors import DataError
from simmat.sensors.builtin import Gray
from simmat.sensors.sensor_toml import read_sensor
from simmat.sensors.warp import Warp
from simmat.types import Channel, SensorImage, Window

SIZE_HW = (120, 160)
H_FIRST = np.array([[1.01, 0.02, -4.0], [-0.01, 0.99, 6.0], [1e-5, 0.0, 1.0]])
H_SECOND = np.array([[0.98, 0.0, 12.0], [0.02, 1.02, -3.0], [0.0, 2e-5, 1.0]])
RIG_TOML = """format = 1
name = "rig"
[[source]]
name = "green"
files = "*_MS_G.TIF"
[[source]]
name = "nir"
files = "*_MS_NIR.TIF"
[defaults]
quantity = "counts"
unit = "count"
nodata = 0
[[channel]]
name = "green"
source = "green"
[[channel]]
name = "nir"
source = "nir"
"""


def write_tiff(
    file: Path,
    tags: str = "",
    plane: np.ndarray | None = None,
    pixels_per_mm: float | None = None,
) -> Path:
    """Write a 16-bit TIFF with XMP tags, and the resolution of the sensor."""
    values = np.zeros(SIZE_HW, np.uint16) if plane is None else plane
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" '
        f'xmlns:Camera="http://pix4d.com/camera/1.0/" {tags}</rdf:RDF></x:xmpmeta>'
    )
    more = TiffImagePlugin.ImageFileDirectory_v2()
    if tags:
        more[700] = packet.encode()
        more.tagtype[700] = 1
    if pixels_per_mm is not None:
        more[ExifTags.IFD.Exif] = {
            ExifTags.Base.FocalPlaneXResolution: pixels_per_mm,
            ExifTags.Base.FocalPlaneYResolution: pixels_per_mm,
            ExifTags.Base.FocalPlaneResolutionUnit: 4,
        }
    Image.fromarray(values).save(file, "TIFF", tiffinfo=more)
    return file


def start_of(
    first: Path, second: Path, size_hw: tuple[int, int] = SIZE_HW
) -> CameraStart | None:
    """Return what the tags of two files say."""
    return camera_start(
        CameraFile(Gray(), first, size_hw), CameraFile(Gray(), second, size_hw)
    )


def dji(matrix: np.ndarray) -> str:
    """Return DJI's tag, which is an attribute."""
    text = ",".join(f"{value:.10g}" for value in matrix.ravel())
    return f'drone-dji:CalibratedHMatrix="{text}"/>'


def rig(angles: str, centre: str, focal: str) -> str:
    """Return the tags of a rig, which are elements."""
    return (
        f"><Camera:RigRelatives>{angles}</Camera:RigRelatives>"
        f"<Camera:PrincipalPoint>{centre}</Camera:PrincipalPoint>"
        f"<Camera:PerspectiveFocalLength>{focal}</Camera:PerspectiveFocalLength>"
        "</rdf:Description>"
    )


def test_two_matrices_of_dji_are_joined(tmp_path: Path) -> None:
    """Each maps a band to one ideal plane."""
    first = write_tiff(tmp_path / "a_MS_G.TIF", dji(H_FIRST))
    second = write_tiff(tmp_path / "a_MS_NIR.TIF", dji(H_SECOND))
    found = start_of(first, second)
    assert found is not None
    assert found.tags == "CalibratedHMatrix"
    point = np.array([30.0, 70.0, 1.0])
    there = found.matrix @ point
    on_plane, expected = H_SECOND @ there, H_FIRST @ point
    np.testing.assert_allclose(
        on_plane / on_plane[2], expected / expected[2], rtol=1e-6
    )


def test_lenses_and_angles_of_a_rig_are_joined(tmp_path: Path) -> None:
    """A far point is seen by both where the matrix says; angles are from a band to the reference of the rig."""
    first = write_tiff(
        tmp_path / "a_1.tif", rig("0, 0, 0", "2.4, 1.8", "5.4"), pixels_per_mm=266.0
    )
    second = write_tiff(
        tmp_path / "a_2.tif", rig("0, 0, 90", "2.3, 1.9", "5.4"), pixels_per_mm=266.0
    )
    found = start_of(first, second, (960, 1280))
    assert found is not None
    assert found.tags == "RigRelatives"
    # one millimetre to the right of the centre of the first sensor
    seen = found.matrix @ [3.4 * 266 - 0.5, 1.8 * 266 - 0.5, 1.0]
    # a camera that is turned by 90 degrees from x to y sees what is at +x at -y
    expected = [2.3 * 266 - 0.5, 0.9 * 266 - 0.5]
    np.testing.assert_allclose(seen[:2] / seen[2], expected, atol=1e-6)
    turned = write_tiff(
        tmp_path / "a_3.tif", rig("0, 1, 0", "2.4, 1.8", "5.4"), pixels_per_mm=266.0
    )
    found = start_of(first, turned, (960, 1280))
    assert found is not None
    seen = found.matrix @ [2.4 * 266 - 0.5, 1.8 * 266 - 0.5, 1.0]
    shift_px = -5.4 * 266 * np.tan(np.deg2rad(1))
    np.testing.assert_allclose(seen[0] / seen[2] - 2.4 * 266 + 0.5, shift_px, rtol=1e-6)


class Placed(Gray):
    """A camera whose files state where they lie in the picture of another."""

    name = "placed"

    def stated_place(
        self, files: Any, size_hw: tuple[int, int], other_hw: tuple[int, int]
    ) -> tuple[str, np.ndarray]:
        """Return the place that the name of the file states."""
        scale = float(Path(files["gray"]).stem)
        return "its name", np.diag([scale, scale, 1.0])


def test_what_a_sensor_states_is_used_from_either_side(tmp_path: Path) -> None:
    """A plugin for a vendor's files knows where their images lie; a place that cannot be is left out."""
    own = CameraFile(Placed(), tmp_path / "2.png", (240, 320))
    other = CameraFile(Gray(), tmp_path / "visible.png", (480, 640))
    found, back = camera_start(own, other), camera_start(other, own)
    assert found is not None
    assert found.tags == "its name"
    np.testing.assert_allclose(found.matrix, np.diag([2, 2, 1]))
    assert back is not None
    np.testing.assert_allclose(back.matrix, np.diag([0.5, 0.5, 1]))
    for name in ("0.png", "nan.png"):
        wrong = CameraFile(Placed(), tmp_path / name, (240, 320))
        assert camera_start(other, wrong) is None


@pytest.mark.parametrize(
    "tags",
    [
        "",
        "/>",
        'drone-dji:CalibratedHMatrix="1,0,0,0,1,0,0,0"/>',
        'drone-dji:CalibratedHMatrix="1,0,0,0,1,0,0,0,x"/>',
        'drone-dji:CalibratedHMatrix="1,0,0,0,1,0,0,0,nan"/>',
        'drone-dji:CalibratedHMatrix="0,0,0,0,0,0,0,0,0"/>',
        'drone-dji:CalibratedHMatrix="-1,0,0,0,1,0,0,0,1"/>',
        'drone-dji:CalibratedHMatrix="1,0,0,0,1,0,0.1,0,1"/>',
        "not xml",
        rig("0, 0, 0", "2.4, 1.8", "5.4"),
        rig("0, 0", "2.4, 1.8", "5.4"),
    ],
)
def test_tags_that_say_nothing_are_left_out(tags: str, tmp_path: Path) -> None:
    """Damaged tags must not stop an alignment that needs none."""
    first = write_tiff(tmp_path / "a.tif", dji(np.eye(3)))
    second = write_tiff(tmp_path / "b.tif", tags)
    for files in ((first, second), (second, first), (second, second)):
        if tags.startswith("drone-dji") and files[0] == files[1]:
            continue
        assert start_of(*files) is None
    other = tmp_path / "c.npy"
    np.save(other, np.zeros(SIZE_HW))
    assert start_of(first, other) is None


def write_pair(root: Path, true: np.ndarray, tags: np.ndarray | None) -> Rig:
    """Write a scene as two cameras see it, the second one by a matrix; it may state another one."""
    images = root / "images"
    images.mkdir(parents=True)
    (root / "rig.toml").write_text(RIG_TOML)
    height, width = SIZE_HW
    wide = np.random.default_rng(0).normal(size=(3 * height, 3 * width))
    wide = 1000 + 800 * np.tanh(24 * ndimage.gaussian_filter(wide, 3))
    image = SensorImage.from_planes(
        wide[None].astype(np.float32), (Channel("a", "counts", "count"),)
    )
    to_wide = np.array([[1, 0, width], [0, 1, height], [0, 0, 1.0]])
    for name, matrix, bright in (("G", np.eye(3), 1), ("NIR", true, -1)):
        seen = Warp(to_wide @ np.linalg.inv(matrix), image.size_hw)(
            image, Window(0, 0, *SIZE_HW), Window(0, 0, *image.size_hw), [True]
        )
        values = 1000 + bright * (seen.data[0] - 1000)
        plane = np.where(seen.valid[0], values, 0).astype(np.uint16)
        stated = ""
        if tags is not None:
            stated = dji(np.eye(3) if name == "G" else np.linalg.inv(tags))
        write_tiff(images / f"DJI_0_MS_{name}.TIF", stated, plane)
    return open_rig(root, read_sensor(root / "rig.toml"))


def found_in(rig: Rig) -> Aligned:
    """Return where the second camera lies."""
    (found,) = align_rig(rig, 1, lambda count: None)
    return found


def corner_error_px(found: np.ndarray | None, true: np.ndarray) -> float:
    """Return the mean distance of the corners."""
    assert found is not None
    right, bottom = SIZE_HW[1] - 1, SIZE_HW[0] - 1
    corners = np.transpose(
        [(0, 0, 1), (right, 0, 1), (0, bottom, 1), (right, bottom, 1)]
    )
    one, other = found @ corners, true @ corners
    return float(np.hypot(*(one[:2] / one[2] - other[:2] / other[2])).mean())


@pytest.mark.slow
def test_a_view_outside_of_the_limits_needs_the_values_of_the_camera(
    tmp_path: Path,
) -> None:
    """A telephoto lens beside a wide one: 2.2 times the size, and the tag is 3 % wrong."""
    true = np.array([[2.2, 0.0, -90.0], [0.0, 2.2, -75.0], [0.0, 0.0, 1.0]])
    with pytest.raises(DataError, match="nothing to align by"):
        found_in(write_pair(tmp_path / "a", true, None))
    stated = true @ np.diag([1.03, 1.03, 1.0])
    found = found_in(write_pair(tmp_path / "b", true, stated))
    assert corner_error_px(found.shared, true) < 1.5
    values = found.document()["camera_values"]
    assert values["tags"] == "CalibratedHMatrix"
    assert values["used"] == 1
    assert 2 < values["apart_px"] < 10
    assert "started also from the camera's values (CalibratedHMatrix)" in found.text()


@pytest.mark.slow
def test_wrong_values_of_the_camera_do_no_harm(tmp_path: Path) -> None:
    """They are one more candidate; the user is told that they contradict."""
    true = np.array([[1.0, 0.0, 9.0], [0.0, 1.0, -5.0], [0.0, 0.0, 1.0]])
    wrong = np.array([[2.0, 0.0, -120.0], [0.0, 2.0, 60.0], [0.0, 0.0, 1.0]])
    found = found_in(write_pair(tmp_path / "a", true, wrong))
    assert corner_error_px(found.shared, true) < 1.5
    assert found.document()["camera_values"]["used"] == 0
    assert "contradict" in found.text()
    # one pair tells less than many
    assert "from one pair" in found.text()
    assert ", 1 pair; residual" in found.text()
    assert "90 % of pairs" not in found.text()
    assert found.doubtful == []
