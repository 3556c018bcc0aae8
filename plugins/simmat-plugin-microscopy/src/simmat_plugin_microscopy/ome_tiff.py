"""OME-TIFF through tifffile: the pages of a scene, as the OME-XML in its first page states them.

No other file is opened, also where the OME-XML names others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from simmat import SensorImage, Window
from simmat.errors import DataError, shortened
from simmat.io.files import atomic_path
from simmat.io.paths import require_file
from simmat.io.pixel_size import ome_length_um
from simmat.io.tiff import open_tiff, open_tifffile
from simmat_plugin_microscopy.scenes import Scene, checked_size_um, make_channels

_COLOURS = ("red", "green", "blue", "alpha")
_MAX_PAGES = 2**20
_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_XML_ENDS = "OME>"


class OmeTiff:
    """A TIFF whose first page has a description in OME-XML."""

    def __init__(self, path: Path) -> None:
        self.path = path
        require_file(path, "image")
        with open_tifffile(path) as tiff:
            self._offsets = _offsets(tiff)
            text = str(tiff.pages[0].aspage().description or "")
        if not text.rstrip().endswith(_XML_ENDS):
            if ".ome." in path.name.lower():
                raise DataError(
                    f"{path}: has no OME-XML, although it is named .ome.tif; it is cut short, or another program wrote "
                    "it anew: copy it again, or save it as OME-TIFF"
                )
            raise DataError(
                f"{path}: a TIFF without OME-XML, so its axes and channels are not known; use --modality gray for one "
                "plane or raster for several, or save it as OME-TIFF"
            )
        images = _children(ElementTree.fromstring(text), "Image")
        if not images:
            raise DataError(f"{path}: its OME-XML describes no image")
        self._pixels = [_children(image, "Pixels")[0] for image in images]
        self.scene_names = _names(images)

    def scene(self, number: int) -> Scene:
        """Return what the OME-XML states of a scene."""
        pixels = self._pixels[number]
        names: list[str | None] = []
        emissions: list[float | None] = []
        for channel in _channels(pixels):
            emission = ome_length_um(channel, "EmissionWavelength", "nm")
            samples = self._number(channel, "SamplesPerPixel", "1", len(_COLOURS))
            for sample in range(samples):
                name = channel.get("Name")
                if samples > 1:
                    colour = _COLOURS[sample]
                    name = f"{name} {colour}" if name else colour
                names.append(name)
                emissions.append(None if emission is None else 1000 * emission)
        count = self._number(pixels, "SizeC")
        if len(names) != count:
            if names and len(_channels(pixels)) > 1:
                raise DataError(
                    f"{self.path}: its OME-XML describes {len(names)} channels, but states that there are {count}"
                )
            names = [None] * count
            emissions = [None] * count
        sizes = []
        for axis in "ZYX":
            size = ome_length_um(pixels, f"PhysicalSize{axis}")
            sizes.append(checked_size_um(self.path, axis.lower(), size))
        return Scene(
            self.scene_names[number],
            self._number(pixels, "SizeT"),
            self._number(pixels, "SizeZ"),
            (self._number(pixels, "SizeY"), self._number(pixels, "SizeX")),
            make_channels(names, emissions),
            (sizes[0], sizes[1], sizes[2]),
        )

    def _number(
        self,
        element: ElementTree.Element,
        name: str,
        default: str = "",
        most: int = 10**9,
    ) -> int:
        """Return a number of pixels, channels, slices or times that an element states."""
        stated = element.get(name, default)
        if not re.fullmatch("[0-9]{1,10}", stated) or not 0 < int(stated) <= most:
            raise DataError(
                f"{self.path}: its OME-XML is damaged: it must state {name} as a whole number from 1 to {most}, got "
                f"{shortened(repr(stated))}; export the file again"
            )
        return int(stated)

    def read(
        self, number: int, t: int, z: int, picked: Sequence[int], window: Window
    ) -> npt.NDArray[Any]:
        """Read planes (P, h, w); a page holds one channel, or the colours of one."""
        pixels = self._pixels[number]
        scene = self.scene(number)
        pages = self._pages(pixels)
        samples = len(scene.channels) // pages.shape[2]
        wanted = sorted({channel // samples for channel in picked})
        offsets = [self._offsets[page] for page in pages[t, z, wanted].tolist()]
        image = open_tiff(self.path, offsets=tuple(offsets))
        if image.size_hw != scene.size_hw:
            raise DataError(
                f"{self.path}: its OME-XML states {scene.size_hw[1]}x{scene.size_hw[0]} pixels, its pages have "
                f"{image.size_hw[1]}x{image.size_hw[0]}"
            )
        planes = image.read(window).planes
        if len(planes) != len(wanted) * samples:
            raise DataError(
                f"{self.path}: its OME-XML states {len(scene.channels)} channels, which its pages do not have"
            )
        places = [
            wanted.index(channel // samples) * samples + channel % samples
            for channel in picked
        ]
        return planes[places]

    def _pages(self, pixels: ElementTree.Element) -> npt.NDArray[np.int64]:
        """Return (T, Z, C) the page of each plane."""
        lengths = {axis: self._number(pixels, f"Size{axis}") for axis in "TZC"}
        channels = _channels(pixels)
        samples = 1
        if channels:
            samples = self._number(channels[0], "SamplesPerPixel", "1", len(_COLOURS))
        if lengths["C"] % samples:
            raise DataError(
                f"{self.path}: its OME-XML is damaged: it states the sizes {lengths} with {samples} samples a pixel"
            )
        lengths["C"] //= samples
        count = lengths["T"] * lengths["Z"] * lengths["C"]
        if count > min(len(self._offsets), _MAX_PAGES):
            raise DataError(
                f"{self.path}: has {len(self._offsets)} of the {count} pages that its OME-XML states; it is cut short, "
                "or the rest is in other files: save all in one file"
            )
        # the first axis changes fastest
        stated = pixels.get("DimensionOrder", "")
        order = [axis for axis in stated if axis in "TZC"]
        if sorted(order) != ["C", "T", "Z"]:
            raise DataError(
                f"{self.path}: its OME-XML is damaged: it must state DimensionOrder such as 'XYCZT', got "
                f"{shortened(repr(stated))}; export the file again"
            )
        table = np.full([lengths[axis] for axis in order[::-1]], -1, np.int64)
        flat = table.reshape(-1)
        for item in _children(pixels, "TiffData"):
            self._check_own_file(item)
            first = 0
            step = 1
            for axis in order:
                first += step * int(item.get(f"First{axis}", 0))
                step *= lengths[axis]
            page = int(item.get("IFD", 0))
            planes = int(item.get("PlaneCount", 1 if "IFD" in item.attrib else count))
            end = min(first + planes, count)
            if not 0 <= first < end or page < 0:
                raise DataError(
                    f"{self.path}: its OME-XML is damaged: it places pages beyond its planes"
                )
            flat[first:end] = np.arange(page, page + end - first)
        if flat.min() < 0 or flat.max() >= len(self._offsets):
            raise DataError(
                f"{self.path}: some planes have no page; it is cut short, or they are in other files: save all in "
                "one file"
            )
        return np.transpose(table, [order[::-1].index(axis) for axis in "TZC"])

    def _check_own_file(self, item: ElementTree.Element) -> None:
        for uuid in _children(item, "UUID"):
            name = uuid.get("FileName", self.path.name)
            if name != self.path.name:
                raise DataError(
                    f"{self.path}: its OME-XML says that planes are in the file {name!r}; give a renamed "
                    "file its name again, or save all planes in one file"
                )


def write_ome_tiff(path: Path, image: SensorImage, planes: npt.NDArray[Any]) -> None:
    """Write planes (C, H, W) with the channels and the pixel size of an image; equal ones give equal bytes."""
    import tifffile

    count, height, width = planes.shape
    root = ElementTree.Element("OME", xmlns=_SCHEMA)
    of_image = ElementTree.SubElement(root, "Image", ID="Image:0")
    stated = {
        "ID": "Pixels:0",
        "DimensionOrder": "XYCZT",
        "Type": {"float32": "float"}.get(planes.dtype.name, planes.dtype.name),
        "SizeX": str(width),
        "SizeY": str(height),
        "SizeC": str(count),
        "SizeZ": "1",
        "SizeT": "1",
    }
    if image.pixel_size_um is not None:
        for axis, size in zip("YX", image.pixel_size_um, strict=True):
            stated[f"PhysicalSize{axis}"] = repr(size)
            stated[f"PhysicalSize{axis}Unit"] = "µm"
    pixels = ElementTree.SubElement(of_image, "Pixels", stated)
    for number, channel in enumerate(image.channels):
        item = {"ID": f"Channel:0:{number}", "SamplesPerPixel": "1"}
        if not re.fullmatch(r"band\d+", channel.name):
            item["Name"] = channel.name
        if channel.wavelength_um is not None:
            item["EmissionWavelength"] = f"{1000 * channel.wavelength_um:.7g}"
            item["EmissionWavelengthUnit"] = "nm"
        ElementTree.SubElement(pixels, "Channel", item)
    ElementTree.SubElement(pixels, "TiffData", IFD="0", PlaneCount=str(count))
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            planes,
            photometric="minisblack",
            compression="zlib",
            predictor=planes.dtype.kind in "ui",
            description=ElementTree.tostring(root, "UTF-8", xml_declaration=True),
            metadata=None,
            # with `metadata`: no date and version, so equal planes give equal bytes
            software=False,
        )


def _offsets(tiff: Any) -> list[int]:
    """Return where the top pages start."""
    count = len(tiff.pages)
    if count > _MAX_PAGES:
        raise ValueError(f"{count} pages")
    offsets = []
    for number in range(count):
        page = tiff.pages[number]
        offsets.append(int(page if isinstance(page, int) else page.offset))
    return offsets


def _children(parent: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in parent if child.tag.rpartition("}")[2] == name]


def _channels(pixels: ElementTree.Element) -> list[ElementTree.Element]:
    return _children(pixels, "Channel")


def _names(images: Sequence[ElementTree.Element]) -> tuple[str, ...]:
    """Return the names of the scenes; their ids if two have one name, or none."""
    names = [image.get("Name") or "" for image in images]
    if "" in names or len(set(names)) < len(names):
        names = [
            image.get("ID", f"Image:{place}") for place, image in enumerate(images)
        ]
    return tuple(names)
