"""Segment one image without prompts, and write its files: objects, class map, and a json record of the request."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.cli.records import (
    digest_of,
    files_key,
    foreign_file,
    is_written,
    read_record,
    record_of,
    written_files,
)
from simmat.data.instances import FoundObject
from simmat.errors import ConfigError
from simmat.inference.coco import object_records
from simmat.inference.formats import ChosenFormats, write_result
from simmat.inference.result import BAND_ROWS, ImageResult, label_bands
from simmat.io.files import atomic_write_json, staged_files
from simmat.io.files.system import output_errors, release_pages
from simmat.predictor.large import LargeImage, Segmentation
from simmat.predictor.reading import FileImage
from simmat.predictor.window_results import SegmentOptions, WindowResult, WindowStore
from simmat.specs import ResultKind
from simmat.types import OverviewReader, SensorImage, Window

if TYPE_CHECKING:
    from simmat.predictor import Predictor
    from simmat.report.colour_maps import PictureArray

_SHARE_ROWS = 64
"""Rows of a class map that are measured at once: a pixel of a map in degrees has another size in each row."""
_PICTURE_PX = 2048
"""Longest side of the picture under an overlay, in pixels."""


@dataclass(frozen=True)
class Job:
    """What to do with each image of a call.

    Attributes:
        wanted: what to look for.
        formats: formats of the files.
        out: folder of the results.
        classes: label values to keep; None for all.
        min_score: smallest score of an object; None for all objects.
        missing: names or indices of the channels that the images lack.
        tile: side of a window in pixels; None chooses it.
        overlap: overlap of windows in pixels; None chooses it.
        mosaic: the files of an image are the tiles of one map, not the sources of a sensor.
    """

    wanted: SegmentOptions
    formats: ChosenFormats
    out: Path
    classes: frozenset[int] | None = None
    min_score: float | None = None
    missing: tuple[str | int, ...] = ()
    tile: int | None = None
    overlap: int | None = None
    mosaic: bool = False

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of the files of an image."""
        return (".json", *self.formats.endings(self.kinds))

    @property
    def kinds(self) -> tuple[ResultKind, ...]:
        """What is looked for."""
        return kinds_of(self.wanted)


def kinds_of(wanted: SegmentOptions) -> tuple[ResultKind, ...]:
    """Return the kinds of results of a question."""
    kinds: list[ResultKind] = ["objects"] if wanted.objects is not None else []
    return (*kinds, "classes") if wanted.classes else tuple(kinds)


class Segmenter:
    """Segments images with one model, and writes the files of each."""

    def __init__(self, predictor: Predictor, job: Job, model: str | None = None) -> None:
        self._predictor, self._job = predictor, job
        self._model = model or predictor.digest

    @property
    def wanted(self) -> SegmentOptions:
        """What to look for."""
        return self._job.wanted

    def is_done(self, name: str, files: Mapping[str, Path]) -> bool:
        """Return whether an earlier call did the same, and all its files still exist."""
        return is_written(self._job.out, name, self._request(files))

    def shared_windows(self, files: Mapping[str, Path]) -> int:
        """Return the number of windows that can be read separately; 1 if the image is read as a whole."""
        if self._job.mosaic:
            return len(self.open(files).windows)
        size_hw = self._predictor.adapter.window_size(files)
        if size_hw is None or max(size_hw) <= self._predictor.tile_of(size_hw):
            return 1
        return len(self.open(files).windows)

    def open(self, files: Mapping[str, Path]) -> LargeImage:
        """Open an image."""
        job = self._job
        if job.mosaic:
            tiles = list(files.values())
            image = self._predictor.open_mosaic(tiles, missing=job.missing, tile=job.tile, overlap=job.overlap)
        else:
            image = self._predictor.open_image(files, missing=job.missing, tile=job.tile, overlap=job.overlap)
        for kind in job.kinds:
            job.formats.for_image(kind, image.reader)  # raises before any work
        return image

    def store(self, name: str, files: Mapping[str, Path], image: LargeImage) -> WindowStore:
        """Open the folder that stores the answers of the windows of an image."""
        job = self._job
        key = [self._model, files_key(files), repr(job.wanted), list(job.missing), image.tile, image.overlap]
        return WindowStore.open(job.out / f".{name}.windows", json.dumps(key))

    def joined(self, image: LargeImage, answers: Iterable[WindowResult], folder: Path | None) -> Segmentation:
        """Join the answers of all windows of an image; with `folder`, a class map is stored there, not in memory."""
        wanted = self._job.wanted
        classes = _class_map(image, folder) if wanted.classes else None
        return image.merge(answers, wanted, classes=classes)

    def write(self, name: str, files: Mapping[str, Path], image: LargeImage, joined: Segmentation) -> str:
        """Write the files of an image, and return a line to print."""
        counts = {"count": joined.windows, "without_measurement": joined.empty}
        notes = {"windows": {"tile": image.tile, "overlap": image.overlap, **counts}}
        line = self.write_results(name, files, image, self._results(name, files, image, joined), notes)
        return line + (f", {joined.empty} of {joined.windows} windows without a measurement" if joined.empty else "")

    def write_results(
        self,
        name: str,
        files: Mapping[str, Path],
        image: LargeImage,
        results: Iterable[ImageResult],
        notes: Mapping[str, Any],
        request: str | None = None,
    ) -> str:
        """Write the files of an image and the json that names them, all or none, and return a line to print.

        `request` is the digest of the request; None for that of the job.
        """
        job, texts = self._job, []
        written: list[str] = []
        digest, size_hw = request or self._request(files), image.reader.size_hw
        record = {**record_of(digest, files, self._predictor, job.missing, size_hw), "mosaic": job.mosaic, **notes}
        replaced = written_files(read_record(self._record(name)), name)
        with staged_files(job.out, replaced=replaced) as staging:
            for result in results:
                written += write_result(result, job.formats.for_image(result.kind, image.reader), staging)
                if result.kind == "objects":
                    record["objects"] = object_records(result)
                    texts.append(_count_text(result))
                else:
                    record["classes"] = _shares(result)
                    texts.append(_share_text(record["classes"]))
            written.append(f"{name}.json")
            replaced |= written_files(
                read_record(self._record(name)), name
            )  # another call may have written it meanwhile
            if foreign := [file for file in written if file not in replaced and (job.out / file).exists()]:
                raise ConfigError(foreign_file(job.out / foreign[0]))
            record["written"] = list(dict.fromkeys(written))  # a GeoPackage holds both layers
            atomic_write_json(staging / f"{name}.json", record)
        return f"{self._record(name)}  {', '.join(texts)}"

    def objects_result(
        self, name: str, files: Mapping[str, Path], image: LargeImage, objects: Sequence[FoundObject]
    ) -> ImageResult:
        """Return objects of an image as a result to write."""
        found = Segmentation(list(objects), None, None, 1, 0)
        return next(iter(self._results(name, files, image, found)))

    def _results(
        self, name: str, files: Mapping[str, Path], image: LargeImage, joined: Segmentation
    ) -> Iterator[ImageResult]:
        job = self._job
        common: dict[str, Any] = {
            "name": name,
            "file_name": name if job.mosaic else str(next(iter(files.values()), name)),
            "size_hw": image.reader.size_hw,
            "georeference": image.reader.georeference,
            "class_names": self._predictor.class_names,
            "nodata": joined.nodata,
            "picture": lambda: picture(image),
        }
        if joined.objects is not None:
            kept = tuple(one for one in joined.objects if self._is_kept(one))
            yield ImageResult(**common, objects=kept, classes=None)
        if joined.classes is not None:
            classes, background = joined.classes, self._background()
            if job.classes is not None:
                _drop_classes(classes, job.classes, joined.nodata, background)
            yield ImageResult(**common, objects=None, classes=classes, background=background)

    def _is_kept(self, found: FoundObject) -> bool:
        job = self._job
        if job.min_score is not None and found.score < job.min_score:
            return False
        return job.classes is None or found.instance.class_id in job.classes

    def _background(self) -> int | None:
        dense = self._predictor.dense
        return 0 if dense is not None and dense.background else None

    def _request(self, files: Mapping[str, Path]) -> str:
        job = asdict(replace(self._job, classes=None, out=Path(), formats=ChosenFormats(())))
        job |= {"classes": sorted(self._job.classes or ()), "formats": self._job.formats.names}
        return digest_of(self._model, files_key(files), repr(job))

    def _record(self, name: str) -> Path:
        return self._job.out / f"{name}.json"


def picture(image: LargeImage) -> PictureArray:
    """Return an image as a picture (H, W, 3) of at most `_PICTURE_PX` on its longer side; it holds shown bands only."""
    from simmat.report.display import display_channels, show_channels

    reader, (height, width) = image.reader, image.reader.size_hw
    channels = reader.read(Window(0, 0, 1, 1)).channels
    shown = display_channels(channels)
    picks = sorted(set(shown))
    if isinstance(reader, FileImage):
        reader = replace(reader, adapter=reader.adapter.reading_only(picks))
    step = -(-max(height, width) // _PICTURE_PX)
    if isinstance(reader, OverviewReader):
        small = reader.read_overview(Window(0, 0, height, width), step)
        return show_channels(small.select(picks), [picks.index(index) for index in shown])
    side = max(image.tile // step, 1) * step
    data = np.zeros((len(picks), -(-height // step), -(-width // step)), np.float32)
    valid = np.zeros(data.shape, np.bool_)
    for y in range(0, height, side):
        for x in range(0, width, side):
            part = reader.read(Window(y, x, min(y + side, height), min(x + side, width)))
            where = slice(y // step, (y + side) // step), slice(x // step, (x + side) // step)
            data[:, *where], valid[:, *where] = part.data[picks, ::step, ::step], part.valid[picks, ::step, ::step]
    small = SensorImage(data, valid, tuple(channels[index] for index in picks))
    return show_channels(small, [picks.index(index) for index in shown])


def _class_map(image: LargeImage, folder: Path | None) -> npt.NDArray[Any]:
    dtype, _ = image.label_type()
    if folder is None:
        return np.zeros(image.reader.size_hw, dtype)
    size_hw = image.reader.size_hw
    with output_errors(folder), TemporaryFile(dir=folder) as stream:
        if hasattr(os, "posix_fallocate"):  # if the disk became full later, SIGBUS would end the process
            os.posix_fallocate(stream.fileno(), 0, math.prod(size_hw) * np.dtype(dtype).itemsize)
        return np.memmap(stream, dtype, "w+", shape=size_hw)


def _drop_classes(classes: npt.NDArray[Any], kept: frozenset[int], nodata: int | None, background: int | None) -> None:
    """Set the pixels of other classes to background, or to nodata if there is no background; in place."""
    values = [*kept, *([] if nodata is None else [nodata]), *([] if background is None else [background])]
    other = background if background is not None else nodata
    for y0 in range(0, len(classes), 512):
        band = classes[y0 : y0 + 512]
        band[~np.isin(band, values)] = other
        release_pages(classes)


def _shares(result: ImageResult) -> list[dict[str, Any]]:
    """Return label value, name, pixels and m² of each class in a class map."""
    counts: dict[int, int] = {}
    areas: dict[int, float] = {}
    for y0, band in label_bands(result, _SHARE_ROWS if result.georeference is not None else BAND_ROWS):
        values, found = np.unique(band, return_counts=True)
        middle = np.array([[band.shape[1] / 2, y0 + len(band) / 2]])
        of_pixel = math.nan if result.pixel_areas is None else float(result.pixel_areas(middle)[0])
        for value, count in zip(values.tolist(), found.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + count
            areas[value] = areas.get(value, 0.0) + count * of_pixel
    names = {result.background: "background", result.nodata: "no measurement"}
    return [
        {
            "class": value,
            "class_name": names.get(value) or result.class_name(value),
            "pixels": count,
            "area_m2": float(f"{areas[value]:.9g}") if math.isfinite(areas[value]) else None,
        }
        for value, count in sorted(counts.items())
    ]


def _count_text(result: ImageResult) -> str:
    counts: dict[str, int] = {}
    for one in result.ranked:
        name = result.class_name(one.instance.class_id)
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])[:5])
    count = len(result.ranked)
    return f"{count} object{'' if count == 1 else 's'}" + (f" ({listed})" if listed else "")


def _share_text(classes: Sequence[Mapping[str, Any]]) -> str:
    total = sum(one["pixels"] for one in classes)
    largest = sorted(classes, key=lambda one: -one["pixels"])[:5]
    return "; ".join(f"{one['pixels'] / total:.1%} {one['class_name']}" for one in largest)
