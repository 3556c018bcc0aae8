"""The images of a call, their prompts, and what the names of their results begin with."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from simmat.data.formats.folders import (
    IMAGES,
    files_by_stem,
    find_samples,
    unlabelled_samples,
)
from simmat.data.formats.frames import FRAMES, frame_name
from simmat.data.formats.manifest import MANIFEST_FILE, read_manifest
from simmat.data.samples import Sample, name_of_files, problems_of_file_names
from simmat.errors import ConfigError, DataError, all_problems, few_of
from simmat.geo import geo_backend
from simmat.inference.options import (
    BOX,
    POINT,
    PredictOptions,
    make_prompt,
    parse_numbers,
)
from simmat.io.frames import frame_paths, stack_endings, stack_format
from simmat.io.images import has_image_ending
from simmat.io.paths import frame_of, is_image_folder, stem_of
from simmat.io.reading import read_csv_rows, read_json
from simmat.sensors.adapter import Source
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.predictor import Predictor
    from simmat.types import ImageReader

_FORMS = {"point": POINT, "negative": POINT, "box": BOX}
"""Columns of a CSV of prompts besides `file` and `object`, and how each is written."""
_Marks = dict[tuple[str, str], defaultdict[str, list[Sequence[float]]]]
"""(file, object) -> its points, points that are not on it, and boxes, by column."""
Note = Callable[[str], object]
"""Called with what the user should know."""


@dataclass(frozen=True)
class ImageTask:
    """One image of a call.

    Attributes:
        name: what the names of its files begin with.
        files: source -> file, or the tiles of a mosaic.
        prompts: output name of an object -> prompt in pixels; None if there are none, or they are in map coordinates.
        warning: how the first images of the call differ from the training images; "" if they do not.
    """

    name: str
    files: Mapping[str, Path]
    prompts: Mapping[str, Prompt] | None = None
    warning: str = ""


def image_tasks(
    predictor: Predictor,
    files: Sequence[Path] | Mapping[str, Path],
    out: Path,
    options: PredictOptions,
    note: Note,
) -> list[ImageTask]:
    """Return the images of a call with their prompts.

    Args:
        predictor: says which files make an image.
        files: files and folders; for sensors with several sources, folders, or source -> file of one image.
        out: folder of the results, whose files are no images.
        options: what the user asks for.
        note: called with what is read in place of a data set.

    Raises:
        ConfigError: the files are not those that the sensor needs.
        DataError: a folder has no image, an image lacks a file of a source, or the prompts cannot be read.
    """
    loader = predictor.image_loader
    optional = loader.optional_sources(loader.missing_channels(options.missing))
    sources = [one for one in predictor.adapter.sources if one.name not in optional]
    names = [source.name for source in sources]
    if options.prompts is not None and not options.is_map_file:
        if len(names) > 1:
            return _sets_of_prompts(predictor, options.prompts, files, sources, out)
        return _images_of_prompts(options.prompts, files, names[0])
    images: list[tuple[str, Mapping[str, Path]]]
    if isinstance(files, Mapping) and set(names) <= set(files) <= {*names, *optional}:
        images = [(stem_of(files[names[0]]), {name: files[name] for name in names})]
    elif files and not isinstance(files, Mapping) and _are_usable(files, sources):
        images = []
        for path in files:
            images += _images_at(predictor, path, sources, out, note)
    else:
        raise ConfigError(
            f"modality {predictor.adapter.name!r} needs {_needed(names, files)}"
        )
    if options.mosaic:
        if len(names) > 1:
            raise ConfigError(
                f"--mosaic joins files of one source, but modality {predictor.adapter.name!r} has several; in Python, "
                "Predictor.open_mosaic takes a {source: file} for each tile"
            )
        images = [("mosaic", _tiles(images))]
    if options.is_promptless or options.crs or options.is_map_file:
        return [ImageTask(name, own) for name, own in images]
    prompt = options.prompt()
    return [ImageTask(name, own, {name: prompt}) for name, own in images]


def _images_of_prompts(
    file: Path, files: Sequence[Path] | Mapping[str, Path], name: str
) -> list[ImageTask]:
    """Return the images that a CSV or COCO file of prompts names; `name` is that of the source."""
    if (
        isinstance(files, Mapping)
        or len(files) > 1
        or not all(path.is_dir() for path in files)
    ):
        raise ConfigError(
            "--prompts names the file of each image; give at most the folder of the files"
        )
    folder = files[0] if files else file.parent
    tasks = []
    for image, prompts in read_prompts(file).items():
        tasks.append(ImageTask(image_name(image), {name: folder / image}, prompts))
    return tasks


def _sets_of_prompts(
    predictor: Predictor,
    file: Path,
    files: Sequence[Path] | Mapping[str, Path],
    sources: Sequence[Source],
    out: Path,
) -> list[ImageTask]:
    """Return the images of several sources that a CSV or COCO file of prompts names by their ids or first files."""
    first = sources[0].name
    if isinstance(files, Mapping) or len(files) != 1 or not files[0].is_dir():
        raise ConfigError(
            f"--prompts names an image of {len(sources)} files by its id, or by its file of {first}; give the folder "
            "with the layout of a data set, and no files"
        )
    folder = files[0]
    ids = []
    known: dict[str, Mapping[str, Path]] = {}
    for name, own in _sets_in_folder(predictor, folder, sources, out):
        ids.append(name)
        file_of_first = own[first]
        path = Path(os.path.relpath(file_of_first, folder)).as_posix()
        for key in (file_of_first.name, path, name):
            known[key] = own
    prompts = read_prompts(file)
    unknown = [image for image in prompts if image not in known]
    if unknown:
        raise DataError(
            f"{file}: {few_of(unknown)}: no image of {folder}; its images are {few_of(ids)}"
        )
    return [
        ImageTask(image_name(image), known[image], marks)
        for image, marks in prompts.items()
    ]


def _needed(names: Sequence[str], files: Sequence[Path] | Mapping[str, Path]) -> str:
    """Return which files an image needs, and what was given."""
    if len(names) == 1:
        return "files or folders"
    sources = " ".join(f"--source {name}=FILE" for name in names)
    return f"{sources}, or a folder of many images, got {', '.join(map(str, files)) or 'nothing'}"


def _tiles(images: Sequence[tuple[str, Mapping[str, Path]]]) -> dict[str, Path]:
    """Return the files of all images as tiles of one map."""
    tiles: dict[str, Path] = {}
    for _, files in images:
        for file in files.values():
            tiles[f"tile {len(tiles) + 1}"] = file
    return tiles


def _are_usable(paths: Sequence[Path], sources: Sequence[Source]) -> bool:
    """Return whether images can be found at the paths; those of several sources are found in folders only."""
    return len(sources) == 1 or all(path.is_dir() for path in paths)


def _images_at(
    predictor: Predictor,
    path: Path,
    sources: Sequence[Source],
    out: Path,
    note: Note,
) -> Iterator[tuple[str, Mapping[str, Path]]]:
    """Yield output name, and source -> file, of each image of a file or folder."""
    if len(predictor.adapter.sources) > 1 and _has_sources(path, sources):
        yield from _sets_in_folder(predictor, path, sources, out)
        return
    for name, file in _named_files(predictor, path, sources[0].extensions, out, note):
        yield name, {sources[0].name: file}


def _has_sources(path: Path, sources: Sequence[Source]) -> bool:
    """Return whether the images of a folder are to be found by source, and not all files in it."""
    if len(sources) > 1:
        return True
    marks = (IMAGES, FRAMES, MANIFEST_FILE, sources[0].name)
    return any((path / name).exists() for name in marks)


def _sets_in_folder(
    predictor: Predictor, path: Path, sources: Sequence[Source], out: Path
) -> Iterator[tuple[str, Mapping[str, Path]]]:
    """Yield output name, and source -> file, of each image of a folder that has the layout of a data set."""
    samples: Sequence[Sample]
    if (path / MANIFEST_FILE).exists():
        samples = read_manifest(path, sources, masks=False)
    else:
        axis = predictor.image_loader.card.stack_axis
        samples = find_samples(path, sources, masks=False, axis=axis)
    problems = list(problems_of_file_names(sample.id for sample in samples))
    if problems:
        raise DataError(all_problems(f"{path}: ids that cannot be used:", problems))
    results = out.resolve()
    for sample in samples:
        if sample.reference.resolve().is_relative_to(results):
            raise _out_holds_images(out)
        yield name_of_files(sample.id).replace("/", "__"), sample.files


def _out_holds_images(out: Path) -> ConfigError:
    return ConfigError(
        f"--out {out}: contains the images, so a second run would segment its results; choose another folder"
    )


def _named_files(
    predictor: Predictor,
    path: Path,
    extensions: tuple[str, ...],
    out: Path,
    note: Note,
) -> Iterator[tuple[str, Path]]:
    """Yield (output name, file) of each image; the names of subfolders are part of the output name."""
    frame = frame_of(path)
    is_image = _is_image(path, extensions)
    if not is_image and stack_format(path) is not None:
        for one in frame_paths(path, predictor.image_loader.card.stack_axis):
            yield f"{frame_name(path, stack_endings())}__{one.name}", one
    elif path.is_dir() and not is_image:
        yield from _files_in_folder(predictor, path, extensions, out, note)
    elif frame is not None:
        yield f"{frame_name(frame.file, stack_endings())}__{path.name}", path
    elif is_image_folder(path):
        yield frame_name(path, extensions), path
    else:
        yield stem_of(path), path


def _is_image(path: Path, extensions: tuple[str, ...]) -> bool:
    """Return whether a path is named as one image; `extensions` are those of the sensor."""
    if path.is_dir() and not is_image_folder(path):
        return False
    return has_image_ending(path) or path.name.lower().endswith(extensions)


def _files_in_folder(
    predictor: Predictor,
    path: Path,
    extensions: tuple[str, ...],
    out: Path,
    note: Note,
) -> Iterator[tuple[str, Path]]:
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
        raise _out_holds_images(out)
    found = False
    for stem, files in sorted(files_by_stem(path, extensions).items()):
        for file in files:
            if not file.resolve().is_relative_to(results):
                found = True
                yield stem.replace("/", "__"), file
    if not found:
        raise DataError(f"{path}: holds no image ({', '.join(extensions)})")


def prompts_on_map(
    options: PredictOptions, image: ImageReader, name: str
) -> dict[str, Prompt]:
    """Return prompts in map coordinates in pixels of an image: output name of an object -> prompt.

    Raises:
        ConfigError: a prompt is outside of the image, or nothing here reads maps.
        DataError: the file cannot be read, or the image has no place on a map.
    """
    if options.prompts is None:
        return {name: _prompt_in_pixels(options, image)}
    found = geo_backend(str(options.prompts)).read_prompts(
        options.prompts, options.crs, image
    )
    return {f"{name}_{of_object}": prompt for of_object, prompt in found.items()}


def _prompt_in_pixels(options: PredictOptions, image: ImageReader) -> Prompt:
    """Return the prompt of points and a box on a map, x before y, in pixels of an image."""
    from simmat.predictor.prompts import check_inside

    places = [*options.points, *options.negative]
    corners: list[tuple[float, float]] = []
    if options.box is not None:
        x0, y0, x1, y1 = options.box
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    crs = options.crs or ""
    found = geo_backend("--crs").to_pixels([*places, *corners], crs, image)
    # the centre of the first pixel is at 0, 0
    coords = (found[: len(places)] - 0.5).tolist()
    box = None
    if corners:
        corner_xy = found[len(places) :]
        box = [*corner_xy.min(0), *corner_xy.max(0)]  # a turned map has a turned box
    count = len(options.points)
    prompt = make_prompt(coords[:count], coords[count:], box)
    try:
        check_inside(prompt, image)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; these are the pixels of the prompt in {crs}: X comes before Y, longitude before latitude"
        ) from error
    return prompt


def read_prompts(path: Path) -> dict[str, dict[str, Prompt]]:
    """Read the prompts of a file for many images: file of an image -> output name of an object -> prompt.

    A CSV has the columns `file`, `object` and `point` ("X,Y") or `box` ("X0,Y0,X1,Y1"), and optionally `negative`;
    rows of one object are one prompt. A COCO json gives the box of each annotation, whose id is the object.

    Raises:
        DataError: it cannot be read, or some prompts in it cannot be used; the message names all of them.
    """
    is_coco = path.suffix.lower() == ".json"
    table, problems = _read_coco(path) if is_coco else _read_csv(path)
    found: dict[str, dict[str, Prompt]] = {}
    for (file, name), marks in table.items():
        where = f"object {name!r} of {file}"
        if Path(file).name in ("", "..") or "\0" in file:
            problems.append(f"{where}: file must name an image")
            continue
        if name in (".", "..") or set(name) & set("/\\\0"):
            problems.append(
                f"{where}: the name becomes part of a file name; leave out / and \\"
            )
            continue
        boxes = marks["box"]
        if len(boxes) > 1:
            problems.append(f"{where}: a second box; an object has one")
        box = boxes[0] if boxes else None
        try:
            prompt = make_prompt(marks["point"], marks["negative"], box)
        except (ConfigError, DataError) as error:
            problems.append(f"{where}: {error}")
        else:
            found.setdefault(file, {})[f"{image_name(file)}_{name}"] = prompt
    if problems:
        raise DataError(all_problems(f"{path}: prompts that cannot be used:", problems))
    if not found:
        raise DataError(
            f"{path}: no prompts; a row is a file, an object and a point or a box"
        )
    return found


def image_name(file: str) -> str:
    """Return what the names of the results of an image begin with: "a__b" for "a/b.png"."""
    path = posixpath.normpath(Path(file).with_suffix("").as_posix())
    return path.strip("/").replace("/", "__")


def _read_csv(path: Path) -> tuple[_Marks, list[str]]:
    """Return the marks of a CSV, and what is wrong with it."""
    columns = ("file", "object", *_FORMS)
    header, rows = read_csv_rows(
        path, "prompts file", ",".join(columns), hint='; put a pair in quotes, "10,20"'
    )
    names = set(header)
    has_marks = "point" in names or "box" in names
    if not has_marks or not {"file", "object"} <= names <= set(columns):
        raise DataError(
            f"{path}: the columns are {', '.join(header)}; needed are file, object and point or box; negative is "
            "optional"
        )
    table: _Marks = {}
    problems: list[str] = []
    for line, cells in rows:
        row = dict(zip(header, cells, strict=True))
        if not row["file"] or not row["object"]:
            problems.append(f"line {line}: file and object must be given")
            continue
        marks = table.setdefault((row["file"], row["object"]), defaultdict(list))
        try:
            for column, form in _FORMS.items():
                if row.get(column):
                    marks[column].append(parse_numbers(row[column], form))
        except ValueError as error:
            where = f"line {line}: object {row['object']!r} of {row['file']}"
            got = ", ".join(repr(cell) for cell in cells if cell)
            problems.append(f"{where}: point, negative or box {error}, got {got}")
    return table, problems


def _read_coco(path: Path) -> tuple[_Marks, list[str]]:
    """Return the boxes of a COCO json, and what is wrong with it."""
    content = read_json(path, "prompts file")
    if not isinstance(content, dict):
        content = {}
    images = content.get("images")
    annotations = content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(f"{path}: COCO json needs the lists images and annotations")
    names: dict[str, str] = {}
    for image in images:
        if not isinstance(image, Mapping) or not isinstance(
            image.get("file_name"), str
        ):
            raise DataError(f"{path}: an image has no file_name")
        names[str(image.get("id"))] = image["file_name"]
    table: _Marks = {}
    problems: list[str] = []
    for number, annotation in enumerate(annotations):
        box = annotation.get("bbox") if isinstance(annotation, dict) else None
        if not _is_box(box):
            problems.append(
                f"annotations[{number}]: bbox must be [x, y, width, height], got {box!r}"
            )
            continue
        name = names.get(str(annotation.get("image_id")))
        if name is None:
            problems.append(
                f"annotations[{number}]: no image has the id {annotation.get('image_id')!r}"
            )
            continue
        key = name, str(annotation.get("id", number))
        if key in table:
            problems.append(
                f"annotations[{number}]: another one of {name} has the id {key[1]}"
            )
        x, y, width, height = box
        table[key] = defaultdict(list, box=[(x, y, x + width, y + height)])
    return table, problems


def _is_box(value: object) -> TypeGuard[list[float]]:
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(
        isinstance(number, int | float) and abs(number) < 2**31 for number in value
    )
