"""Find every object, or the class of every pixel, in many images: `simmat predict --everything` and `--semantic`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.cli.common import move_bar, progress_bar
from simmat.data.instances import FoundObject
from simmat.errors import ConfigError, OutputError, SimMATError, all_problems, unknown_name
from simmat.everything import EverythingSettings
from simmat.io.files import atomic_write_json, read_json, staged_files
from simmat.io.files.system import output_errors
from simmat.predictor.answers import AnswerStore, Wanted, WindowAnswer
from simmat.predictor.large import Joined, LargeImage
from simmat.results import ImageRecords, ImageResult, check_formats, coco_document, object_records, write_result
from simmat.terminal import say
from simmat.types import SensorImage, Window

if TYPE_CHECKING:
    from simmat.predictor import Predictor
    from simmat.report.display import PictureArray

FORMAT = 1
"""Of the json of an image; raised with every change that an older reader would misread."""
COCO_FILE = "coco.json"
"""The objects of all images of a call."""
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
    settings = replace(given, min_score=min_score or given.min_score, min_area=min_area or given.min_area)
    default = ("labels", "coco", "overlay") if everything else ("labels", "overlay")
    names = default if formats is None else tuple(part.strip() for part in formats.split(",") if part.strip())
    dense = predictor.dense
    kept = None
    if classes is not None:
        kept = class_values(classes, predictor.class_names, () if dense is None else dense.classes)
    job = Job(Wanted(settings if everything else None, semantic), names, out, kept, min_score, missing, tile, overlap)
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
    """

    def __init__(self, predictor: Predictor, job: Job) -> None:
        self._predictor, self._job = predictor, job
        self._model = model_digest(predictor)

    @property
    def wanted(self) -> Wanted:
        """What is looked for."""
        return self._job.wanted

    def is_done(self, name: str, files: Mapping[str, Path]) -> bool:
        """Return whether an earlier call did the same and all its files are still there."""
        try:
            record = read_json(self._record(name))
        except SimMATError:
            return False
        return (
            isinstance(record, dict)
            and record.get("request") == self._request(files)
            and all((self._job.out / file).is_file() for file in record.get("written", [""]))
        )

    def open(self, files: Mapping[str, Path]) -> LargeImage:
        """Open an image."""
        job = self._job
        image = self._predictor.open_image(files, missing=job.missing, tile=job.tile, overlap=job.overlap)
        image.check_wanted(job.wanted)
        return image

    def store(self, name: str, files: Mapping[str, Path], image: LargeImage) -> AnswerStore:
        """Return the folder that keeps the answers to the windows of an image."""
        job = self._job
        key = [self._model, _files_key(files), repr(job.wanted), list(job.missing), image.tile, image.overlap]
        return AnswerStore.open(job.out / f".{name}.windows", json.dumps(key))

    def write(
        self,
        name: str,
        files: Mapping[str, Path],
        image: LargeImage,
        answers: Iterable[WindowAnswer],
        folder: Path | None,
    ) -> str:
        """Join the answers to all windows of an image, write its files, and return what to print.

        Args:
            name: how the files begin.
            files: of the image.
            image: opened.
            answers: to its windows, in their order.
            folder: where a class map larger than memory is kept meanwhile; None keeps it in memory.
        """
        job, wanted = self._job, self._job.wanted
        classes = _class_map(image, folder) if wanted.classes else None
        joined = image.join(answers, wanted, classes=classes)
        record: dict[str, Any] = {
            "format": FORMAT,
            "request": self._request(files),
            "files": {source: str(file) for source, file in files.items()},
            "missing": sorted(self._predictor.missing_channels(job.missing)),
            "bundle": str(self._predictor.bundle.path) if self._predictor.bundle else None,
            "size_hw": list(image.reader.size_hw),
            "windows": {
                "tile": image.tile,
                "overlap": image.overlap,
                "count": joined.windows,
                "without_measurement": joined.empty,
            },
        }
        said = []
        with staged_files(job.out, replaced=self._replaced(name)) as staging:
            written: list[str] = []
            for result in self._results(name, files, image, joined):
                formats = job.formats if result.kind == "objects" else _without(job.formats, "coco")
                if written:  # one overlay is enough
                    formats = _without(formats, "overlay")
                written += write_result(result, _without(formats, "coco"), staging) if _without(formats, "coco") else []
                if result.kind == "objects":
                    record["objects"] = object_records(result)
                    said.append(_counted(result))
                else:
                    record["classes"] = _shares(result)
                    said.append(_described(record["classes"]))
            record["written"] = [*written, f"{name}.json"]
            atomic_write_json(staging / f"{name}.json", record)
        if joined.empty:
            said.append(f"{joined.empty} of {joined.windows} windows without a measurement")
        return f"{self._record(name)}  {', '.join(said)}"

    def coco(self, names: Sequence[str]) -> None:
        """Write the objects of all images as one COCO file, from their records."""
        records = []
        for name in names:
            record = read_json(self._record(name))
            file = next(iter(record["files"].values()), name)
            records.append(ImageRecords(Path(file).name, tuple(record["size_hw"]), record["objects"]))
        atomic_write_json(self._job.out / COCO_FILE, coco_document(records, self._predictor.class_names))

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
        job = asdict(replace(self._job, classes=None)) | {"classes": sorted(self._job.classes or ())}
        said = json.dumps([FORMAT, self._model, _files_key(files), repr(job)])
        return hashlib.sha256(said.encode()).hexdigest()

    def _record(self, name: str) -> Path:
        return self._job.out / f"{name}.json"

    def _replaced(self, name: str) -> frozenset[str]:
        """Return the files of an earlier call for this image."""
        try:
            record = read_json(self._record(name))
        except SimMATError:
            return frozenset()
        written = record.get("written") if isinstance(record, dict) else None
        return frozenset(written if isinstance(written, list) else ())


def segment_all(images: Mapping[str, Mapping[str, Path]], segmenter: Segmenter, job: Job) -> None:
    """Segment images one after the other; one that cannot be read is reported at the end and stops no other.

    Args:
        images: name of the files -> source name -> file.
        segmenter: of the model.
        job: what is done.

    Raises:
        SimMATError: an image failed; of several, the message holds all.
        OutputError: a file cannot be written, such as on a full disk; this stops the call.
    """
    failed: dict[str, SimMATError] = {}
    skipped = 0
    with progress_bar("predict", "image", total=len(images), shown=len(images) > 1) as bar:
        for name, files in images.items():
            if segmenter.is_done(name, files):
                skipped += 1
            else:
                try:
                    line = _segment(name, files, segmenter)
                except OutputError:
                    raise
                except SimMATError as error:
                    failed[name] = error
                else:
                    with bar.external_write_mode():
                        say(line)
            bar.update(1)
    if skipped:
        say(f"note: {skipped} of {len(images)} images were done by an earlier call and are left as they are", err=True)
    if "coco" in job.formats and (done := [name for name in images if name not in failed]):
        segmenter.coco(done)
        say(f"{job.out / COCO_FILE}  {len(done)} images")
    if failed:
        raise failure_of(failed, len(images), job.out)


def failure_of(failed: Mapping[str, SimMATError], count: int, out: Path) -> SimMATError:
    """Return the error for the images that failed, of `count`."""
    first = next(iter(failed.values()))
    if count == 1:
        return first
    title = f"{len(failed)} of {count} images failed; the results of the others are in {out}:"
    return type(first)(all_problems(title, [str(error) for error in failed.values()]))


def _segment(name: str, files: Mapping[str, Path], segmenter: Segmenter) -> str:
    image = segmenter.open(files)
    if image.shrunk_note:
        say(f"Warning: {name}: {image.shrunk_note}", err=True)
    if len(image.windows) == 1:
        line = segmenter.write(name, files, image, image.answers(segmenter.wanted), None)
    else:
        store = segmenter.store(name, files, image)
        with progress_bar(name, "window", total=len(image.windows)) as bar:
            answers = image.stored_answers(
                segmenter.wanted, store, lambda done: move_bar(bar, done, len(image.windows))
            )
            line = segmenter.write(name, files, image, answers, store.folder)
        store.remove()
    if image.doubt:
        say(f"Warning: {name}: {image.doubt}; are unit, bit depth and exposure the same?", err=True)
    return line


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


def model_digest(predictor: Predictor) -> str:
    """Return a sha256 of what decides the predictor's results: spec and tuned weights."""
    from safetensors.torch import save

    from simmat.bundle import trained_tensors

    digest = hashlib.sha256()
    if predictor.bundle is not None:
        digest.update(predictor.bundle.spec.model_dump_json().encode())
        digest.update(save({name: tensor.contiguous() for name, tensor in trained_tensors(predictor.model).items()}))
    else:
        digest.update(repr(predictor).encode())
    return digest.hexdigest()


def _files_key(files: Mapping[str, Path]) -> list[Any]:
    """Return paths, sizes and times of files; missing ones are reported when they are read."""
    found: list[Any] = []
    for source, file in files.items():
        status = file.stat() if file.exists() else None
        found.append([source, str(file.absolute()), *((status.st_size, status.st_mtime_ns) if status else ())])
    return found


def _class_map(image: LargeImage, folder: Path | None) -> npt.NDArray[Any]:
    dtype, _ = image.label_type()
    if folder is None:
        return np.zeros(image.reader.size_hw, dtype)
    with output_errors(folder):
        return np.lib.format.open_memmap(folder / "classes.npy", "w+", np.dtype(dtype), image.reader.size_hw)


def _drop(classes: npt.NDArray[Any], kept: frozenset[int], nodata: int | None, background: int | None) -> None:
    """Set the pixels of other classes to the background, or to nodata where there is none; in place."""
    values = [*kept, *([] if nodata is None else [nodata]), *([] if background is None else [background])]
    other = background if background is not None else nodata
    for y0 in range(0, len(classes), 512):
        band = classes[y0 : y0 + 512]
        band[~np.isin(band, values)] = other


def _shares(result: ImageResult) -> list[dict[str, Any]]:
    """Return label value, name and pixels of each class in a class map."""
    counts: dict[int, int] = {}
    assert result.classes is not None
    for y0 in range(0, len(result.classes), 512):
        values, found = np.unique(result.classes[y0 : y0 + 512], return_counts=True)
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
