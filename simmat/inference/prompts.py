"""Prompts of files, and prompts in map coordinates."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simmat.errors import ConfigError, DataError, all_problems
from simmat.geo import geo_backend
from simmat.inference.request import BOX, POINT, MapPrompts, make_prompt, parse_numbers
from simmat.io.reading import read_csv_rows, read_json
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.types import ImageReader

_Table = dict[tuple[str, str], tuple[list[Sequence[float]], list[Sequence[float]], list[Sequence[float]]]]
"""(file, object) -> points on the object, points off it, boxes."""


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
    """
    problems: list[str] = []
    table = (_read_coco if path.suffix.lower() == ".json" else _read_csv)(path, problems)
    found: dict[str, dict[str, Prompt]] = {}
    for (file, name), (points, negative, boxes) in table.items():
        where = f"object {name!r} of {file}"
        if any(character in name for character in "/\\\0") or name in (".", ".."):
            problems.append(f"{where}: the name becomes part of a file name; leave out / and \\")
            continue
        if len(boxes) > 1:
            problems.append(f"{where}: a second box; an object has one")
        try:
            prompt = make_prompt(points, negative, boxes[0] if boxes else None)
            found.setdefault(file, {})[f"{image_name(file)}_{name}"] = prompt
        except (ConfigError, DataError) as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise DataError(all_problems(f"{path}: prompts that cannot be used:", problems))
    if not found:
        raise DataError(f"{path}: no prompts; a row is a file, an object and a point or a box")
    return found


def image_name(file: str) -> str:
    """Return what the names of the results of an image begin with: "a__b" for "a/b.png"."""
    return posixpath.normpath(Path(file).with_suffix("").as_posix()).strip("/").replace("/", "__")


def _read_csv(path: Path, problems: list[str]) -> _Table:
    columns, hint = "file,object,point,negative,box", '; put a pair in quotes, "10,20"'
    header, rows = read_csv_rows(path, "prompts file", columns, hint=hint)
    names = set(header)
    if not {"file", "object"} <= names <= set(columns.split(",")) or not names & {"point", "box"}:
        raise DataError(
            f"{path}: the columns are {', '.join(header)}; needed are file, object and point or box; negative is "
            "optional"
        )
    table: _Table = {}
    for line, cells in rows:
        row = dict(zip(header, cells, strict=True))
        if not row["file"] or not row["object"]:
            problems.append(f"line {line}: file and object must be given")
            continue
        marks = table.setdefault((row["file"], row["object"]), ([], [], []))
        try:
            for name, form, numbers in zip(("point", "negative", "box"), (POINT, POINT, BOX), marks, strict=True):
                if row.get(name):
                    numbers.append(parse_numbers(row[name], form))
        except ValueError as error:
            where = f"line {line}: object {row['object']!r} of {row['file']}"
            problems.append(f"{where}: point, negative or box {error}, got {', '.join(map(repr, filter(None, cells)))}")
    return table


def _read_coco(path: Path, problems: list[str]) -> _Table:
    content = read_json(path, "prompts file")
    if not isinstance(content, dict):
        content = {}
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(f"{path}: COCO json needs the lists images and annotations")
    if not all(isinstance(image, Mapping) and isinstance(image.get("file_name"), str) for image in images):
        raise DataError(f"{path}: an image has no file_name")
    names = {str(image.get("id")): image["file_name"] for image in images}
    table: _Table = {}
    for number, annotation in enumerate(annotations):
        box = annotation.get("bbox") if isinstance(annotation, dict) else None
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_coordinate, box)):
            problems.append(f"annotations[{number}]: bbox must be [x, y, width, height], got {box!r}")
            continue
        name = names.get(str(annotation.get("image_id")))
        if name is None:
            problems.append(f"annotations[{number}]: no image has the id {annotation.get('image_id')!r}")
            continue
        x, y, width, height = box
        key = name, str(annotation.get("id", number))
        if key in table:
            problems.append(f"annotations[{number}]: another one of {name} has the id {key[1]}")
        table[key] = [], [], [(x, y, x + width, y + height)]
    return table


def _is_coordinate(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 2**31
