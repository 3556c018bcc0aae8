"""Find every object, or the class of every pixel, in many images: `simmat predict --everything` and `--semantic`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.cli.batch import Work, run_all, run_on
from simmat.cli.common import move_bar, progress_bar
from simmat.cli.records import check_files_for_all, check_unique, read_record, replaceable_files, write_files_for_all
from simmat.cli.segmenter import Job, Segmenter, kinds_of
from simmat.errors import ConfigError, SimMATError, unknown_name
from simmat.everything import EverythingSettings
from simmat.executors import check_workers, dask_client
from simmat.inference.formats import AUTO, choose_formats
from simmat.io.files import staged_files, url_of
from simmat.predictor.large import LargeImage, NothingMeasuredError, Segmentation, check_options
from simmat.predictor.window_results import SegmentOptions
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.evaluation import Processes
    from simmat.plugins.registry import Registry
    from simmat.predictor import Predictor

LOCAL = "local"


def job_of(
    predictor: Predictor,
    registry: Registry,
    *,
    out: Path,
    missing: tuple[str | int, ...],
    everything: bool,
    semantic: bool,
    formats: tuple[str, ...] | None,
    classes: str | None,
    min_score: float | None,
    min_area: int | None,
    tile: int | None,
    overlap: int | None,
    mosaic: bool,
) -> Job:
    """Make the job for a model from the options of the command line.

    Raises:
        ConfigError: the model cannot find what is wanted, or a class or format is unknown.
    """
    defaults = EverythingSettings()
    least_score = defaults.min_score if min_score is None else min_score
    settings = replace(defaults, min_score=least_score, min_area=min_area or defaults.min_area)
    dense = predictor.dense
    class_ids = None
    if classes is not None:
        class_ids = class_values(classes, predictor.class_names, () if dense is None else dense.classes)
    wanted = SegmentOptions(settings if everything else None, semantic)
    check_options(predictor, wanted)
    chosen = choose_formats(formats or (AUTO,), kinds_of(wanted), registry)
    return Job(wanted, chosen, out, class_ids, min_score, missing, tile, overlap, mosaic)


def class_values(text: str, names: Mapping[int, str], known: Sequence[int | None]) -> frozenset[int]:
    """Parse "car,person": return the label values of classes given by name or number."""
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


@dataclass(frozen=True)
class SegmentWork(Work):
    """One image of a call."""

    segmenter: Segmenter
    name: str
    files: Mapping[str, Path]

    @cached_property
    def windows(self) -> int:
        """Number of windows that processes can share; 1 for an image that is read as a whole."""
        try:
            return self.segmenter.shared_windows(self.files)
        except SimMATError:  # raised again when the image is segmented
            return 1

    def is_done(self) -> bool:
        """Return whether an earlier call did the same, and all its files still exist."""
        return self.segmenter.is_done(self.name, self.files)

    def start(self) -> Callable[[], list[str]]:
        """Segment the image; return a function that writes its files and returns lines to print."""
        segmenter, image = self.segmenter, self.segmenter.open(self.files)
        if image.shrink_warning:
            say(f"Warning: {self.name}: {image.shrink_warning}", err=True)
        if len(image.windows) == 1:
            joined = segmenter.joined(image, image.segment_windows(segmenter.wanted), None)
            write = partial(self._write, image, joined)
        else:
            write = partial(list, self._run_large(image))  # written here, so that two large images are never in memory
        if image.warning:
            say(f"Warning: {self.name}: {image.warning}; are unit, bit depth and exposure the same?", err=True)
        return write

    def _run_large(self, image: LargeImage) -> list[str]:
        segmenter, count = self.segmenter, len(image.windows)
        store = segmenter.store(self.name, self.files, image)
        with progress_bar(self.name, "window", total=count) as bar:
            answers = image.segment_windows(
                segmenter.wanted, store=store, progress=lambda done: move_bar(bar, done, count)
            )
            try:
                joined = segmenter.joined(image, answers, store.folder)
            except NothingMeasuredError:
                store.remove()
                raise
            lines = self._write(image, joined)
        store.remove()
        return lines

    def _write(self, image: LargeImage, joined: Segmentation) -> list[str]:
        return [self.segmenter.write(self.name, self.files, image, joined)]

    def prepare(self, indices: Sequence[int]) -> list[str]:
        """Segment some windows, and store the answers for `run`."""
        image = self.segmenter.open(self.files)
        store = self.segmenter.store(self.name, self.files, image)
        missing = set(store.missing(len(image.windows)))
        for index in indices:
            if index in missing:
                store.write(index, image.segment_window(image.windows[index], self.segmenter.wanted))
        return []


@dataclass(frozen=True)
class SegmentTasks:
    """The images of a call, for workers on other machines that see the same files."""

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
"""Arguments -> the one model of a worker process, which is loaded once, not for each task."""


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

    `model` are the arguments of `simmat.load` for workers on other machines. The errors of failed images are raised as
    one at the end.
    """
    check_unique(tuple(images))
    replaceable_files(job.out, images, job.endings)  # raises before any work
    check_files_for_all(job.formats.for_call(job.kinds), job.out, images)
    if executor != LOCAL:  # workers have working folders of their own
        images = {
            name: {source: file if url_of(file) else file.absolute() for source, file in files.items()}
            for name, files in images.items()
        }
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
    if outcome.done:
        write_files_for_all(job.formats.for_call(job.kinds), job.out, outcome.done, predictor.class_names)
    if job.wanted.objects is not None and outcome.done and not _found_any(job.out, outcome.done):
        say(f"Warning: {_why_nothing(predictor, job, len(outcome.done))}", err=True)
    if outcome.error is not None:
        raise outcome.error


def _found_any(out: Path, names: Sequence[str]) -> bool:
    """Return whether the json of any of these images lists an object."""
    return any(read_record(out / f"{name}.json").get("objects") for name in names)


def _why_nothing(predictor: Predictor, job: Job, images: int) -> str:
    """Return the advice for images in which no object was found."""
    text, bundle = f"no object found in {images} image{'' if images == 1 else 's'}; ", predictor.bundle
    if bundle is not None and predictor.dense is not None and bundle.spec.metrics.get("step") == 0:
        return text + "the bundle is of step 0: its dense head is not trained; train longer"
    advice = ["a lower --min-score"] if job.min_score else []
    advice += ["other --classes"] if job.classes is not None else []
    advice += ["more training steps"] if bundle is not None else []
    return f"{text}try {', '.join(advice)}{' or ' if advice else ''}prompts"


def _first_files(model: Mapping[str, Any], images: Mapping[str, Mapping[str, Path]]) -> list[Path]:
    """Return the files of a model and of the first image, which every worker must see."""
    first = next(iter(images.values()), {})
    return [path for path in (*model.values(), *first.values()) if isinstance(path, Path) and path.exists()]
