"""The engine of the page computes what Python computes: windows, clicks, files, warnings and measurements."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zlib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from installed import SHARED_DATA
from mock_page import WEB
from page_cases import ask, results
from simmat_plugin_measure.measuring import measure
from simmat_runtime import everything, letterbox, windows

from simmat.data.instances import region_from_mask
from simmat.data.pipeline import Pipeline
from simmat.predictor.input_check import domain_shift_warning
from simmat.sensors.adapter import ModalityAdapter, load_sample
from simmat.sensors.builtin import Gray, Raster
from simmat.sensors.contract import ImageValues, InputContract
from simmat.sensors.sensor_toml import TomlModality, parse_sensor_definition
from simmat.types import Channel, SensorImage

RNG = np.random.default_rng(0)
KELVIN = Channel("thermal", "brightness_temperature", "K", valid_range=(150.0, 2500.0))


def test_no_modules_import_each_other_in_a_circle() -> None:
    """A module can be read after those that it imports."""
    source = WEB / "src"
    imports = {}
    for file in source.rglob("*.ts"):
        named = re.findall(r'from "(\.[^"]+)"', file.read_text(encoding="utf-8"))
        paths = [(file.parent / name).resolve() for name in named]
        imports[file] = [path.with_name(f"{path.name}.ts") for path in paths]
    order = list(TopologicalSorter(imports).static_order())
    assert order.index(source / "engine.ts") < order.index(source / "page/main.ts")


def test_images_are_cut_into_the_same_windows() -> None:
    """Another window would see an object in another resolution."""
    plans = [((1000, 1717), 640, 80), ((300, 300), 640, 80), ((4000, 3999), 513, 64)]
    prompts = [
        ((900.0, 40.0), (950.0, 60.0), (1000, 1717), 320),
        ((10.0, 10.0), (1500.0, 900.0), (1000, 1717), 320),
    ]
    found = results(
        [("planWindows", plan) for plan in plans]
        + [("promptWindows", prompt) for prompt in prompts]
    )
    expected: list[Any] = [windows.plan_windows(*plan) for plan in plans]
    for low, high, size, tile in prompts:
        expected.append(
            list(windows.prompt_windows(np.array(low), np.array(high), size, tile))
        )
    assert [[tuple(one) for one in plan] for plan in found] == expected


def test_clicks_and_masks_are_chosen_alike() -> None:
    """The same clicks find the same objects."""
    box = letterbox.Letterbox((480, 640), 256)
    distance = RNG.random((12, 17), np.float32)
    part = np.zeros((12, 17), np.bool_)
    part[2:4, 3:5] = True
    masks = RNG.random((6, 9, 9)) > 0.4
    scores = [0.9, 0.8, 0.8, 0.7, 0.95, 0.6]
    low = RNG.standard_normal((5, 7)).astype(np.float32)
    points, peaks, kept, large = results(
        [
            ("gridPoints", [(480, 640), 256, "pad"]),
            ("clickPlaces", [distance.tolist(), [part.astype(int).tolist()]]),
            ("suppress", [masks.astype(int).tolist(), scores, 0.5]),
            ("resized", [low.tolist(), [11, 13]]),
        ]
    )
    expected = everything.coarse_first(everything.grid_points(box))
    np.testing.assert_array_equal(np.array(points, np.float32), expected)
    expected = everything.click_places(distance, part[None], min_peak=0.3, window=5)
    np.testing.assert_array_equal(np.array(peaks, np.float32), expected)
    assert kept == everything.suppress(masks, scores, 0.5)
    expected = letterbox.resized(low[None], (11, 13))
    np.testing.assert_allclose(
        np.array(large, np.float32).reshape(1, 11, 13), expected, atol=1e-6
    )


def _image(*, gaps: bool = True) -> SensorImage:
    data = 290 + 5 * RNG.standard_normal((1, 60, 80))
    data[0, 20:40, 30:55] += 10
    if gaps:
        data[0, 25, 30:40] = np.nan
    return SensorImage.from_planes(data, (KELVIN,))


def _sent(image: SensorImage) -> dict[str, Any]:
    """Return an image as the engine's cases take it."""
    planes = np.where(image.valid, image.data, np.float32(np.nan)).astype(object)
    planes[~image.valid] = None
    height, width = image.size_hw
    return {
        "channels": [
            {
                "name": one.name,
                "quantity": one.quantity,
                "unit": one.unit,
                "validRange": one.valid_range,
            }
            for one in image.channels
        ],
        "height": height,
        "width": width,
        "planes": planes.reshape(len(planes), -1).tolist(),
    }


def test_objects_are_measured_alike() -> None:
    """The table of the page has the columns and numbers of `simmat measure`."""
    image = _image()
    y, x = np.mgrid[:60, :80]
    masks = [
        (y - 30) ** 2 / 90 + (x - 40) ** 2 / 150 < 1,
        (np.abs(y - 30) + np.abs(x - 52) < 9),
        (y < 9) & (x > 70) & (y + x > 75),
        (y == 50) & (x > 10) & (x < 20),
        (y - 30) ** 2 + (x - 40) ** 2 < 16,
    ]
    objects = []
    for mask in masks:
        region = region_from_mask(mask, None)
        assert region is not None
        objects.append(region)
    expected = measure(image, objects)
    sent = [
        {"window": list(one.window), "crop": one.crop.astype(int).tolist()}
        for one in objects
    ]
    (found,) = results([("measure", [_sent(image), sent])])
    assert tuple(one["name"] for one in found["columns"]) == expected.columns
    values = np.array(found["rows"], np.float64)
    np.testing.assert_allclose(values, expected.values, rtol=1e-6, atol=1e-6)


def test_the_same_faults_are_named() -> None:
    """A gain, an offset, swapped channels and a fill value are warned of as in Python, and good images are not."""
    channels = (Channel("a", "counts", "count"), Channel("b", "counts", "count"))

    def photo(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        level = rng.uniform(0.9, 1.1)
        first = rng.gamma(4, 60 * level, (1, 50, 60))
        return np.concatenate(
            [first, 900 + 0.5 * first + rng.normal(0, 20, first.shape)]
        )

    known = [
        ImageValues.of_image(SensorImage.from_planes(photo(seed), channels))
        for seed in range(30)
    ]
    contract = InputContract.of(
        channels,
        np.stack([one.quantiles for one in known]),
        np.stack([one.correlation for one in known]),
    )
    assert contract is not None
    good = photo(100)
    filled = good.copy()
    filled[0, :10] = -30000
    images = [
        SensorImage.from_planes(values, channels)
        for values in (good, good * 4, good + 500, good[::-1], filled)
    ]
    document = contract.model_dump()
    found = results([("contract", [document, _sent(image)]) for image in images])
    for image, text in zip(images, found, strict=True):
        faults = contract.check([image])
        assert bool(text) == bool(faults)
        for fault in faults:
            assert all(repr(name) in text for name in fault.channels)
            assert fault.text.partition("(")[0].split("about")[0] in text
    assert found[0] == ""
    assert all(found[1:])


def test_values_of_another_scale_are_named_alike() -> None:
    """Counts of 16 bits for a model of 8 bits, and an empty scene."""
    channels = (Channel("thermal", "counts", "count", mean=110.6, std=52.81),)
    pipeline = Pipeline(Gray(), channels, 64)
    seen = [
        RNG.normal(110, 50, (1, 40, 60)),
        RNG.uniform(29000, 32000, (1, 40, 60)),
        110 + RNG.uniform(0, 0.1, (1, 40, 60)),
    ]
    images = [SensorImage.from_planes(values, channels) for values in seen]
    spread = {
        "name": "thermal",
        "mean": 110.6,
        "std": 52.81,
        "text": "110.6 ± 52.81 count",
    }
    found = results([("spread", [[spread], _sent(image)]) for image in images])
    assert found == [
        domain_shift_warning(pipeline(image), channels) for image in images
    ]
    assert [bool(text) for text in found] == [False, True, True]


def _described(
    sensor: ModalityAdapter, channels: tuple[Channel, ...]
) -> dict[str, Any]:
    definition = None
    if sensor.definition is not None:
        definition = sensor.definition.model_dump(mode="json")
    found = [
        {
            "name": one.name,
            "quantity": one.quantity,
            "unit": one.unit,
            "valid_range": None,
        }
        for one in channels
    ]
    return {"name": sensor.name, "definition": definition, "channels": found}


def _read_alike(sensor: ModalityAdapter, file: Path, **options: Any) -> None:
    given = {sensor.name: options} if options else {}
    image = load_sample(sensor.with_options(given), {sensor.sources[0].name: file})
    content = base64.b64encode(file.read_bytes()).decode("ascii")
    # the page has a field of text for each option
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in options.items()
    }
    case = [_described(sensor, image.channels), file.name, content, texts]
    (found,) = results([("read", case)])
    count = len(image.channels)
    planes = np.array(found["planes"], np.float32)
    np.testing.assert_array_equal(planes, image.data.reshape(count, -1))
    np.testing.assert_array_equal(
        np.array(found["valid"], np.bool_), image.valid.reshape(count, -1)
    )


def _png(values: np.ndarray, depth: int) -> bytes:
    height, width = values.shape
    bits = np.unpackbits(
        values.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=2
    )
    rows = np.packbits(bits[:, :, 16 - depth :].reshape(height, -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        digest = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", digest)

    parts = (
        chunk(b"IHDR", head),
        chunk(b"IDAT", zlib.compress(raw)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_png_keeps_all_its_bits(tmp_path: Path, depth: int) -> None:
    """A browser's own decoder would cut 16 bits to 8."""
    file = tmp_path / "a.png"
    file.write_bytes(_png(RNG.integers(0, 2**depth, (9, 13)), depth))
    _read_alike(Gray(), file)


@pytest.mark.parametrize(
    "kind", ["uint8", "uint16", "int16", "int32", "float32", "float64"]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "tile": (16, 16)},
        {"planarconfig": "separate"},
        {"compression": "lzw", "planarconfig": "separate"},
    ],
    ids=["plain", "deflate", "tiles", "separate", "lzw"],
)
def test_a_tiff_of_any_planes_and_type_is_read(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    """Sensors' own files have many planes of many types."""
    values = RNG.integers(0, 120, (5, 37, 41)).astype(kind)
    separate = options.get("planarconfig") == "separate"
    file = tmp_path / "a.tif"
    tifffile.imwrite(
        file,
        values if separate else np.moveaxis(values, 0, 2),
        photometric="minisblack",
        **{"planarconfig": "contig", **options},
        extratags=[(42113, "s", 0, "7", True)],
    )
    _read_alike(Raster(), file)


def test_an_array_is_read_with_its_missing_pixels(tmp_path: Path) -> None:
    """npy is the format of those who compute."""
    for number, order in enumerate("CF"):
        values = np.asarray(RNG.standard_normal((3, 11, 7)), np.float32, order=order)
        values[0, 2] = np.nan
        np.save(tmp_path / f"{number}.npy", values)
        _read_alike(Raster(), tmp_path / f"{number}.npy", nodata="0.5")


def test_units_mean_the_same(tmp_path: Path) -> None:
    """Counts in 1/100 kelvin are the same kelvin on the page, whether file or user state the unit."""
    thermal = pytest.importorskip("simmat_plugin_thermal.adapter").Thermal()
    counts = RNG.integers(28000, 31000, (8, 9)).astype(np.uint16)
    counts[0, 0] = 0
    tifffile.imwrite(tmp_path / "said.tif", counts, description='{"unit": "cK"}')
    tifffile.imwrite(tmp_path / "plain.tif", counts)
    _read_alike(thermal, tmp_path / "said.tif")
    _read_alike(thermal, tmp_path / "plain.tif", unit="cK")
    _read_alike(thermal, tmp_path / "plain.tif")


def test_depth_is_the_same_distance(tmp_path: Path) -> None:
    """Integers are millimetres unless file or user say otherwise; 0 and 65535 are no return."""
    depth = pytest.importorskip("simmat_plugin_depth.depth").Depth()
    stored = RNG.integers(400, 60000, (8, 9)).astype(np.uint16)
    stored[0, :2] = 0, 65535
    metres = stored / np.float32(1000)
    metres[1, 1] = np.nan
    (tmp_path / "mm.png").write_bytes(_png(stored, 16))
    tifffile.imwrite(tmp_path / "cm.tif", stored, description='{"unit": "cm"}')
    np.save(tmp_path / "m.npy", metres)
    _read_alike(depth, tmp_path / "mm.png")
    _read_alike(depth, tmp_path / "mm.png", unit="tum")
    _read_alike(depth, tmp_path / "mm.png", unit="kitti", nodata="500")
    _read_alike(depth, tmp_path / "cm.tif")
    _read_alike(depth, tmp_path / "m.npy")


def test_bands_have_the_same_names_scales_and_gaps(tmp_path: Path) -> None:
    """A GeoTIFF says in GDAL's tags what its bands are."""
    adapter = pytest.importorskip("simmat_plugin_multispectral.adapter")
    geotiff = pytest.importorskip("simmat_plugin_geo.geotiff")
    sensor = adapter.Multispectral()
    stored = RNG.integers(1, 9000, (3, 8, 9)).astype(np.uint16)
    stored[:, 0, 0] = 0
    said = [
        geotiff.BandTags("Near IR, 842 nm", "reflectance", 1e-4, -0.1),
        geotiff.BandTags("radiance", "W/m2"),
        geotiff.BandTags("", "", 0.5, 0.0),
    ]
    geotiff.write_geotiff(tmp_path / "said.tif", stored, bands=said, nodata=0)
    geotiff.write_geotiff(tmp_path / "plain.tif", stored)
    _read_alike(sensor, tmp_path / "said.tif")
    _read_alike(sensor, tmp_path / "plain.tif", nodata="0")
    _read_alike(sensor, tmp_path / "plain.tif", scale=0.0001, offset=-0.1)


@pytest.mark.parametrize(
    ("sensor", "names", "options"),
    [
        ("Sentinel2", ["B02", "B8A", "SWIR1"], {}),
        ("Sentinel2", ["B2, central wavelength 490 nm", "B12"], {"boa_offset": True}),
        ("Landsat8", ["SR_B5", "SR_B4"], {}),
        ("Landsat8", [""] * 7, {}),
        ("Landsat8", [f"Band {number}" for number in range(1, 8)], {}),
    ],
    ids=["sentinel2", "offset", "landsat8", "plain", "counted"],
)
def test_the_bands_of_a_satellite_are_the_same(
    tmp_path: Path, sensor: str, names: list[str], options: dict[str, Any]
) -> None:
    """Their names, scale and fill value are those of the product, whoever wrote the file."""
    adapter = pytest.importorskip("simmat_plugin_multispectral.adapter")
    geotiff = pytest.importorskip("simmat_plugin_geo.geotiff")
    stored = RNG.integers(7500, 12000, (len(names), 8, 9)).astype(np.uint16)
    stored[0, 0, :3] = 0
    file = tmp_path / "a.tif"
    said = [geotiff.BandTags(name) for name in names]
    geotiff.write_geotiff(file, stored, bands=said)
    _read_alike(getattr(adapter, sensor)(), file, **options)


def test_a_described_sensor_reads_alike(tmp_path: Path) -> None:
    """A sensor.toml is data, so that the page needs no code for it."""
    channels = [
        {
            "name": "b",
            "quantity": "q",
            "unit": "m",
            "band": 2,
            "scale": 0.5,
            "offset": 1.0,
        },
        {"name": "a", "quantity": "q", "unit": "count", "plane": 0, "nodata": [3]},
    ]
    document = {
        "format": 1,
        "name": "pair",
        "source": [{"files": "*.tif"}],
        "channel": channels,
    }
    tifffile.imwrite(
        tmp_path / "a.tif",
        RNG.integers(0, 9, (2, 8, 9)).astype(np.uint16),
        photometric="minisblack",
    )
    _read_alike(
        TomlModality(parse_sensor_definition(document, "test")), tmp_path / "a.tif"
    )


DATA = SHARED_DATA / "radiometric-jpeg"


@pytest.mark.parametrize("name", ["FLIR_E40.jpg", "DJI_XT2.jpg", "M3T_DJI_0001_R.JPG"])
def test_a_radiometric_jpeg_gives_the_same_temperatures(name: str) -> None:
    """The picture's colours are no temperatures; the raw image inside is."""
    thermal = pytest.importorskip("simmat_plugin_thermal.adapter").Thermal()
    if not (DATA / name).is_file():
        pytest.skip(f"{DATA / name} is not there")
    _read_alike(thermal, DATA / name)


def _bomb() -> bytes:
    """Return a small TIFF that claims 65536 x 65536 pixels."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((4, 4), np.uint8))
    content = bytearray(stream.getvalue())
    directory = struct.unpack_from("<I", content, 4)[0]
    for entry in range(directory + 2, len(content) - 12, 12):
        if struct.unpack_from("<H", content, entry)[0] in (256, 257):
            # width and height, as one 32-bit number
            struct.pack_into("<HII", content, entry + 2, 4, 1, 65536)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (_bomb(), "bomb.tif", "65536 x 65536"),
        (_png(np.zeros((9, 9), int), 8)[:45], "cut.png", "damaged or cut short"),
        (b"", "empty.png", "empty"),
        (b"II*\0\x08\0\0\0", "head.tif", "damaged or cut short"),
        (b"hello, world", "text.png", "not a file of PNG"),
    ],
    ids=["bomb", "cut", "empty", "head", "text"],
)
def test_a_bad_file_gets_one_clear_error(content: bytes, name: str, says: str) -> None:
    """The user can do something about it, so it is no fault of the page."""
    sensor = _described(Gray(), Gray().channels)
    text = base64.b64encode(content).decode("ascii")
    (found,) = ask([("read", [sensor, name, text, {}])])
    assert found["kind"] == "UserError"
    assert name in found["error"]
    assert says in found["error"]


GDAL_METADATA = 42112
MANY = 2**21
PATIENCE_S = 300
"""Seconds in which a text of `MANY` letters is read; a search that goes back at each letter needs an hour."""


def _noted(description: str, metadata: str) -> bytes:
    """Return a small TIFF with these texts."""
    stream = io.BytesIO()
    tags = [(GDAL_METADATA, "s", 0, metadata, True)]
    values = np.zeros((4, 4), np.uint8)
    tifffile.imwrite(
        stream, values, description=description, metadata=None, extratags=tags
    )
    return stream.getvalue()


@pytest.mark.parametrize(
    ("description", "metadata"),
    [
        ("", "<Item" + " " * MANY),
        ("", "<Item " * (MANY // 6)),
        ("", f"<Item {'a' * MANY}>1</Item>"),
        ("", f'<Item name="{"a=" * (MANY // 2)}'),
        ("", "<Item name='" + "\0" * MANY + "'>"),
        ("<OME>" + "<Pixels " * (MANY // 8), ""),
        ("\0" * MANY + "a", ""),
    ],
    ids=["spaces", "items", "word", "unclosed", "zeros", "pixels", "description"],
)
def test_a_hostile_text_is_read_once(description: str, metadata: str) -> None:
    """Each text is as long as a photo; the worker would not answer for hours if it searched from each letter."""
    content = base64.b64encode(_noted(description, metadata)).decode("ascii")
    case = ("read", [_described(Gray(), Gray().channels), "a.tif", content, {}])
    (found,) = ask([case], timeout_s=PATIENCE_S)
    assert found["result"]["planes"] == [[0.0] * 16]


@pytest.mark.parametrize("description", ["{}a", "band{}x"])
def test_a_hostile_description_of_a_band_is_read_once(description: str) -> None:
    """Zeros may stand before the number of a band, and are no reason to start again at each of them."""
    adapter = pytest.importorskip("simmat_plugin_multispectral.adapter")
    sensor = adapter.Landsat8()
    text = description.format("0" * MANY + "-")
    item = f'<Item name="DESCRIPTION" sample="0" role="description">{text}</Item>'
    content = base64.b64encode(_noted("", item)).decode("ascii")
    case = ("read", [_described(sensor, ()), "a.tif", content, {}])
    (found,) = ask([case], timeout_s=PATIENCE_S)
    assert "bands are described as" in found["error"]
    assert len(found["error"]) < 1000


def test_items_of_a_file_are_found_beside_other_text() -> None:
    """Metadata that another program wrote has other elements, unknown items and items of all bands."""
    stored = np.arange(1, 9, dtype=np.uint8).reshape(2, 2, 2)
    stream = io.BytesIO()
    text = (
        '<GDALMetadata>< <Items><Item>x</Item><Item name="S" role="scale">3</Item>'
        '<Item a role="scale" ="" name="T" sample="1">0.5</Item>\n<Item name="U" sample="7" role="offset">9</Item>'
        '<Item\tname="V" role="offset" sample="0">&quot;</Item><Item name="W" role="offset" sample="0">2</Item>'
        '<Item name="DESCRIPTION" sample="0" role="description">a</Item><Item name="open"'
    )
    tifffile.imwrite(
        stream,
        stored,
        photometric="minisblack",
        planarconfig="contig",
        extratags=[(GDAL_METADATA, "s", 0, text, True)],
    )
    adapter = pytest.importorskip("simmat_plugin_multispectral.adapter")
    sensor = adapter.Multispectral()
    channels = (Channel("a", "scaled", "1"), Channel("band1", "scaled", "1"))
    content = base64.b64encode(stream.getvalue()).decode("ascii")
    (found,) = results([("read", [_described(sensor, channels), "a.tif", content, {}])])
    assert found["planes"] == [[5.0, 11.0, 17.0, 23.0], [1.0, 2.0, 3.0, 4.0]]


def test_a_file_of_another_sensor_is_refused() -> None:
    """Three planes are no grey image."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((3, 4, 4), np.uint8), photometric="minisblack")
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    (found,) = ask([("read", [_described(Gray(), Gray().channels), "a.tif", text, {}])])
    assert "needs one plane, got 3" in found["error"]
