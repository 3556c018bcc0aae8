"""OME-Zarr, CZI, ND2 and LIF through bioio's readers: names, sizes, scenes and frames, and damaged files."""

from __future__ import annotations

import gc
import json
import shutil
import struct
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from simmat_plugin_microscopy import readers
from simmat_plugin_microscopy.adapter import Microscopy
from simmat_plugin_microscopy.readers import BioioFile
from simmat_plugin_microscopy.zarr_heads import check_heads

from simmat import FrameSequence, SensorImage, Window
from simmat.cli import run
from simmat.errors import ConfigError, DataError
from simmat.sensors.adapter import load_sample

# (T, C, Z, Y, X)
COUNTS = (
    np.random.default_rng(0).integers(0, 65535, (2, 2, 3, 20, 31)).astype(np.uint16)
)


def write_zarr(
    path: Path, planes: Any = COUNTS, unit: str | None = "micrometer", **how: Any
) -> Path:
    """Write (T, C, Z, Y, X) by bioio's own writer."""
    writers = pytest.importorskip("bioio_ome_zarr.writers")
    labels = [writers.Channel(label=name, color="FFFFFF") for name in ("DAPI", "GFP")]
    labels = labels[: planes.shape[1]]
    made = writers.OMEZarrWriter(
        path,
        level_shapes=planes.shape,
        dtype=planes.dtype,
        channels=labels,
        axes_names=["t", "c", "z", "y", "x"],
        axes_units=["second", None, unit, unit, unit],
        physical_pixel_size=[1, 1, 0.5, 0.2, 0.2],
        **how,
    )
    made.write_full_volume(planes)
    return path


def write_czi(path: Path, planes: Any = COUNTS, scale_z: float | None = 5e-7) -> Path:
    """Write (T, C, Z, Y, X) as Zeiss's own library does."""
    pytest.importorskip("bioio_czi")
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(path)) as file:
        for t, c, z in np.ndindex(planes.shape[:3]):
            file.write(planes[t, c, z][..., None], plane={"T": t, "C": c, "Z": z})
        file.write_metadata(
            "a",
            channel_names={0: "DAPI", 1: "GFP"},
            scale_x=2e-7,
            scale_y=2e-7,
            **({} if scale_z is None else {"scale_z": scale_z}),
        )
    return path


def write_lif(path: Path, planes: Any = COUNTS) -> Path:
    """Write (T, C, Z, Y, X) by hand, after the layout that liffile reads, since no library writes LIF."""
    pytest.importorskip("bioio_lif")
    times, channels, slices, height, width = planes.shape
    plane = 2 * height * width
    described = ""
    for number in range(channels):
        described += (
            '<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" '
            f'Max="65535" Unit="" LUTName="{("DAPI", "GFP")[number]}" IsLUTInverted="0" BytesInc="{number * plane}" '
            'BitInc="0"/>'
        )
    axes = ((1, width, 2e-7, 2), (2, height, 2e-7, 2 * width))
    axes += ((3, slices, 5e-7, plane * channels), (4, times, 1, plane * channels * slices))  # fmt: skip
    dimensions = ""
    for number, count, step, increment in axes:
        if count > 1:
            dimensions += (
                f'<DimensionDescription DimID="{number}" NumberOfElements="{count}" Origin="0" '
                f'Length="{step * (count - 1)}" Unit="m" BytesInc="{increment}" BitInc="0"/>'
            )
    stored = planes.transpose(0, 2, 1, 3, 4).astype("<u2").tobytes()
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="a" UniqueID="1"><Data/><Memory Size="0" '
        'MemoryBlockID="MemBlock_0"/><Children><Element Name="one" UniqueID="2"><Data><Image><ImageDescription>'
        f"<Channels>{described}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{len(stored)}" MemoryBlockID="MemBlock_1"/></Element></Children></Element>'
        "</LMSDataContainerHeader>"
    )
    text = xml.encode("utf-16-le")
    content = struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(xml)) + text
    for name, memory in (("MemBlock_0", b""), ("MemBlock_1", stored)):
        head = struct.pack(
            "<IIBQBI", 0x70, 14 + 2 * len(name), 0x2A, len(memory), 0x2A, len(name)
        )
        content += head + name.encode("utf-16-le") + memory
    path.write_bytes(content)
    return path


WRITERS = {"a.ome.zarr": write_zarr, "a.czi": write_czi, "a.lif": write_lif}


def read(path: Path, window: Window | None = None, **options: Any) -> SensorImage:
    """Read it as the command line would."""
    sensor = Microscopy().with_options({"microscopy": options})
    return load_sample(sensor, {"microscopy": path}, window)


def test_a_stack_need_not_state_its_distance_of_slices(tmp_path: Path) -> None:
    """Zeiss's own library then writes 0."""
    image = read(write_czi(tmp_path / "a.czi", scale_z=None), t=0, z=0)
    assert image.pixel_size_um == pytest.approx((0.2, 0.2))


def test_a_file_is_closed_after_it_was_read(tmp_path: Path) -> None:
    """A program that opens thousands of files may have few of them open at once."""
    path = write_czi(tmp_path / "a.czi")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read(path, t=0, z=0)
        gc.collect()
    assert [one for one in said if one.category is ResourceWarning] == []


@pytest.mark.parametrize("name", WRITERS)
def test_names_sizes_and_numbers_are_those_of_the_file(
    tmp_path: Path, name: str
) -> None:
    """16 bits stay as they are; whole, in a window and projected."""
    path = WRITERS[name](tmp_path / name)
    image = read(path, t=1, z=2)
    assert [channel.name for channel in image.channels] == ["dapi", "gfp"]
    assert image.pixel_size_um == pytest.approx((0.2, 0.2))
    np.testing.assert_array_equal(image.data, COUNTS[1, :, 2])
    window = Window(3, 5, 9, 30)
    part = read(path, window, t=1, z=2)
    np.testing.assert_array_equal(part.data, image.cut(window).data)
    np.testing.assert_array_equal(read(path, t=0, z="max").data, COUNTS[0].max(1))


@pytest.mark.parametrize("name", WRITERS)
def test_times_are_frames_and_so_are_slices(tmp_path: Path, name: str) -> None:
    """The frames of a file with times and slices are its times."""
    path = WRITERS[name](tmp_path / name)
    frames = FrameSequence(path, Microscopy(), modality_options={"z": 1})
    assert len(frames) == 2
    np.testing.assert_array_equal(frames[1].data, COUNTS[1, :, 1])
    (tmp_path / "z").mkdir()
    slices = FrameSequence(
        WRITERS[name](tmp_path / "z" / name, COUNTS[:1]), Microscopy()
    )
    assert len(slices) == 3
    np.testing.assert_array_equal(slices[2].data, COUNTS[0, :, 2])
    assert slices.spacing == pytest.approx((5e-4, 2e-4, 2e-4))


@pytest.mark.parametrize("name", WRITERS)
def test_other_sensors_read_the_frames(tmp_path: Path, name: str) -> None:
    """A time series of one channel needs no names."""
    path = WRITERS[name](tmp_path / name, COUNTS[:, :1, :1])
    frames = FrameSequence(path, "gray")
    np.testing.assert_array_equal(frames[1].data, COUNTS[1, :1, 0])


def test_a_pixel_size_without_a_unit_is_not_known(tmp_path: Path) -> None:
    """An OME-Zarr without a unit has the size 1 by default."""
    path = write_zarr(tmp_path / "a.zarr", COUNTS[:1, :, :1], unit=None)
    assert read(path).pixel_size_um is None


def test_the_images_of_bioformats2raw_are_scenes(tmp_path: Path) -> None:
    """It writes each series of a file into a folder named by a number."""
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    for number in range(2):
        write_zarr(folder / str(number), COUNTS[:1, :, number : number + 1])
    attributes = {"ome": {"version": "0.5", "bioformats2raw.layout": 3}}
    text = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (folder / "zarr.json").write_text(json.dumps(text))
    np.testing.assert_array_equal(read(folder, scene=1).data, COUNTS[0, :, 1])
    np.testing.assert_array_equal(read(folder, scene="0").data, COUNTS[0, :, 0])
    with pytest.raises(DataError, match="holds 2 scenes"):
        read(folder)


def test_a_missing_reader_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The readers are large, and one is under the GPL, so nobody gets them unasked."""
    for name in ("a.czi", "a.nd2", "a.lif"):
        (tmp_path / name).write_bytes(b"\x70\0\0\0")
        monkeypatch.setitem(sys.modules, f"bioio_{name[2:]}", None)
        with pytest.raises(ConfigError, match=rf"microscopy\[{name[2:]}\]"):
            read(tmp_path / name)


def test_a_zarr_of_no_microscope_is_refused(tmp_path: Path) -> None:
    """It states no image; other sensors read such stores."""
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("bioio_ome_zarr")
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    with pytest.raises(DataError, match="--modality multispectral"):
        read(tmp_path / "a.zarr")


def test_a_scene_of_an_absurd_number_is_refused(tmp_path: Path) -> None:
    """The library that opens a CZI goes through all numbers up to it, until memory runs out."""
    path = write_czi(tmp_path / "a.czi")
    content = path.read_bytes()
    directory = content.index(b"ZISRAWDIRECTORY")
    scene = content.index(b"S\0\0\0", directory + 160)
    damaged = struct.pack("<ii", 2_130_706_432, 1)
    path.write_bytes(content[: scene + 4] + damaged + content[scene + 12 :])
    with pytest.raises(DataError, match="2130706432"):
        read(path, t=0, z=0)


def test_a_czi_without_planes_is_refused(tmp_path: Path) -> None:
    """The library that opens a CZI would end the process."""
    path = write_czi(tmp_path / "a.czi")
    content = bytearray(path.read_bytes())
    directory = content.index(b"ZISRAWDIRECTORY")
    content[directory + 32 : directory + 36] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(DataError, match="list of planes"):
        read(path, t=0, z=0)


class _Model:
    """The object model of bioio's readers, with what a file of one kind states."""

    current_scene_index = 0
    dtype = np.dtype(np.uint16)

    def __init__(
        self, order: str, shape: tuple[int, ...], sizes: Any, **others: Any
    ) -> None:
        self.scenes = ("one", "two")
        self.dims = SimpleNamespace(order=order, shape=shape)
        self.physical_pixel_sizes = sizes
        self.channel_names = others.get("names")
        channels = []
        for nm in others.get("emissions", ()):
            quantity = None
            if nm is not None:
                quantity = SimpleNamespace(
                    to=lambda _, nm=nm: SimpleNamespace(magnitude=nm)
                )
            channels.append(SimpleNamespace(emission_wavelength_quantity=quantity))
        pixels = SimpleNamespace(channels=channels)
        self.ome_metadata = SimpleNamespace(images=[SimpleNamespace(pixels=pixels)])

    def set_scene(self, number: int) -> None:
        self.current_scene_index = number


def _opened(path: Path, model: _Model, monkeypatch: pytest.MonkeyPatch) -> BioioFile:
    path.write_bytes(b"\x70\0\0\0")
    monkeypatch.setattr(readers, "_is_calibrated", lambda _: True)
    monkeypatch.setattr(readers, "_reader", lambda *_: lambda _: model)
    return BioioFile(path)


def test_emissions_are_those_of_the_readers_ome_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ND2 or LIF with emissions could be made here: this is what their readers return, not a file."""
    size = SimpleNamespace(Z=None, Y=0.3, X=0.3)
    names = ["Hoechst 33342", "GFP", "GFP"]
    model = _Model(
        "TCZYX", (4, 3, 5, 8, 9), size, names=names, emissions=[461.0, None, 0.0]
    )
    scene = _opened(tmp_path / "a.nd2", model, monkeypatch).scene(1)
    assert model.current_scene_index == 1
    assert [one.name for one in scene.channels] == ["hoechst-33342", "gfp", "gfp-2"]
    assert [one.wavelength_um for one in scene.channels] == [0.461, None, None]
    assert (scene.times, scene.slices, scene.size_hw) == (4, 5, (8, 9))
    assert scene.pixel_size_um == (0.3, 0.3)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_that_is_no_length_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: float
) -> None:
    """Areas would be wrong in silence."""
    model = _Model("YX", (8, 9), SimpleNamespace(Z=None, Y=size, X=0.3))
    with pytest.raises(DataError, match="not a length"):
        _opened(tmp_path / "a.lif", model, monkeypatch).scene(0)


def test_an_unknown_axis_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the tiles of a mosaic."""
    size = SimpleNamespace(Z=None, Y=None, X=None)
    model = _Model("MYX", (7, 8, 9), size)
    with pytest.raises(DataError, match="further axes"):
        _opened(tmp_path / "a.lif", model, monkeypatch).scene(0)


def _data_set(folder: Path) -> Path:
    """Write a set of two kinds of files, in which one bright square is the object."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(8):
        planes = COUNTS[:1, :, :1] // 8
        mask = np.zeros(planes.shape[-2:], np.uint8)
        mask[4:12, number : number + 9] = 1
        planes = planes + 40000 * mask.astype(np.uint16)
        if number % 2:
            write_zarr(folder / "images" / f"{number}.ome.zarr", planes)
        else:
            tifffile.imwrite(
                folder / "images" / f"{number}.ome.tif",
                planes[0, :, 0],
                ome=True,
                photometric="minisblack",
                metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}},
            )
        tifffile.imwrite(folder / "masks" / f"{number}.tif", mask)
    return folder


def test_from_a_folder_of_files_to_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is an image is trained on, found in a folder, and given by itself, like any file."""
    data = _data_set(tmp_path / "data")
    out = str(tmp_path / "run")
    words = ["--modality", "microscopy", "--data", str(data), "--out", out]
    small = (
        "--foundation tiny --image-size 32 --steps 2 --batch-size 2 --regions instances"
    )
    assert run(["train", *words, *small.split(), "--no-pictures"]) == 0
    bundle = str(tmp_path / "run" / "bundle.safetensors")
    found = tmp_path / "found"
    images = str(data / "images")
    assert run(["predict", bundle, images, "--everything", "--out", str(found)]) == 0
    assert {file.stem for file in found.glob("?.json")} == set("01234567")
    one = str(data / "images" / "1.ome.zarr")
    alone = tmp_path / "alone"
    assert run(["predict", bundle, one, "--point", "9,9", "--out", str(alone)]) == 0
    assert (alone / "1_mask.png").is_file()
    capsys.readouterr()
    shutil.rmtree(data / "images" / "1.ome.zarr" / "0")
    never = tmp_path / "never"
    assert run(["predict", bundle, one, "--point", "9,9", "--out", str(never)]) == 2
    assert "1.ome.zarr: damaged or cut short" in capsys.readouterr().err
    assert not list(never.glob("*"))
    assert (
        run(["predict", bundle, "no.zarr", "--point", "9,9", "--out", str(never)]) == 2
    )
    assert "no.zarr" in capsys.readouterr().err


def change_head(store: Path, version: int, shape: list[int], chunks: list[int]) -> None:
    """State another shape and other chunks of the full-size image."""
    head = store / "0" / (".zarray" if version == 2 else "zarr.json")
    stated = json.loads(head.read_text())
    stated["shape"] = shape
    if version == 2:
        stated["chunks"] = chunks
    else:
        stated["chunk_grid"]["configuration"]["chunk_shape"] = chunks
    head.write_text(json.dumps(stated))


@pytest.mark.parametrize("version", [2, 3])
def test_an_ome_zarr_of_absurd_chunks_is_refused_before_it_is_opened(
    tmp_path: Path, version: int
) -> None:
    """Its reader would list them all, or inflate one that fills the memory."""
    path = write_zarr(tmp_path / "a.ome.zarr", zarr_format=version)
    change_head(path, version, [1, 1, 1, 10**9, 10**9], [1, 1, 1, 10, 10])
    with pytest.raises(DataError, match="more than 262144 chunks of a plane"):
        BioioFile(path)
    change_head(path, version, [10**9, 1, 1, 20, 20], [1, 1, 1, 20, 20])
    with pytest.raises(DataError, match="more than 262144 chunks of a plane"):
        BioioFile(path)
    change_head(path, version, [1, 1, 1, 40, 50], [1, 1, 1, 60000, 60000])
    with pytest.raises(DataError, match=r"6\.71 GiB each, more than the limit"):
        BioioFile(path)


def test_an_ome_zarr_in_parts_of_chunks_is_judged_by_its_parts(tmp_path: Path) -> None:
    """A part is what is inflated; the chunk around it may be large."""
    path = write_zarr(tmp_path / "a.ome.zarr", zarr_format=3)
    head = path / "0" / "zarr.json"
    stated = json.loads(head.read_text())
    whole = [1, 1, 1, 60000, 60000]
    stated["chunk_grid"]["configuration"]["chunk_shape"] = whole
    inside = {"chunk_shape": [1, 1, 1, 500, 500], "codecs": stated["codecs"]}
    inside["index_codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    stated["codecs"] = [{"name": "sharding_indexed", "configuration": inside}]
    head.write_text(json.dumps(stated))
    check_heads(path)
    inside["chunk_shape"] = whole
    head.write_text(json.dumps(stated))
    with pytest.raises(DataError, match="more than the limit"):
        check_heads(path)


def test_a_link_out_of_an_ome_zarr_is_refused(tmp_path: Path) -> None:
    """A chunk without compression is any file."""
    path = write_zarr(tmp_path / "a.ome.zarr")
    (path / "0").rename(tmp_path / "moved")
    (path / "0").symlink_to(tmp_path / "moved")
    with pytest.raises(DataError, match=r"a link out of a\.ome\.zarr"):
        BioioFile(path)
