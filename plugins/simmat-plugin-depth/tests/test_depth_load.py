"""Metres, whatever the file is in; no return is never a depth; and what guess says of such files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from simmat_plugin_depth.depth import DEPTH, Depth, DepthOptions, MinMaxDepth
from simmat_plugin_depth.units import UNITS
from simmat_plugin_guess.guess import GroupGuess, guess_folder

from simmat.errors import ConfigError, DataError
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import SensorImage

ADAPTERS: dict[str, ModalityAdapter] = {
    "depth": Depth(),
    **{f"depth-{unit}": Depth(DepthOptions(unit=unit)) for unit in UNITS},
    "depth-minmax": MinMaxDepth(),
}
METRES = np.array([[0.5, 1.25], [2.5, 10.75]])


def load(path: Path, modality: str = "depth") -> SensorImage:
    """Read one file as a modality."""
    return ADAPTERS[modality].load({"depth": path})


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_sixteen_bit_integers_are_millimetres(tmp_path: Path, name: str) -> None:
    """NYUv2, ScanNet, RealSense and Kinect tools all write so."""
    stored = np.rint(METRES * 1000).astype(np.uint16)
    if name == "a.npy":
        np.save(tmp_path / name, stored)
    elif name == "a.tif":
        tifffile.imwrite(tmp_path / name, stored)
    else:
        Image.fromarray(stored).save(tmp_path / name)
    image = load(tmp_path / name)
    assert image.channels == (DEPTH,)
    np.testing.assert_allclose(image.data[0], METRES, atol=1e-6)


def test_floats_are_metres(tmp_path: Path) -> None:
    """Renderers and stereo programs write so."""
    np.save(tmp_path / "a.npy", METRES.astype(np.float32))
    np.testing.assert_allclose(load(tmp_path / "a.npy").data[0], METRES)


def test_what_the_file_states_wins_over_the_convention(tmp_path: Path) -> None:
    """The file's own word is the best evidence."""
    stored = np.rint(METRES * 100).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, description='{"unit": "cm"}', metadata=None
    )
    np.testing.assert_allclose(load(tmp_path / "a.tif").data[0], METRES)


@pytest.mark.parametrize(
    ("modality", "per_metre"),
    [
        ("depth-m", 1),
        ("depth-cm", 100),
        ("depth-mm", 1000),
        ("depth-tum", 5000),
        ("depth-kitti", 256),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_user_can_state_the_unit(
    tmp_path: Path, modality: str, per_metre: int, dtype: type
) -> None:
    """TUM and KITTI write 16-bit PNG in units of their own; some write millimetres as floats."""
    whole = np.array([[1.0, 2.0], [3.0, 11.0]])
    np.save(tmp_path / "a.npy", (whole * per_metre).astype(dtype))
    np.testing.assert_allclose(load(tmp_path / "a.npy", modality).data[0], whole)


def test_a_file_that_states_another_unit_than_the_user_is_refused(
    tmp_path: Path,
) -> None:
    """One of the two is wrong, and only the user can tell which."""
    tifffile.imwrite(
        tmp_path / "a.tif",
        METRES.astype(np.float32),
        description='{"unit": "m"}',
        metadata=None,
    )
    with pytest.raises(DataError, match=r"unit .*m, .*unit .*mm"):
        load(tmp_path / "a.tif", "depth-mm")


def test_eight_bits_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """A picture of depth was scaled to 0 to 255; 200 is neither metres nor millimetres."""
    Image.fromarray(np.full((2, 2), 200, dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"uint8 .*--modality gray"):
        load(tmp_path / "a.png")


def test_no_return_is_invalid(tmp_path: Path) -> None:
    """Cameras write 0, negative numbers, NaN or infinity; a mean over them is no mean depth."""
    np.save(
        tmp_path / "a.npy",
        np.array([[0, -1, np.nan], [np.inf, 1e10, 2]], dtype=np.float32),
    )
    image = load(tmp_path / "a.npy")
    np.testing.assert_array_equal(
        image.valid[0], [[False, False, False], [False, False, True]]
    )
    np.save(tmp_path / "b.npy", np.array([[0, 65535], [65534, 1]], dtype=np.uint16))
    np.testing.assert_array_equal(
        load(tmp_path / "b.npy").valid[0], [[False, False], [True, True]]
    )


def test_what_sixteen_bits_do_not_hold_is_not_saved(tmp_path: Path) -> None:
    """It would wrap around to another depth."""
    image = SensorImage.from_planes([[1.0, 65.535]], (DEPTH,))
    with pytest.raises(
        ConfigError, match=r"less than 65.535 m, got 65.535 m; use \.tif"
    ):
        Depth().save(image, {"depth": tmp_path / "a.png"})
    assert list(tmp_path.iterdir()) == []


def write_exr(path: Path, **channels: np.ndarray) -> None:
    """Write an EXR of named channels; skip where the library is not installed."""
    library = pytest.importorskip("OpenEXR", reason="comes with the extra 'exr'")
    header = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    with library.File(header, channels) as opened:
        opened.write(str(path))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_exr_is_metres(tmp_path: Path, dtype: type) -> None:
    """Renderers write depth so, as half or float; its other channels are not taken."""
    write_exr(tmp_path / "a.exr", Z=METRES.astype(dtype), Y=np.zeros((2, 2), dtype))
    np.testing.assert_allclose(load(tmp_path / "a.exr").data[0], METRES)


def test_nodata_that_the_user_says_is_looked_for_in_an_exr(tmp_path: Path) -> None:
    """Renderers write a far plane where nothing is."""
    write_exr(tmp_path / "a.exr", Z=np.array([[1.5, 100.0]], np.float32))
    image = Depth(DepthOptions(nodata=100)).load({"depth": tmp_path / "a.exr"})
    assert image.valid.tolist() == [[[True, False]]]


def test_an_exr_of_colours_is_refused(tmp_path: Path) -> None:
    """Nothing says which of them would be the depth."""
    plane = METRES.astype(np.float32)
    write_exr(tmp_path / "a.exr", R=plane, G=plane, B=plane)
    with pytest.raises(DataError, match=r"\['B', 'G', 'R'\]"):
        load(tmp_path / "a.exr")


def test_an_exr_that_holds_a_part_of_its_picture_is_refused(tmp_path: Path) -> None:
    """Renderers cut away what is empty; the rest would lie elsewhere than the mask says."""
    library = pytest.importorskip("OpenEXR", reason="comes with the extra 'exr'")
    corners = (np.array([0, 0], dtype=np.int32), np.array([9, 9], dtype=np.int32))
    header = {
        "compression": library.ZIP_COMPRESSION,
        "type": library.scanlineimage,
        "displayWindow": corners,
    }
    with library.File(header, {"Z": METRES.astype(np.float32)}) as opened:
        opened.write(str(tmp_path / "a.exr"))
    with pytest.raises(DataError, match="window"):
        load(tmp_path / "a.exr")


def test_an_exr_without_its_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user must be told what to install, or how to do without."""
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    (tmp_path / "a.exr").write_bytes(b"\x76\x2f\x31\x01")
    with pytest.raises(
        DataError, match=r"pip install 'simmat-plugin-depth\[exr\]'.*TIFF or npy"
    ):
        load(tmp_path / "a.exr")


@pytest.mark.parametrize(
    "stored", [[[0, 2000], [3000, 6000]], [[np.nan, 2.0], [3.0, 6.0]]]
)
def test_min_max_scales_what_came_back_by_itself(
    tmp_path: Path, stored: list[list[float]]
) -> None:
    """The benchmark's encoding knows no unit; a hole must not become the nearest pixel."""
    kind = np.uint16 if stored[0][0] == 0 else np.float64
    np.save(tmp_path / "a.npy", np.asarray(stored).astype(kind))
    image = load(tmp_path / "a.npy", "depth-minmax")
    np.testing.assert_allclose(image.data, [[[0, 0], [0.25, 1]]])
    np.testing.assert_array_equal(image.valid, [[[False, True], [True, True]]])


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (
            (
                "ViewLayer.Depth.Z",
                "ViewLayer.Normal.X",
                "ViewLayer.Normal.Y",
                "ViewLayer.Normal.Z",
            ),
            "ViewLayer.Depth.Z",
        ),
        (("Depth.V", "UV.U", "UV.V"), "Depth.V"),
        (("R", "G", "B", "Z"), "Z"),
        (("Y",), "Y"),
    ],
)
def test_the_depth_among_the_passes_of_a_renderer_is_recognized_by_name(
    tmp_path: Path, names: tuple[str, ...], taken: str
) -> None:
    """The z of a normal is no depth."""
    write_exr(
        tmp_path / "a.exr",
        **{
            name: np.full((2, 2), 1 + place, np.float32)
            for place, name in enumerate(names)
        },
    )
    assert load(tmp_path / "a.exr").data[0, 0, 0] == 1 + names.index(taken)


@pytest.mark.parametrize("names", [("N.X", "N.Y", "N.Z"), ("R",)])
def test_a_normal_or_a_mask_is_not_depth(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """It would be read as metres."""
    write_exr(
        tmp_path / "a.exr", **{name: np.ones((2, 2), np.float32) for name in names}
    )
    with pytest.raises(DataError, match="channel"):
        load(tmp_path / "a.exr")


def test_a_depth_that_states_a_scale_is_refused(tmp_path: Path) -> None:
    """Read as millimetres, a tenth of a millimetre would be ten times as far."""
    text = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.0001</Item></GDALMetadata>'
    tag = [(42112, "s", 0, text, True)]
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.full((2, 2), 9000, np.uint16),
        metadata=None,
        extratags=tag,
    )
    with pytest.raises(DataError, match=r"0.0001 plus 0.*'depth'"):
        load(tmp_path / "a.tif", "depth-mm")


def test_millimetres_of_which_a_few_could_be_metres_are_refused(tmp_path: Path) -> None:
    """Read in another unit, the nearest things would lie at 200 m, and all else be missing."""
    np.save(
        tmp_path / "a.npy",
        np.linspace(200, 3000, 4096, dtype=np.float32).reshape(64, 64),
    )
    with pytest.raises(DataError, match=r"0\.001 to 300 m, got 200 to 3000 m"):
        load(tmp_path / "a.npy")
    np.save(
        tmp_path / "b.npy",
        np.where(np.arange(4096) < 40, np.linspace(1, 2, 4096), 1e4).reshape(64, 64),
    )
    assert load(tmp_path / "b.npy").valid.sum() == 40


def group_of(folder: Path) -> GroupGuess:
    (found,) = guess_folder(folder, [Depth()]).groups
    assert found.best is not None
    return found


def test_an_assumed_unit_is_called_that_and_asked_for(tmp_path: Path) -> None:
    """Floats are metres by convention, not by anything in the file."""
    folder = tmp_path / "depth"
    folder.mkdir()
    metres = np.random.default_rng(0).uniform(0.5, 2, (24, 32)).astype(np.float32)
    np.save(folder / "a.npy", metres)
    found = group_of(folder)
    assert found.best is not None
    assert found.best.unit_evidence.startswith("an assumption of modality 'depth'")
    assert any("distances in m?" in text for text in found.questions)


def test_zeros_are_no_distance_and_not_asked_for(tmp_path: Path) -> None:
    """The sensor leaves them out by itself, so the answer would change nothing."""
    metres = np.random.default_rng(0).uniform(0.5, 2, (24, 32)).astype(np.float32)
    metres[:8] = 0
    np.save(tmp_path / "a.npy", metres)
    assert not any("--nodata" in text for text in group_of(tmp_path).questions)


def test_a_unit_in_the_description_is_stated(tmp_path: Path) -> None:
    """It needs no question."""
    stored = np.full((24, 32), 80, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, description='{"unit": "cm"}')
    best = group_of(tmp_path).best
    assert best is not None
    assert best.recognition.certainty == "stated"
    assert "cm" in best.unit_evidence
