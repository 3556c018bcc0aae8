"""Segment the images of a call with one model, and write the files of each."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject
from simmat.errors import SimMATError
from simmat.inference.coco import object_records
from simmat.inference.formats import write_result
from simmat.inference.job import ImageOutcome, ImageTask, Job, Progress, image_warnings
from simmat.inference.records import (
    FORMAT,
    check_own,
    files_key,
    finished_files,
    read_record,
    written_files,
)
from simmat.inference.result import ImageResult, LabelMap, class_shares, summarize
from simmat.inference.window_store import WindowStore
from simmat.io.files import atomic_write_json, output_errors, release_pages, staged_files
from simmat.io.reading import shown_url
from simmat.predictor.found import picture_of
from simmat.predictor.large_image import TiledImage
from simmat.predictor.reading import NoValidPixelsError
from simmat.predictor.tiles import merge_objects, most_likely

if TYPE_CHECKING:
    from simmat.predictor import Predictor


class Segmenter:
    """Finds the objects and classes of images with one model, and writes the files of each."""

    def __init__(self, predictor: Predictor, job: Job, progress: Progress | None = None) -> None:
        self.predictor, self.job, self.progress = predictor, job, progress or Progress()

    def earlier_outcome(self, task: ImageTask) -> ImageOutcome | None:
        """Return the outcome of an earlier call that did the same; None if one of its files is missing."""
        request, out = self.job.request(task, self.predictor.digest), self.job.out
        for names in dict.fromkeys([self.job.outputs(task), (task.name,)]):  # a large image has its own name
            files = [finished_files(out, name, request) for name in names]
            if all(files):
                return ImageOutcome(task.name, tuple(file for part in files for file in part), skipped=True)
        return None

    def shared_windows(self, task: ImageTask) -> int:
        """Return the number of windows of an image that can be answered separately; 1 if it is read as a whole."""
        try:
            size_hw = None if self.job.options.mosaic else self.predictor.adapter.window_size(task.files)
            whole = size_hw is None or max(size_hw) <= self.predictor.tile_size(size_hw)
            return 1 if whole and not self.job.options.mosaic else len(self._open(task).windows)
        except SimMATError:  # raised again when the image is segmented
            return 1

    def segment(self, task: ImageTask) -> ImageOutcome:
        """Find the objects or classes of an image, and write its files."""
        image, wanted = self._open(task), self.job.search
        store = self._store(task, image) if len(image.windows) > 1 else None
        classes = _class_map(image, None if store is None else store.folder) if wanted.classes else None
        try:
            objects, empty = self._find(task, image, store, classes)
        except NoValidPixelsError:
            if store is not None:
                store.remove()
            raise
        counts = {"count": len(image.windows), "without_measurement": empty}
        notes = {"windows": {"tile": image.tile, "overlap": image.overlap, **counts}}
        results = self.results(task, image, None if wanted.objects is None else objects, classes)
        outcome = self.write(task, image, results, notes)
        if store is not None:
            store.remove()
        (line,) = outcome.summary
        if empty:
            line += f", {empty} of {len(image.windows)} windows without a measurement"
        return replace(outcome, summary=(line,), warnings=image_warnings(image.warning, image.shrink_warning))

    def _find(
        self, task: ImageTask, image: TiledImage, store: WindowStore | None, classes: npt.NDArray[Any] | None
    ) -> tuple[list[FoundObject], int]:
        """Segment all windows of an image, and merge what is found.

        Args:
            task: the image.
            image: the same, opened.
            store: results that are in it are read from it, the others are written to it.
            classes: (H, W), filled with the class map; None makes none.

        Returns:
            The objects, best first, and the number of windows without a measurement.

        Raises:
            NoValidPixelsError: no window has a measurement.
        """
        found = []
        empty = 0
        blender = None if classes is None else image.class_map_blender()
        for index, window in enumerate(image.windows):
            result = None if store is None else store.read(index)
            if result is None:
                result = image.segment_window(window, self.job.search)
                if store is not None:
                    result = store.write(index, result)
            if store is not None:
                self.progress.windows(task.name, index + 1, len(image.windows))
            found.append(result.objects)
            empty += result.is_empty
            if classes is not None and blender is not None:
                for y0, band in blender.add(result.probabilities):
                    labels, _ = most_likely(band, self.predictor.required_dense().label_values, image.label_type()[1])
                    classes[y0 : y0 + len(labels)] = labels
                    release_pages(classes)
        image.check_measured(empty)
        return merge_objects(image.windows, found), empty

    def answer_windows(self, task: ImageTask, indices: Iterable[int]) -> None:
        """Segment some windows of an image, and store the answers for `segment`."""
        image = self._open(task)
        store = self._store(task, image)
        for index in indices:
            if not store.has(index):
                store.write(index, image.segment_window(image.windows[index], self.job.search))

    def write(
        self, task: ImageTask, image: TiledImage, results: Iterable[ImageResult], notes: Mapping[str, Any]
    ) -> ImageOutcome:
        """Write the files of an image and the json that names them, all or none."""
        job, name, written, texts = self.job, task.name, list[str](), []
        record = {**self.record(task, image.reader.size_hw), "mosaic": job.options.mosaic, **notes}
        file = job.out / f"{name}.json"
        replaced = written_files(read_record(file), name)
        with staged_files(job.out, replaced=replaced, tidy=False) as staging:
            for result in results:
                written += write_result(result, job.formats.for_image(result.kind, image.reader), staging)
                record[result.kind] = object_records(result) if result.kind == "objects" else class_shares(result)
                texts.append(summarize(result, record[result.kind]))
            written.append(file.name)
            replaced |= written_files(read_record(file), name)  # another call may have written it meanwhile
            check_own(job.out, set(written) - replaced)
            record["written"] = list(dict.fromkeys(written))  # a GeoPackage holds both layers
            atomic_write_json(staging / file.name, record)
        paths = tuple(job.out / one for one in record["written"])
        return ImageOutcome(name, paths, (f"{file}  {', '.join(texts)}",))

    def record(self, task: ImageTask, size_hw: tuple[int, int]) -> dict[str, Any]:
        """Return the values with which the json of an image begins."""
        predictor, foundation = self.predictor, None
        with suppress(ValueError):  # of a network alone
            foundation = predictor.spec.foundation
        return {
            "format": FORMAT,
            "request": self.job.request(task, predictor.digest),
            "files": {source: shown_url(file) for source, file in task.files.items()},
            "missing": sorted(predictor.image_loader.missing_channels(self.job.options.missing)),
            "bundle": str(predictor.bundle.path) if predictor.bundle else None,
            "foundation": foundation,
            "size_hw": list(size_hw),
        }

    def results(
        self, task: ImageTask, image: TiledImage, objects: Sequence[FoundObject] | None, classes: LabelMap | None = None
    ) -> Iterator[ImageResult]:
        """Return what was found as results to write, without the objects and classes that the job leaves out."""
        job, dense = self.job, self.predictor.dense
        common: dict[str, Any] = {
            "name": task.name,
            "size_hw": image.reader.size_hw,
            "georeference": image.reader.georeference,
            "class_names": self.predictor.class_names,
            "nodata": None if classes is None else image.label_type()[1],
            "picture": lambda: picture_of(image.reader),
        }
        if objects is not None:
            kept = tuple(one for one in objects if self._is_kept(one))
            yield ImageResult(**common, objects=kept, classes=None)
        if classes is not None:
            background = 0 if dense is not None and dense.background else None
            if job.classes is not None:
                _drop_classes(classes, job.classes, common["nodata"], background)
            yield ImageResult(**common, objects=None, classes=classes, background=background)

    def _is_kept(self, found: FoundObject) -> bool:
        least = self.job.options.min_score  # `make_job` has replaced "auto"
        is_sure = not isinstance(least, float) or found.score >= least
        return is_sure and (self.job.classes is None or found.instance.class_id in self.job.classes)

    def _open(self, task: ImageTask) -> TiledImage:
        job, options = self.job, self.job.options
        windows: dict[str, Any] = {"missing": options.missing, "tile": options.tile, "overlap": options.overlap}
        if options.mosaic:
            image = self.predictor.open_mosaic(list(task.files.values()), **windows)
        else:
            image = self.predictor.open_image(task.files, **windows)
        for kind in options.kinds:
            job.formats.for_image(kind, image.reader)  # raises before any work
        return image

    def _store(self, task: ImageTask, image: TiledImage) -> WindowStore:
        """Return the folder that stores the answers of the windows of an image."""
        job = self.job
        question = [repr(job.search), list(job.options.missing), image.tile, image.overlap]
        key = json.dumps([self.predictor.digest, files_key(task.files), *question])
        return WindowStore(job.out / f".{task.name}.windows", key)


def _class_map(image: TiledImage, folder: Path | None = None) -> npt.NDArray[Any]:
    """Return an empty class map; with `folder`, it is stored there, not in memory."""
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
