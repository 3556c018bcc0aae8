"""Prompts: the same for every image of a call, or those of a file for each."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError, all_problems
from simmat.geo import geo_backend
from simmat.inference.records import files_key
from simmat.io.files import read_json, read_rows
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.types import ImageReader

_MAX_BYTES = 2**31
POINT, BOX = "X,Y", "X0,Y0,X1,Y1"
"""How a point and a box are written."""


@dataclass(frozen=True)
class Prompts:
    """The prompts for one image.

    Attributes:
        names: output names of the objects; None if they depend on the image.
        key: identifies the prompts; equal prompts have equal keys.
        in_image: returns output name -> prompt in pixels of an image.
    """

    names: tuple[str, ...] | None
    key: str
    in_image: Callable[[ImageReader], Mapping[str, Prompt]]


@dataclass
class Marks:
    """What marks an object: points (x, y) and a box (x0, y0, x1, y1), in pixels or map coordinates."""

    points: list[Sequence[float]] = field(default_factory=list)
    negative: list[Sequence[float]] = field(default_factory=list)
    box: Sequence[float] | None = None

    def prompt(self, prefix: str = "") -> Prompt:
        """Return the prompt; `prefix` comes before the names in messages."""
        if not self.points and self.box is None:
            raise ConfigError(f"no point on an object and no box; give {prefix}point {POINT} or {prefix}box {BOX}")
        with np.errstate(over="ignore"):  # the check against the image bounds refuses infinity
            coords = np.asarray([*self.points, *self.negative], np.float32).reshape(-1, 2)
            corners = None if self.box is None else np.asarray(self.box, np.float32)
        return Prompt(coords, self.labels, corners)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) 1 for points on the object, 0 for others."""
        return np.asarray([1] * len(self.points) + [0] * len(self.negative), np.int64)


_Table = dict[str, dict[str, Marks]]
"""file -> object -> what marks it."""


def pixel_prompts(prompts: Mapping[str, Prompt]) -> Prompts:
    """Return prompts in pixels: output name -> prompt."""
    key = repr([(name, prompt_values(prompt)) for name, prompt in prompts.items()])
    return Prompts(tuple(prompts), key, partial(_given, prompts))


def map_prompt(name: str, marks: Marks, crs: str) -> Prompts:
    """Return a prompt in coordinates of `crs`, x before y."""
    return Prompts((name,), repr([name, marks, crs]), partial(_map_prompt_in_image, name, marks, crs))


def file_prompts(name: str, path: Path, crs: str | None) -> Prompts:
    """Return the points and polygons of a file that OGR opens; `crs` replaces the file's own coordinate system."""
    key = repr([name, crs, files_key({"": path})])
    return Prompts(None, key, partial(_features_in_image, name, path, crs))


def _given(prompts: Mapping[str, Prompt], image: ImageReader) -> Mapping[str, Prompt]:
    return prompts


def _map_prompt_in_image(name: str, marks: Marks, crs: str, image: ImageReader) -> Mapping[str, Prompt]:
    """Return a prompt in coordinates of `crs`, x before y, in pixels of an image."""
    from simmat.predictor.prompts import check_inside

    to_pixels, box = geo_backend("--crs").to_pixels, None
    coords = (to_pixels([*marks.points, *marks.negative], crs, image) - 0.5).astype(np.float32)
    if marks.box is not None:
        x0, y0, x1, y1 = marks.box
        corners = to_pixels([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], crs, image)
        box = np.concatenate([corners.min(0), corners.max(0)]).astype(np.float32)
    prompt = Prompt(coords, marks.labels, box)
    try:
        check_inside(prompt, image)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; these are the pixels of the prompt in {crs}: X comes before Y, longitude before latitude"
        ) from error
    return {name: prompt}


def _features_in_image(name: str, path: Path, crs: str | None, image: ImageReader) -> Mapping[str, Prompt]:
    """Return the points and polygons of a file that OGR opens, in pixels of an image."""
    found = geo_backend(str(path)).read_prompts(path, crs, image)
    return {f"{name}_{object_}": prompt for object_, prompt in found.items()}


def prompt_values(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as json values."""
    return {
        "point_coords_xy": prompt.point_coords.tolist(),
        "point_labels": prompt.point_labels.tolist(),
        "box_xyxy": prompt.box.tolist() if prompt.box is not None else None,
    }


def read_prompts(path: Path) -> dict[str, Prompts]:
    """Read the prompts of a file for many images: file of an image -> its prompts.

    A CSV has the columns `file`, `object` and `point` ("X,Y") or `box` ("X0,Y0,X1,Y1"), and optionally `negative`;
    rows of one object are one prompt. A COCO json gives the box of each annotation, whose id is the object.
    """
    problems: list[str] = []
    table = (_read_coco if path.suffix.lower() == ".json" else _read_csv)(path, problems)
    found: dict[str, Prompts] = {}
    for file, objects in table.items():
        prompts: dict[str, Prompt] = {}
        for name, marks in objects.items():
            if any(character in name for character in "/\\\0") or name in (".", ".."):
                problems.append(f"object {name!r} of {file}: the name becomes part of a file name; leave out / and \\")
                continue
            try:
                prompts[f"{image_name(file)}_{name}"] = marks.prompt()
            except (ConfigError, DataError) as error:
                problems.append(f"object {name!r} of {file}: {error}")
        found[file] = pixel_prompts(prompts)
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
    header, rows = read_rows(path, "prompts file", columns, limit=_MAX_BYTES, hint=hint)
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
        marks = table.setdefault(row["file"], {}).setdefault(row["object"], Marks())
        where = f"line {line}: object {row['object']!r} of {row['file']}"
        try:
            marks.points += [parse_numbers(row["point"], POINT)] if row.get("point") else []
            marks.negative += [parse_numbers(row["negative"], POINT)] if row.get("negative") else []
            if row.get("box"):
                if marks.box is not None:
                    problems.append(f"{where}: a second box; an object has one")
                marks.box = parse_numbers(row["box"], BOX)
        except ValueError as error:
            problems.append(f"{where}: point, negative or box {error}, got {', '.join(map(repr, filter(None, cells)))}")
    return table


def _read_coco(path: Path, problems: list[str]) -> _Table:
    content = read_json(path, "prompts file", limit=_MAX_BYTES)
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
        table.setdefault(name, {})[str(annotation.get("id", number))] = Marks(box=(x, y, x + width, y + height))
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
