"""The images of a call, and what the names of their results begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simmat.data.formats.folders import IMAGES, files_by_stem, unlabelled_samples
from simmat.data.formats.frames import FRAMES, frame_name
from simmat.errors import ConfigError, DataError
from simmat.inference.prompts import image_name, read_prompts
from simmat.inference.request import PredictOptions
from simmat.io.files import stem_of
from simmat.io.frames import frame_of, frame_paths, stack_endings, stack_format
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.predictor import Predictor

Note = Callable[[str], object]
"""Called with what the user should know."""


@dataclass(frozen=True)
class ImageTask:
    """One image of a call.

    Attributes:
        name: what the names of its files begin with.
        files: source -> file, or the tiles of a mosaic.
        prompts: output name of an object -> prompt in pixels; None if there are none, or they are in map coordinates.
    """

    name: str
    files: Mapping[str, Path]
    prompts: Mapping[str, Prompt] | None = None


def image_tasks(
    predictor: Predictor, files: Sequence[Path] | Mapping[str, Path], out: Path, options: PredictOptions, note: Note
) -> list[ImageTask]:
    """Return the images of a call with their prompts.

    Args:
        predictor: says which files make an image.
        files: files and folders; or source -> file of one image, for sensors with several.
        out: folder of the results, whose files are no images.
        options: what the user asks for.
        note: called with what is read in place of a data set.

    Raises:
        ConfigError: the files are not those that the sensor needs.
        DataError: a folder has no image, or the prompts cannot be read.
    """
    loader = predictor.image_loader
    optional = loader.optional_sources(loader.missing_channels(options.missing))
    names = [name for name in predictor.adapter.source_names() if name not in optional]
    if options.prompts is not None and not options.is_map_file:
        return _images_of_prompts(options.prompts, files, names)
    images: list[tuple[str, Mapping[str, Path]]]
    if isinstance(files, Mapping) and set(names) <= set(files) <= {*names, *optional}:
        images = [(stem_of(files[names[0]]), {name: files[name] for name in names})]
    elif files and len(names) == 1 and not isinstance(files, Mapping):
        images = [(name, {names[0]: file}) for name, file in _named_files(predictor, files, out, note)]
    else:
        raise ConfigError(f"modality {predictor.adapter.name!r} needs {_needed(names, files)}")
    if options.mosaic:
        images = [("mosaic", _tiles(images))]
    if options.is_promptless or options.crs or options.is_map_file:
        return [ImageTask(name, own) for name, own in images]
    prompt = options.prompt()
    return [ImageTask(name, own, {name: prompt}) for name, own in images]


def _images_of_prompts(file: Path, files: Sequence[Path] | Mapping[str, Path], names: Sequence[str]) -> list[ImageTask]:
    """Return the images that a CSV or COCO file of prompts names."""
    if isinstance(files, Mapping) or len(files) > 1 or len(names) > 1 or not all(path.is_dir() for path in files):
        raise ConfigError(
            "--prompts names one file per image, for sensors with one source; give at most the folder of the files"
        )
    folder = files[0] if files else file.parent
    tasks = []
    for image, prompts in read_prompts(file).items():
        tasks.append(ImageTask(image_name(image), {names[0]: folder / image}, prompts))
    return tasks


def _needed(names: Sequence[str], files: Sequence[Path] | Mapping[str, Path]) -> str:
    """Return which files an image needs, and what was given."""
    if len(names) == 1:
        return "files or folders"
    sources = " ".join(f"--source {name}=FILE" for name in names)
    return f"{sources}, got {', '.join(map(str, files)) or 'nothing'}"


def _tiles(images: Sequence[tuple[str, Mapping[str, Path]]]) -> dict[str, Path]:
    """Return the files of all images as tiles of one map."""
    tiles: dict[str, Path] = {}
    for _, files in images:
        for file in files.values():
            tiles[f"tile {len(tiles) + 1}"] = file
    return tiles


def _named_files(predictor: Predictor, paths: Sequence[Path], out: Path, note: Note) -> Iterator[tuple[str, Path]]:
    """Yield (output name, file) of each image; the names of subfolders are part of the output name."""
    endings = stack_endings()
    for path in paths:
        may_be_stack = path.is_dir() or path.name.lower().endswith(endings)
        frame = frame_of(path)
        if may_be_stack and stack_format(path) is not None:
            for one in frame_paths(path, predictor.image_loader.card.stack_axis):
                yield f"{frame_name(path, endings)}__{one.name}", one
        elif path.is_dir():
            yield from _files_in_folder(predictor, path, out, note)
        elif frame is not None:
            yield f"{frame_name(frame.file, endings)}__{path.name}", path
        else:
            yield stem_of(path), path


def _files_in_folder(predictor: Predictor, path: Path, out: Path, note: Note) -> Iterator[tuple[str, Path]]:
    """Yield (output name, file) of each image of a folder; of a data set, those of its images or frames."""
    if (path / FRAMES).is_dir():
        note(f"note: {path} is a data set; the frames of {path / FRAMES} are segmented")
        axis = predictor.image_loader.card.stack_axis
        for sample in unlabelled_samples(path, predictor.adapter.sources, axis):
            yield sample.id.replace("/", "__"), sample.reference
        return
    if (path / IMAGES).is_dir():
        note(f"note: {path} is a data set; the files of {path / IMAGES} are segmented")
        path = path / IMAGES
    results = out.resolve()
    if results == path.resolve():
        raise ConfigError(
            f"--out {out}: holds the images, so a second call would segment its results; choose another folder"
        )
    extensions = predictor.adapter.sources[0].extensions
    found = False
    for stem, files in sorted(files_by_stem(path, extensions).items()):
        for file in files:
            if not file.resolve().is_relative_to(results):
                found = True
                yield stem.replace("/", "__"), file
    if not found:
        raise DataError(f"{path}: holds no image ({', '.join(extensions)})")
