"""Prompts as the command line and files state them."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmat.errors import ConfigError, DataError, all_problems
from simmat.geo import geo_backend
from simmat.io.reading import read_csv_rows, read_json
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.types import ImageReader

_Table = dict[tuple[str, str], tuple[list[Sequence[float]], list[Sequence[float]], list[Sequence[float]]]]
"""(file, object) -> points on the object, points off it, boxes."""
POINT, BOX = "X,Y", "X0,Y0,X1,Y1"
"""How a point and a box are written."""


def make_prompt(
    points: Sequence[Sequence[float]],
    negative: Sequence[Sequence[float]],
    box: Sequence[float] | None,
    prefix: str = "",
) -> Prompt:
    """Return the prompt of points (x, y) on and off an object and its box; `prefix` comes before names in messages."""
    if not points and box is None:
        raise ConfigError(f"no point on an object and no box; give {prefix}point {POINT} or {prefix}box {BOX}")
    with np.errstate(over="ignore"):  # the check against the image bounds refuses infinity
        coords = np.asarray([*points, *negative], np.float32).reshape(-1, 2)
        corners = None if box is None else np.asarray(box, np.float32)
    return Prompt(coords, np.asarray([1] * len(points) + [0] * len(negative), np.int64), corners)


def prompt_in_pixels(
    points: Sequence[Sequence[float]],
    negative: Sequence[Sequence[float]],
    box: Sequence[float] | None,
    crs: str,
    image: ImageReader,
) -> Prompt:
    """Return the prompt of points and a box in coordinates of `crs`, x before y, in pixels of an image."""
    from simmat.predictor.prompts import check_inside

    x0, y0, x1, y1 = box or (0, 0, 0, 0)
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)] if box is not None else []
    found = geo_backend("--crs").to_pixels([*points, *negative, *corners], crs, image)
    coords, corner_xy = (found[: len(found) - len(corners)] - 0.5).tolist(), found[len(found) - len(corners) :]
    around = [*corner_xy.min(0), *corner_xy.max(0)] if corners else None
    prompt = make_prompt(coords[: len(points)], coords[len(points) :], around)
    try:
        check_inside(prompt, image)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; these are the pixels of the prompt in {crs}: X comes before Y, longitude before latitude"
        ) from error
    return prompt


def prompt_values(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as json values."""
    return {
        "point_coords_xy": prompt.point_coords.tolist(),
        "point_labels": prompt.point_labels.tolist(),
        "box_xyxy": prompt.box.tolist() if prompt.box is not None else None,
    }


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
                numbers += [parse_numbers(row[name], form)] if row.get(name) else []
        except ValueError as error:
            where = f"line {line}: object {row['object']!r} of {row['file']}"
            problems.append(f"{where}: point, negative or box {error}, got {', '.join(map(repr, filter(None, cells)))}")
    return table


def _read_coco(path: Path, problems: list[str]) -> _Table:
    content = read_json(path, "prompts file")
    content = content if isinstance(content, dict) else {}
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


def parse_numbers(text: str, form: str) -> tuple[float, ...]:
    """Parse "10,20", which is written as `form`; raise ValueError for anything else."""
    try:
        values = tuple(float(part) for part in text.replace(" ", "").split(","))
    except ValueError:
        values = ()
    if len(values) != form.count(",") + 1 or not np.isfinite(values).all():
        raise ValueError(f"must be {form}, with commas and without spaces")
    return values
