"""Prompts of files, and prompts in map coordinates."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from simmat.errors import ConfigError, DataError, all_problems
from simmat.geo import geo_backend
from simmat.inference.request import BOX, POINT, MapPrompts, make_prompt, parse_numbers
from simmat.io.files import read_csv_rows, read_json
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.types import ImageReader

_COLUMNS = ("file", "object", "point", "negative", "box")


@dataclass
class _Marks:
    """What a file says of one object: points on it, points off it, boxes."""

    points: list[Sequence[float]] = field(default_factory=list)
    negative: list[Sequence[float]] = field(default_factory=list)
    boxes: list[Sequence[float]] = field(default_factory=list)


_Table = dict[tuple[str, str], _Marks]
"""(file, object) -> its marks."""


def prompts_on_map(prompts: MapPrompts, image: ImageReader, name: str) -> dict[str, Prompt]:
    """Return prompts in map coordinates in pixels of an image: output name of an object -> prompt.

    Raises:
        ConfigError: a prompt is outside of the image, or nothing here reads maps.
        DataError: the file cannot be read, or the image has no place on a map.
    """
    if prompts.file is None:
        return {name: _prompt_in_pixels(prompts, image)}
    found = geo_backend(str(prompts.file)).read_prompts(prompts.file, prompts.crs, image)
    return {f"{name}_{of_object}": prompt for of_object, prompt in found.items()}


def _prompt_in_pixels(prompts: MapPrompts, image: ImageReader) -> Prompt:
    """Return the prompt of points and a box on a map, x before y, in pixels of an image."""
    from simmat.predictor.prompts import check_inside

    places = [*prompts.points, *prompts.negative]
    corners: list[tuple[float, float]] = []
    if prompts.box is not None:
        x0, y0, x1, y1 = prompts.box
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    crs = prompts.crs or ""
    found = geo_backend("--crs").to_pixels([*places, *corners], crs, image)
    coords = (found[: len(places)] - 0.5).tolist()  # the centre of the first pixel is at 0, 0
    box = None
    if corners:
        corner_xy = found[len(places) :]
        box = [*corner_xy.min(0), *corner_xy.max(0)]  # a turned map has a turned box
    count = len(prompts.points)
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
        if name in (".", "..") or set(name) & set("/\\\0"):
            problems.append(f"{where}: the name becomes part of a file name; leave out / and \\")
            continue
        if len(marks.boxes) > 1:
            problems.append(f"{where}: a second box; an object has one")
        box = marks.boxes[0] if marks.boxes else None
        try:
            prompt = make_prompt(marks.points, marks.negative, box)
        except (ConfigError, DataError) as error:
            problems.append(f"{where}: {error}")
        else:
            found.setdefault(file, {})[f"{image_name(file)}_{name}"] = prompt
    if problems:
        raise DataError(all_problems(f"{path}: prompts that cannot be used:", problems))
    if not found:
        raise DataError(f"{path}: no prompts; a row is a file, an object and a point or a box")
    return found


def image_name(file: str) -> str:
    """Return what the names of the results of an image begin with: "a__b" for "a/b.png"."""
    path = posixpath.normpath(Path(file).with_suffix("").as_posix())
    return path.strip("/").replace("/", "__")


def _read_csv(path: Path) -> tuple[_Table, list[str]]:
    """Return the marks of a CSV, and what is wrong with it."""
    header, rows = read_csv_rows(path, "prompts file", ",".join(_COLUMNS), hint='; put a pair in quotes, "10,20"')
    names = set(header)
    has_marks = "point" in names or "box" in names
    if not has_marks or not {"file", "object"} <= names <= set(_COLUMNS):
        raise DataError(
            f"{path}: the columns are {', '.join(header)}; needed are file, object and point or box; negative is "
            "optional"
        )
    table: _Table = {}
    problems: list[str] = []
    for line, cells in rows:
        row = dict(zip(header, cells, strict=True))
        if not row["file"] or not row["object"]:
            problems.append(f"line {line}: file and object must be given")
            continue
        marks = table.setdefault((row["file"], row["object"]), _Marks())
        try:
            if row.get("point"):
                marks.points.append(parse_numbers(row["point"], POINT))
            if row.get("negative"):
                marks.negative.append(parse_numbers(row["negative"], POINT))
            if row.get("box"):
                marks.boxes.append(parse_numbers(row["box"], BOX))
        except ValueError as error:
            where = f"line {line}: object {row['object']!r} of {row['file']}"
            got = ", ".join(repr(cell) for cell in cells if cell)
            problems.append(f"{where}: point, negative or box {error}, got {got}")
    return table, problems


def _read_coco(path: Path) -> tuple[_Table, list[str]]:
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
        if not isinstance(image, Mapping) or not isinstance(image.get("file_name"), str):
            raise DataError(f"{path}: an image has no file_name")
        names[str(image.get("id"))] = image["file_name"]
    table: _Table = {}
    problems: list[str] = []
    for number, annotation in enumerate(annotations):
        box = annotation.get("bbox") if isinstance(annotation, dict) else None
        if not _is_box(box):
            problems.append(f"annotations[{number}]: bbox must be [x, y, width, height], got {box!r}")
            continue
        name = names.get(str(annotation.get("image_id")))
        if name is None:
            problems.append(f"annotations[{number}]: no image has the id {annotation.get('image_id')!r}")
            continue
        key = name, str(annotation.get("id", number))
        if key in table:
            problems.append(f"annotations[{number}]: another one of {name} has the id {key[1]}")
        x, y, width, height = box
        table[key] = _Marks(boxes=[(x, y, x + width, y + height)])
    return table, problems


def _is_box(value: object) -> TypeGuard[list[float]]:
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(isinstance(number, int | float) and abs(number) < 2**31 for number in value)
