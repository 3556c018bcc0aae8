"""Segment the images of files and folders: by prompts, every object, or the class of every pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.calibration import MAX_WRONG, min_score
from simmat.data.formats.folders import IMAGES, files_by_stem, unlabelled_samples
from simmat.data.formats.frames import FRAMES, frame_name
from simmat.errors import ConfigError, DataError, unknown_name
from simmat.inference.formats import AUTO, ChosenFormats, choose_formats, write_for_call
from simmat.inference.job import ImageOutcome, ImageTask, Job, Progress
from simmat.inference.options import LOCAL, PredictOptions
from simmat.inference.prompted import make_segmenter
from simmat.inference.prompts import image_name, read_prompts
from simmat.inference.records import check_own_for_call, read_record, replaceable_files
from simmat.inference.run import Run, run_on_dask
from simmat.io.images.stacks import frame_of, frame_paths, stack_endings, stack_format
from simmat.io.reading import stem_of
from simmat.predictor import EverythingSettings
from simmat.predictor.tiles import SegmentOptions

if TYPE_CHECKING:
    from simmat.nn.device import Processes
    from simmat.plugins.registry import Registry
    from simmat.predictor import Predictor


def make_job(options: PredictOptions, predictor: Predictor, registry: Registry, out: Path, progress: Progress) -> Job:
    """Return the job for a model.

    Raises:
        ConfigError: the model cannot find what is wanted, or a class or format is unknown.
    """
    curve = None if predictor.calibration is None else predictor.calibration.object
    searched = options.min_score
    if searched == "auto":
        searched = None  # the threshold was measured with the default search
        origin = "an untuned model" if predictor.bundle is None else str(predictor.bundle.path)
        least = min_score(predictor.calibration, options.max_wrong or MAX_WRONG, origin)
        options = options.model_copy(update={"min_score": least, "max_wrong": None})
        progress.note(f"--min-score auto: {least:.3f}")
    elif (
        searched is not None and curve is not None and not options.reference
    ):  # validation has searched with the default
        searched = min(curve.inverse(searched), EverythingSettings.min_score)
    like = None
    if options.reference:
        if len(predictor.adapter.sources) > 1:
            raise ConfigError(
                f"--reference is one file, but modality {predictor.adapter.name!r} has several; in Python, "
                "Predictor.reference takes {source: file}"
            )
        shown = list(zip(options.reference, options.reference_mask, strict=True))
        like = predictor.reference(shown, classes=options.classes or (), missing=options.missing, tile=options.tile)
        options = options.model_copy(update={"everything": True, "classes": None})
    limits: dict[str, Any] = {"min_score": searched, "min_area": options.min_area}
    settings = replace(EverythingSettings(), **{name: limit for name, limit in limits.items() if limit is not None})
    search = SegmentOptions(settings if options.everything else None, options.semantic, like)
    if options.semantic:
        predictor.required_dense()  # raises before any work
    formats = choose_formats(options.formats or (AUTO,), options.kinds, registry)
    if not options.searches and options.formats is None:
        # For a large image: those that show pixels, and so class maps, too; no lists of objects.
        pixels = tuple(one for one in formats.automatic if any(where.endswith("classes") for where in one.auto))
        formats = ChosenFormats((), pixels)
    classes = None if options.classes is None else class_values(options.classes, predictor)
    return Job(out, options, formats, search, classes)


def predict_files(
    predictor: Predictor,
    files: Sequence[Path] | Mapping[str, Path],
    out: Path,
    options: PredictOptions,
    registry: Registry,
    processes: Processes,
    load: partial[Predictor],
    progress: Progress,
) -> list[ImageOutcome]:
    """Segment images as `simmat.predict` does; return what became of each, in the main process.

    Args:
        files: files and folders; or source -> file of one image, for sensors with several.
        processes: those that share the images, of which this is one.
        load: loads the model on other machines, with the arguments of `simmat.load`.

    Raises:
        SimMATError: options do not suit the model, files of others would be replaced, or results cannot be written.
    """
    tasks = list(_tasks(predictor, files, out, options, progress))
    job = make_job(options, predictor, registry, out, progress)
    for_call = job.formats.for_call(job.options.kinds)
    _check_names(tasks, job)
    for one in for_call:
        check_own_for_call(out / one.endings[0])
    segmenter = make_segmenter(predictor, job, progress)
    if options.executor != LOCAL:
        run = run_on_dask(segmenter, tasks, load, processes, options.executor)
    else:
        run = Run(segmenter, tasks)
        run.run(processes)
    if not processes.is_main:
        return []
    done = [task.name for task in tasks if run.outcomes[task.name].error is None]
    for one in for_call if done else ():
        progress.wrote(write_for_call(one, _records(out, done), predictor.class_names, out))
    if job.search.objects is not None and done and not any(record["objects"] for _, record in _records(out, done)):
        progress.note("Warning: no object found; try a lower --min-score, other --classes, prompts, or more training")
    return [run.outcomes[task.name] for task in tasks]


def _records(out: Path, names: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((name, read_record(out / f"{name}.json")) for name in names)


def _tasks(
    predictor: Predictor,
    files: Sequence[Path] | Mapping[str, Path],
    out: Path,
    options: PredictOptions,
    progress: Progress,
) -> Iterator[ImageTask]:
    """Yield the images of a call with their prompts."""
    optional = predictor.image_loader.optional_sources(predictor.image_loader.missing_channels(options.missing))
    names = tuple(name for name in predictor.adapter.source_names() if name not in optional)
    if options.prompts is not None and not options.is_map_file:
        if isinstance(files, Mapping) or len(names) > 1 or len(files) > 1 or not all(path.is_dir() for path in files):
            raise ConfigError(
                "--prompts names one file per image, for sensors with one source; give at most the folder of the files"
            )
        folder = files[0] if files else options.prompts.parent
        for file, prompts in read_prompts(options.prompts).items():
            yield ImageTask(image_name(file), {names[0]: folder / file}, prompts)
        return
    images: list[tuple[str, Mapping[str, Path]]]
    if isinstance(files, Mapping) and set(names) <= set(files) <= {*names, *optional}:
        images = [(stem_of(files[names[0]]), {name: files[name] for name in names})]
    elif files and len(names) == 1 and not isinstance(files, Mapping):
        images = [(name, {names[0]: file}) for name, file in _named_files(predictor, files, out, progress)]
    else:
        needed = " ".join(f"--source {name}=FILE" for name in names)
        raise ConfigError(
            f"modality {predictor.adapter.name!r} needs "
            + (f"{needed}, got {', '.join(map(str, files)) or 'nothing'}" if len(names) > 1 else "files or folders")
        )
    if options.mosaic:
        tiles = enumerate((file for _, own in images for file in own.values()), start=1)
        images = [("mosaic", {f"tile {number}": file for number, file in tiles})]
    in_pixels = not (options.searches or options.crs or options.is_map_file)
    for name, own in images:
        yield ImageTask(name, own, {name: options.prompt()} if in_pixels else None)


def _named_files(
    predictor: Predictor, paths: Sequence[Path], out: Path, progress: Progress
) -> Iterator[tuple[str, Path]]:
    """Yield (output name, file) of each image; the names of subfolders are part of the output name.

    The files of `out` are results, not images.
    """
    extensions, axis = predictor.adapter.sources[0].extensions, predictor.image_loader.card.stack_axis
    for path in paths:
        if stack_format(path) is not None and (path.is_dir() or path.name.lower().endswith(stack_endings())):
            name = frame_name(path, stack_endings())
            yield from ((f"{name}__{frame.name}", frame) for frame in frame_paths(path, axis))
            continue
        if not path.is_dir():
            of_frame = frame_of(path)
            name = stem_of(path) if of_frame is None else f"{frame_name(of_frame.file, stack_endings())}__{path.name}"
            yield name, path
            continue
        if (path / FRAMES).is_dir():
            progress.note(f"note: {path} is a data set; the frames of {path / FRAMES} are segmented")
            frames = unlabelled_samples(path, predictor.adapter.sources, axis)
            yield from ((sample.id.replace("/", "__"), sample.reference) for sample in frames)
            continue
        if (path / IMAGES).is_dir():
            path = path / IMAGES
            progress.note(f"note: {path.parent} is a data set; the files of {path} are segmented")
        if out.resolve() == path.resolve():
            raise ConfigError(
                f"--out {out}: holds the images, so a second call would segment its results; choose another folder"
            )
        found = files_by_stem(path, extensions)
        images = [(stem.replace("/", "__"), file) for stem, files in sorted(found.items()) for file in files]
        images = [(name, file) for name, file in images if not file.resolve().is_relative_to(out.resolve())]
        if not images:
            raise DataError(f"{path}: holds no image ({', '.join(extensions)})")
        yield from images


def _check_names(tasks: Sequence[ImageTask], job: Job) -> None:
    """Raise ConfigError if files would have the same name, or would replace those of another program."""
    for_all = [Path(one.endings[0]).stem for one in job.formats.for_call(job.options.kinds)]
    for names in ([task.name for task in tasks] + for_all, [name for task in tasks for name in job.outputs(task)]):
        if several := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ConfigError(
                f"several results would be written as {several[:5]}; rename the files, use separate calls, or another "
                "--format"
            )
    for task in tasks:
        replaceable_files(job.out, job.outputs(task), job.endings())


def class_values(wanted: Sequence[str], predictor: Predictor) -> frozenset[int]:
    """Return the label values of classes given by name or number."""
    dense = predictor.dense
    values = [value for value in (() if dense is None else dense.classes) if value is not None]
    by_name = {predictor.class_names.get(value, str(value)): value for value in values}
    known = {str(value): value for value in values} | by_name
    for one in wanted:
        if one not in known:
            raise unknown_name("class of --classes", one, by_name, hint="" if by_name else "This model has no classes.")
    return frozenset(known[one] for one in wanted)
