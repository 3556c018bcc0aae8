"""OME-TIFF: what the OME-XML states is read, and a file that contradicts itself is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from sensor_contract import SensorContract
from simmat_plugin_microscopy.adapter import Microscopy, MicroscopyOptions

from simmat import FrameSequence, SensorImage, Window
from simmat.cli import run
from simmat.errors import DataError
from simmat.sensors.adapter import load_sample

# (T, Z, C, Y, X)
COUNTS = (
    np.random.default_rng(0).integers(0, 65535, (2, 3, 2, 20, 31)).astype(np.uint16)
)
STATED = {
    "Channel": {"Name": ["DAPI", "Alexa 488"], "EmissionWavelength": [461, 519]},
    "PhysicalSizeX": 250.0,
    "PhysicalSizeXUnit": "nm",
    "PhysicalSizeY": 0.25,
    "PhysicalSizeYUnit": "µm",
}


class TestMicroscopy(SensorContract):
    """The contract of all sensors."""

    modalities = (Microscopy(),)


def write(path: Path, planes: Any, axes: str, **stated: Any) -> Path:
    """Write an OME-TIFF by tifffile's own writer."""
    tifffile.imwrite(
        path,
        planes,
        ome=True,
        photometric="minisblack",
        metadata={"axes": axes, **STATED, **stated},
    )
    return path


def read(path: Path, window: Window | None = None, **options: Any) -> SensorImage:
    """Read it as the command line would."""
    sensor = Microscopy().with_options({"microscopy": options})
    return load_sample(sensor, {"microscopy": path}, window)


def test_names_emissions_and_pixel_size_are_those_of_the_file(tmp_path: Path) -> None:
    """16 bits stay as they are."""
    image = read(write(tmp_path / "a.ome.tif", COUNTS[0, 0], "CYX"))
    assert [channel.name for channel in image.channels] == ["dapi", "alexa-488"]
    assert [channel.wavelength_um for channel in image.channels] == [0.461, 0.519]
    assert image.pixel_size_um == (0.25, 0.25)
    np.testing.assert_array_equal(image.data, COUNTS[0, 0])
    assert image.valid.all()


def test_a_window_is_the_same_part_of_the_whole(tmp_path: Path) -> None:
    """Large images are read in parts."""
    path = write(tmp_path / "a.ome.tif", COUNTS[0, 0], "CYX")
    window = Window(3, 5, 9, 30)
    assert Microscopy().window_size({"microscopy": path}) == (20, 31)
    part, whole = read(path, window), read(path)
    np.testing.assert_array_equal(part.data, whole.cut(window).data)
    assert part.pixel_size_um == whole.cut(window).pixel_size_um == (0.25, 0.25)


def test_in_a_window_only_picked_channels_are_valid(tmp_path: Path) -> None:
    """A slide scan has channels that a model does not use."""
    path = write(tmp_path / "a.ome.tif", COUNTS[0, 0], "CYX")
    sensor = Microscopy().with_channels(["alexa-488"])
    part = load_sample(sensor, {"microscopy": path}, Window(0, 0, 4, 4))
    assert part.valid.all(axis=(1, 2)).tolist() == [False, True]
    np.testing.assert_array_equal(part.data[1], COUNTS[0, 0, 1, :4, :4])


@pytest.mark.parametrize("axes", ["TZCYX", "TCZYX", "ZTCYX", "CTZYX"])
def test_time_and_slice_are_chosen_in_any_order_of_the_pages(
    tmp_path: Path, axes: str
) -> None:
    """The OME-XML states the order."""
    order = ["TZCYX".index(axis) for axis in axes]
    path = write(tmp_path / "a.ome.tif", COUNTS.transpose(order), axes)
    np.testing.assert_array_equal(read(path, t=1, z=2).data, COUNTS[1, 2])
    np.testing.assert_array_equal(read(path, t=1, z="max").data, COUNTS[1].max(0))


def test_colours_of_a_page_are_channels(tmp_path: Path) -> None:
    """Brightfield cameras write red, green and blue side by side."""
    picture = COUNTS[0, 0, 0, :, :30].astype(np.uint8).reshape(20, 10, 3)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, picture, ome=True, photometric="rgb")
    image = read(path)
    assert [channel.name for channel in image.channels] == ["red", "green", "blue"]
    np.testing.assert_array_equal(image.data, np.moveaxis(picture, 2, 0))


def test_a_scene_is_chosen_by_name_or_number(tmp_path: Path) -> None:
    """Positions of the stage are images of one file."""
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for number, name in enumerate(("left", "right")):
            planes = COUNTS[0, number, :, number:]
            file.write(
                planes, photometric="minisblack", metadata={"axes": "CYX", "Name": name}
            )
    np.testing.assert_array_equal(read(path, scene="right").data, COUNTS[0, 1, :, 1:])
    np.testing.assert_array_equal(read(path, scene=0).data, COUNTS[0, 0])
    with pytest.raises(DataError, match="holds 2 scenes: 0 left, 1 right"):
        read(path)
    with pytest.raises(DataError, match="no scene 'middle'"):
        read(path, scene="middle")


def test_times_are_frames(tmp_path: Path) -> None:
    """A time series is followed, and the slices of each time are chosen by the option."""
    path = write(tmp_path / "a.ome.tif", COUNTS[:, 0], "TCYX")
    frames = FrameSequence(path, Microscopy())
    assert len(frames) == 2
    np.testing.assert_array_equal(frames[1].data, COUNTS[1, 0])
    with pytest.raises(DataError, match="t=0 does not apply"):
        FrameSequence(path, Microscopy(MicroscopyOptions(t=0)))[0]


def test_a_slice_that_is_not_chosen_is_asked_for(tmp_path: Path) -> None:
    """The first one would be a guess."""
    path = write(tmp_path / "a.ome.tif", COUNTS[0], "ZCYX")
    with pytest.raises(DataError, match=r"3 slices.*z=max"):
        read(path)
    with pytest.raises(DataError, match="no z 3; its slices are 0 to 2"):
        read(path, z=3)


def test_no_pixel_size_is_none(tmp_path: Path) -> None:
    """The resolution of a TIFF is a default of most programs."""
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, COUNTS[0, 0], ome=True, metadata={"axes": "CYX"})
    assert read(path).pixel_size_um is None


def _edit(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'PhysicalSizeX="250.0"', b'PhysicalSizeX="-50.0"', "not a length"),
        (b'PhysicalSizeX="250.0"', b'PhysicalSizeX="nan"  ', "not a length"),
        (b'SizeC="2"', b'SizeC="3"', "describes 2 channels"),
        (b'SizeZ="3"', b'SizeZ="9"', "has 6 of the 18 pages"),
        (b'SizeX="31"', b'SizeX="32"', "its pages have 31x20"),
        (b'SizeX="31"', b'SizfX="31"', "must state SizeX as a whole number from 1"),
        (b'SizeX="31"', b'SizeX="-1"', "SizeX as a whole number .* got '-1'"),
        (b'SizeY="20"', b'SizeY="ab"', "SizeY as a whole number .* got 'ab'"),
        (b'SizeT="1"', b'SizeT="0"', "SizeT as a whole number .* got '0'"),
        (b'DimensionOrder="', b'DimensionOrdxr="', "must state DimensionOrder"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, old: bytes, new: bytes, message: str
) -> None:
    """One error that names the file."""
    path = _edit(write(tmp_path / "a.ome.tif", COUNTS[0], "ZCYX"), old, new)
    with pytest.raises(DataError, match=message):
        read(path, z=0)


def test_planes_in_another_file_are_refused(tmp_path: Path) -> None:
    """Only what the user names is opened."""
    path = write(tmp_path / "a.ome.tif", COUNTS[0, 0], "CYX")
    text = b'<TiffData IFD="0" PlaneCount="2"/>'
    new = b'<TiffData><UUID FileName="b"/></TiffData>'
    content = path.read_bytes()
    assert text in content
    tifffile.tiffcomment(path, tifffile.tiffcomment(path).encode().replace(text, new))
    with pytest.raises(DataError, match="in the file 'b'"):
        read(path)


def test_a_tiff_without_ome_xml_names_the_modality_that_reads_it(
    tmp_path: Path,
) -> None:
    """Its axes are not known."""
    tifffile.imwrite(tmp_path / "a.tif", COUNTS[0, 0, 0])
    with pytest.raises(DataError, match="--modality gray"):
        read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.ome.tif", COUNTS[0, 0, 0], ome=False)
    with pytest.raises(DataError, match="cut short"):
        read(tmp_path / "a.ome.tif")


def test_guess_knows_the_files_of_a_microscope(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By their OME-XML; a pixel size that they do not state is asked for."""
    write(tmp_path / "a.ome.tif", COUNTS[0, 0], "CYX")
    assert run(["modalities", "guess", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "--modality microscopy  (stated)" in said
    assert "pixels of 0.25 x 0.25 µm" in said
    tifffile.imwrite(tmp_path / "a.ome.tif", COUNTS[0, 0], ome=True)
    assert run(["modalities", "guess", str(tmp_path)]) == 0
    assert "--pixel-size-um" in capsys.readouterr().out
