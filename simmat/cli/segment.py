"""Find every object, or the class of every pixel, in many images: `simmat predict --everything` and `--semantic`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.cli.batch import run_all, run_on
from simmat.cli.common import move_bar, progress_bar
from simmat.cli.records import (
    COCO_FILE,
    COCO_INFO,
    check_coco,
    files_key,
    foreign_file,
    own_files,
    read_record,
    refuse_twice,
    result_endings,
    written_files,
)
from simmat.data.instances import FoundObject
from simmat.errors import ConfigError, SimMATError, unknown_name
from simmat.everything import EverythingSettings
from simmat.executors import check_workers, dask_client
from simmat.io.files import atomic_write_json, staged_files
from simmat.io.files.system import output_errors, release_pages
from simmat.predictor.answers import AnswerStore, Wanted, WindowAnswer
from simmat.predictor.large import Joined, LargeImage, NothingMeasuredError, check_wanted
from simmat.results import (
    ImageRecords,
    ImageResult,
    check_formats,
    check_place,
    coco_document,
    object_records,
    write_result,
)
from simmat.results.result import label_bands
from simmat.terminal import say
from simmat.types import SensorImage, Window

if TYPE_CHECKING:
    from simmat.evaluation import Processes
    from simmat.predictor import Predictor
    from simmat.report.display import PictureArray

FORMAT = 1
"""Of the json of an image; raised with every change that an older reader would misread."""
LOCAL = "local"
_PICTURE_PX = 2048
"""Longer side of the picture under an overlay, at most."""


@dataclass(frozen=True)
class Job:
    """What is done with each image of a call.

    Attributes:
        wanted: what is looked for.
        formats: of the files, names of `simmat.results.FORMATS`.
        out: folder of the files.
        classes: label values that are kept; None for all.
        min_score: smallest score of an object; None for all that were found.
        missing: channels that the images lack.
        tile: side of a window; None chooses it.
        overlap: of windows; None chooses it.
    """

    wanted: Wanted
    formats: tuple[str, ...]
    out: Path
    classes: frozenset[int] | None = None
    min_score: float | None = None
    missing: tuple[str | int, ...] = ()
    tile: int | None = None
    overlap: int | None = None

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of the files of an image."""
        kinds = [
            *(["objects"] if self.wanted.objects is not None else []),
            *(["classes"] if self.wanted.classes else []),
        ]
        return result_endings(self.formats, kinds)

    def check(self) -> None:
        """Check the formats before any work; see `simmat.results.check_formats`."""
        if self.wanted.objects is not None:
            check_formats(self.formats, kind="objects")
        if self.wanted.classes:
            check_formats(
                [name for name in self.formats if name != "coco" or self.wanted.objects is None], kind="classes"
            )


def job_of(
    predictor: Predictor,
    *,
    out: Path,
    missing: tuple[str | int, ...],
    everything: bool,
    semantic: bool,
    formats: str | None,
    classes: str | None,
    min_score: float | None,
    min_area: int | None,
    tile: int | None,
    overlap: int | None,
) -> Job:
    """Return what the options of the command line mean for a model.

    Raises:
        ConfigError: they contradict each other, or the model cannot do it.
        UnknownNameError: a format or class is unknown.
    """
    given = EverythingSettings()
    lowest = given.min_score if min_score is None else min_score
    settings = replace(given, min_score=lowest, min_area=min_area or given.min_area)
    default = ("labels", "coco", "overlay") if everything else ("labels", "overlay")
    names = default if formats is None else tuple(part.strip() for part in formats.split(",") if part.strip())
    dense = predictor.dense
    kept = None
    if classes is not None:
        kept = class_values(classes, predictor.class_names, () if dense is None else dense.classes)
    wanted = Wanted(settings if everything else None, semantic)
    check_wanted(predictor, wanted)
    job = Job(wanted, names, out, kept, min_score, missing, tile, overlap)
    job.check()
    return job


def class_values(text: str, names: Mapping[int, str], known: Sequence[int | None]) -> frozenset[int]:
    """Return the label values of classes named "car,person", or by number.

    Args:
        text: of the command line.
        names: label value -> name.
        known: label values that the model distinguishes.

    Raises:
        ConfigError: the model distinguishes no classes.
        UnknownNameError: it does not know a class.
    """
    values = [value for value in known if value is not None]
    if not values:
        raise ConfigError(f"--classes {text}: this model does not distinguish classes; leave the option out")
    by_name = {names[value]: value for value in values if value in names} | {str(value): value for value in values}
    found = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part not in by_name:
            raise unknown_name("class", part, [names.get(value, str(value)) for value in values])
        found.add(by_name[part])
    return frozenset(found)


class Segmenter:
    """Segments images by one model, and writes the files of each.

    Args:
        predictor: of the model.
        job: what is done.
        model: `digest` of the predictor, if it is known.
    """

    def __init__(self, predictor: Predictor, job: Job, model: str | None = None) -> None:
        self._predictor, self._job = predictor, job
        self._model = model or predictor.digest

    @property
    def wanted(self) -> Wanted:
        """What is looked for."""
        return self._job.wanted

    def is_done(self, name: str, files: Mapping[str, Path]) -> bool:
        """Return whether an earlier call did the same and all its files are still there."""
        record = read_record(self._record(name))
        return record.get("request") == self._request(files) and all(
            (self._job.out / file).is_file() for file in written_files(record, name)
        )

    def shared_windows(self, files: Mapping[str, Path]) -> int:
        """Return how many windows of an image can be read by themselves; 1 where it is read as a whole."""
        size_hw = self._predictor.adapter.window_size(files)
        if size_hw is None or max(size_hw) <= self._predictor.tile_of(size_hw):
            return 1
        return len(self.open(files).windows)

    def open(self, files: Mapping[str, Path]) -> LargeImage:
        """Open an image."""
        job = self._job
        image = self._predictor.open_image(files, missing=job.missing, tile=job.tile, overlap=job.overlap)
        check_place(job.formats, image.reader.georeference, image.reader.origin)
        return image

    def store(self, name: str, files: Mapping[str, Path], image: LargeImage) -> AnswerStore:
        """Return the folder that keeps the answers to the windows of an image."""
        job = self._job
        key = [self._model, files_key(files), repr(job.wanted), list(job.missing), image.tile, image.overlap]
        return AnswerStore.open(job.out / f".{name}.windows", json.dumps(key))

    def joined(self, image: LargeImage, answers: Iterable[WindowAnswer], folder: Path | None) -> Joined:
        """Join the answers to all windows of an image.

        Args:
            image: opened.
            answers: to its windows, in their order.
            folder: where a class map larger than memory is kept meanwhile; None keeps it in memory.
        """
        wanted = self._job.wanted
        classes = _class_map(image, folder) if wanted.classes else None
        return image.join(answers, wanted, classes=classes)

    def write(self, name: str, files: Mapping[str, Path], image: LargeImage, joined: Joined) -> str:
        """Write the files of an image, and return what to print.

        Args:
            name: how the files begin.
            files: of the image.
            image: opened.
            joined: what was found in it.
        """
        notes = {
            "windows": {
                "tile": image.tile,
                "overlap": image.overlap,
                "count": joined.windows,
                "without_measurement": joined.empty,
            }
        }
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
        """Write the files of an image with the json that names them, all or none, and return what to print.

        Args:
            name: how the files begin.
            files: of the image.
            image: opened.
            results: its objects, its classes, or both.
            notes: more values of the json.
            request: digest of what was asked; None for that of the job.

        Raises:
            ConfigError: a file to replace was made by another command or a person.
        """
        job, said = self._job, []
        written: list[str] = []
        record: dict[str, Any] = {
            "format": FORMAT,
            "request": request or self._request(files),
            "files": {source: str(file) for source, file in files.items()},
            "missing": sorted(self._predictor.missing_channels(job.missing)),
            "bundle": str(self._predictor.bundle.path) if self._predictor.bundle else None,
            "size_hw": list(image.reader.size_hw),
            **notes,
        }
        replaced = written_files(read_record(self._record(name)), name)
        with staged_files(job.out, replaced=replaced) as staging:
            for result in results:
                formats = _without(job.formats, "coco")  # one file for all images, see `coco`
                if written:  # one overlay is enough
                    formats = _without(formats, "overlay")
                written += write_result(result, formats, staging) if formats else []
                if result.kind == "objects":
                    record["objects"] = object_records(result)
                    said.append(_counted(result))
                else:
                    record["classes"] = _shares(result)
                    said.append(_described(record["classes"]))
            written.append(f"{name}.json")
            replaced |= written_files(read_record(self._record(name)), name)  # another call may have done it meanwhile
            if foreign := [file for file in written if file not in replaced and (job.out / file).exists()]:
                raise ConfigError(foreign_file(job.out / foreign[0]))
            record["written"] = written
            atomic_write_json(staging / f"{name}.json", record)
        return f"{self._record(name)}  {', '.join(said)}"

    def objects_result(
        self, name: str, files: Mapping[str, Path], image: LargeImage, objects: Sequence[FoundObject]
    ) -> ImageResult:
        """Return objects of an image, to be written."""
        found = Joined(list(objects), None, None, 1, 0)
        return next(iter(self._results(name, files, image, found)))

    def _results(
        self, name: str, files: Mapping[str, Path], image: LargeImage, joined: Joined
    ) -> Iterator[ImageResult]:
        job = self._job
        common: dict[str, Any] = {
            "name": name,
            "file_name": str(next(iter(files.values()), name)),
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
                _drop(classes, job.classes, joined.nodata, background)
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
        job = asdict(replace(self._job, classes=None, out=Path())) | {"classes": sorted(self._job.classes or ())}
        said = json.dumps([FORMAT, self._model, files_key(files), repr(job)])
        return hashlib.sha256(said.encode()).hexdigest()

    def _record(self, name: str) -> Path:
        return self._job.out / f"{name}.json"


@dataclass(frozen=True)
class SegmentWork:
    """One image of a call.

    Attributes:
        segmenter: of the model.
        name: how its files begin.
        files: source name -> file.
    """

    segmenter: Segmenter
    name: str
    files: Mapping[str, Path]

    @cached_property
    def windows(self) -> int:
        """How many windows several processes can share; 1 for an image that is read as a whole."""
        try:
            return self.segmenter.shared_windows(self.files)
        except SimMATError:  # it is reported when the image is segmented
            return 1

    def is_done(self) -> bool:
        """Return whether an earlier call did the same and all its files are still there."""
        return self.segmenter.is_done(self.name, self.files)

    def run(self) -> list[str]:
        """Segment the image, write its files, and return lines to print."""
        return self.start()()

    def start(self) -> Callable[[], list[str]]:
        """Segment the image; return what writes its files and returns lines to print."""
        segmenter, image = self.segmenter, self.segmenter.open(self.files)
        if image.shrunk_note:
            say(f"Warning: {self.name}: {image.shrunk_note}", err=True)
        if len(image.windows) == 1:
            joined = segmenter.joined(image, image.answers(segmenter.wanted), None)
            rest = partial(self._written, image, joined)
        else:
            rest = partial(list, self._run_large(image))  # it is not kept in memory beside the next image
        if image.doubt:
            say(f"Warning: {self.name}: {image.doubt}; are unit, bit depth and exposure the same?", err=True)
        return rest

    def _run_large(self, image: LargeImage) -> list[str]:
        segmenter, count = self.segmenter, len(image.windows)
        store = segmenter.store(self.name, self.files, image)
        with progress_bar(self.name, "window", total=count) as bar:
            answers = image.stored_answers(segmenter.wanted, store, lambda done: move_bar(bar, done, count))
            try:
                joined = segmenter.joined(image, answers, store.folder)
            except NothingMeasuredError:
                store.remove()
                raise
            lines = self._written(image, joined)
        store.remove()
        return lines

    def _written(self, image: LargeImage, joined: Joined) -> list[str]:
        return [self.segmenter.write(self.name, self.files, image, joined)]

    def prepare(self, indices: Sequence[int]) -> list[str]:
        """Segment some windows, whose answers are kept for `run`."""
        image = self.segmenter.open(self.files)
        store = self.segmenter.store(self.name, self.files, image)
        missing = set(store.missing(len(image.windows)))
        for index in indices:
            if index in missing:
                store.write(index, image.answer(image.windows[index], self.segmenter.wanted))
        return []


@dataclass(frozen=True)
class SegmentTasks:
    """The images of a call, for workers on other machines that see the same files.

    Attributes:
        model: arguments of `simmat.load`, without a registry.
        job: what is done.
    """

    model: Mapping[str, Any]
    job: Job

    def run(self, name: str, files: Mapping[str, Path]) -> list[str]:
        """Segment one image; see `SegmentWork.run`."""
        return self._work(name, files).run()

    def prepare(self, name: str, files: Mapping[str, Path], indices: Sequence[int]) -> list[str]:
        """Segment some windows of one image; see `SegmentWork.prepare`."""
        return self._work(name, files).prepare(indices)

    def _work(self, name: str, files: Mapping[str, Path]) -> SegmentWork:
        return SegmentWork(_segmenter(repr((sorted(self.model.items()), self.job)), self), name, files)


_SEGMENTERS: dict[str, Segmenter] = {}
"""The model of a worker process, by what it was loaded from: it is loaded once, not for each task."""


def _segmenter(key: str, tasks: SegmentTasks) -> Segmenter:
    if key not in _SEGMENTERS:
        from simmat.api import load

        _SEGMENTERS.clear()
        _SEGMENTERS[key] = Segmenter(load(**tasks.model), tasks.job)
    return _SEGMENTERS[key]


def segment_all(
    images: Mapping[str, Mapping[str, Path]],
    predictor: Predictor,
    job: Job,
    *,
    model: Mapping[str, Any],
    executor: str = LOCAL,
    processes: Processes | None = None,
) -> None:
    """Segment images, write their files, and one COCO file for all.

    Args:
        images: name of the files -> source name -> file.
        predictor: of the model.
        job: what is done.
        model: arguments of `simmat.load` for workers on other machines.
        executor: "local", or tcp://HOST:PORT of a dask scheduler.
        processes: those that share the work where it is local; None is this process alone.

    Raises:
        SimMATError: an image failed; of several, the message holds all. The others are done.
        ConfigError: two images have one name, or a file of others would be replaced.
        OutputError: a file cannot be written, such as on a full disk; this stops the call.
    """
    refuse_twice(tuple(images))
    own_files(job.out, images, job.endings)  # refuses files of others before any work
    if "coco" in job.formats:
        check_coco(job.out, images)
    if executor != LOCAL:  # workers have working folders of their own
        images = {name: {source: file.absolute() for source, file in files.items()} for name, files in images.items()}
        model = {name: value.absolute() if isinstance(value, Path) else value for name, value in model.items()}
        job = replace(job, out=job.out.absolute())
    segmenter = Segmenter(predictor, job)
    works = [SegmentWork(segmenter, name, files) for name, files in images.items()]
    if executor != LOCAL:
        with dask_client(executor, "simmat[dask]") as client, client.get_executor(pure=False) as pool:
            with staged_files(job.out) as staging:
                check_workers(client, [staging.absolute(), *_first_files(model, images)])
            outcome = run_on(pool, works, SegmentTasks(model, job), job.out)
    else:
        outcome = run_all(works, job.out, processes)
    if processes is not None and not processes.is_main:
        return
    if "coco" in job.formats and outcome.done:
        write_coco(job.out, outcome.done, predictor.class_names)
    if outcome.error is not None:
        raise outcome.error


def _first_files(model: Mapping[str, Any], images: Mapping[str, Mapping[str, Path]]) -> list[Path]:
    """Return the files of a model and of the first image."""
    first = next(iter(images.values()), {})
    return [path for path in (*model.values(), *first.values()) if isinstance(path, Path) and path.exists()]


def write_coco(out: Path, names: Sequence[str], class_names: Mapping[int, str]) -> None:
    """Write the objects of all images as one COCO file, from the json of each.

    Args:
        out: folder of the files.
        names: of the images.
        class_names: label value -> name.
    """
    records = []
    for name in names:
        record = read_record(out / f"{name}.json")
        file = next(iter(record["files"].values()), name)
        records.append(ImageRecords(Path(file).name, tuple(record["size_hw"]), record["objects"]))
    atomic_write_json(out / COCO_FILE, {"info": COCO_INFO, **coco_document(records, class_names)})
    say(f"{out / COCO_FILE}  {len(names)} images")


def picture(image: LargeImage) -> PictureArray:
    """Return the display picture of an image, at most `_PICTURE_PX` on its longer side."""
    from simmat.report.display import display_rgb

    height, width = image.reader.size_hw
    step = -(-max(height, width) // _PICTURE_PX)
    if step == 1:
        return display_rgb(image.reader.read(Window(0, 0, height, width)))
    rows = []
    tall = max(image.tile // step, 1) * step
    for y in range(0, height, tall):
        parts = []
        for x in range(0, width, tall):
            part = image.reader.read(Window(y, x, min(y + tall, height), min(x + tall, width)))
            parts.append((part.data[:, ::step, ::step], part.valid[:, ::step, ::step], part.channels))
        channels = parts[0][2]
        rows.append([np.concatenate([part[kind] for part in parts], axis=2) for kind in (0, 1)])
    data, valid = (np.concatenate([row[kind] for row in rows], axis=1) for kind in (0, 1))
    return display_rgb(SensorImage(np.ascontiguousarray(data), np.ascontiguousarray(valid), channels))


def _class_map(image: LargeImage, folder: Path | None) -> npt.NDArray[Any]:
    dtype, _ = image.label_type()
    if folder is None:
        return np.zeros(image.reader.size_hw, dtype)
    size_hw = image.reader.size_hw
    with output_errors(folder), TemporaryFile(dir=folder) as stream:
        if hasattr(os, "posix_fallocate"):  # a disk that is full later would end the process by SIGBUS
            os.posix_fallocate(stream.fileno(), 0, math.prod(size_hw) * np.dtype(dtype).itemsize)
        return np.memmap(stream, dtype, "w+", shape=size_hw)


def _drop(classes: npt.NDArray[Any], kept: frozenset[int], nodata: int | None, background: int | None) -> None:
    """Set the pixels of other classes to the background, or to nodata where there is none; in place."""
    values = [*kept, *([] if nodata is None else [nodata]), *([] if background is None else [background])]
    other = background if background is not None else nodata
    for y0 in range(0, len(classes), 512):
        band = classes[y0 : y0 + 512]
        band[~np.isin(band, values)] = other
        release_pages(classes)


def _shares(result: ImageResult) -> list[dict[str, Any]]:
    """Return label value, name and pixels of each class in a class map."""
    counts: dict[int, int] = {}
    for _, band in label_bands(result):
        values, found = np.unique(band, return_counts=True)
        for value, count in zip(values.tolist(), found.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + count
    names = {result.background: "background", result.nodata: "no measurement"}
    return [
        {"class": value, "class_name": names.get(value) or result.class_name(value), "pixels": count}
        for value, count in sorted(counts.items())
    ]


def _counted(result: ImageResult) -> str:
    counts: dict[str, int] = {}
    for one in result.ranked:
        name = result.class_name(one.instance.class_id)
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])[:5])
    return f"{len(result.ranked)} objects" + (f" ({listed})" if listed else "")


def _described(classes: Sequence[Mapping[str, Any]]) -> str:
    total = sum(one["pixels"] for one in classes)
    largest = sorted(classes, key=lambda one: -one["pixels"])[:5]
    return "; ".join(f"{one['pixels'] / total:.1%} {one['class_name']}" for one in largest)


def _without(formats: Sequence[str], name: str) -> list[str]:
    return [one for one in formats if one != name]
