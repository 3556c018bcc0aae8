"""Prompts: those of the command line, and those of a file for many images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmat.cli.records import files_key
from simmat.errors import ConfigError, DataError, all_problems
from simmat.geo import geo_backend
from simmat.io.files import read_json, read_rows
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.types import ImageReader

_LIMIT = 2**31
_POINT, _BOX = "X,Y", "X0,Y0,X1,Y1"
MAP_ENDINGS = (".geojson", ".gpkg", ".shp", ".fgb")
"""Endings of prompts files in map coordinates."""


@dataclass
class _Texts:
    """A prompt as the texts of a file."""

    points: list[str] = field(default_factory=list)
    negative: list[str] = field(default_factory=list)
    box: str | None = None


_Table = dict[str, dict[str, _Texts]]
"""file -> object -> prompt."""


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
    in_image: Callable[[ImageReader], dict[str, Prompt]]


@dataclass(frozen=True)
class PromptOptions:
    """The options that say what to segment."""

    point: tuple[str, ...]
    negative: tuple[str, ...]
    box: str | None
    prompts: Path | None
    crs: str | None

    @property
    def is_map_file(self) -> bool:
        """True for a prompts file of points and polygons in map coordinates."""
        return self.prompts is not None and self.prompts.suffix.lower() in MAP_ENDINGS

    def check(self, *, searched: bool, search: Mapping[str, Any]) -> None:
        """Raise ConfigError if options contradict each other, or those in `search`, which are for no prompt."""
        single = bool(self.point or self.negative or self.box is not None)
        if searched:
            if single or self.prompts is not None or self.crs is not None:
                raise ConfigError(
                    "--everything and --semantic need no prompt; leave --point, --box, --prompts and --crs out"
                )
            return
        if extra := [name for name, value in search.items() if name not in ("formats", "tile") and value]:
            flag = extra[0].replace("_", "-")
            raise ConfigError(f"--{flag} is for --everything and --semantic; add one of them, or leave it out")
        if self.prompts is not None:
            if single:
                raise ConfigError("--prompts gives the prompts of each image; leave --point, --negative and --box out")
            if self.crs is not None and not self.is_map_file:
                raise ConfigError(f"--crs is for --point, --box and for prompts files {', '.join(MAP_ENDINGS)}")
        else:
            make_prompt(self.point, self.negative, self.box)
        if self.crs is not None or self.is_map_file:
            geo_backend("a prompt in map coordinates")

    def of_image(self, name: str) -> Prompts:
        """Return the prompts for an image; `name` begins the names of its outputs."""
        if self.prompts is not None:
            return map_features(name, self.prompts, self.crs)
        if self.crs is not None:
            return map_prompt(name, self.point, self.negative, self.box, self.crs)
        return pixel_prompts({name: make_prompt(self.point, self.negative, self.box)})


def pixel_prompts(prompts: Mapping[str, Prompt]) -> Prompts:
    """Return prompts in pixels: output name -> prompt."""
    key = repr([(name, prompt_values(prompt)) for name, prompt in prompts.items()])
    return Prompts(tuple(prompts), key, lambda image: dict(prompts))


def map_prompt(name: str, points: Sequence[str], negative: Sequence[str], box: str | None, crs: str) -> Prompts:
    """Parse a prompt in coordinates of `crs`, x before y; the texts are those of `make_prompt`."""
    make_prompt(points, negative, box)
    map_coords = [_numbers("--point", text, _POINT) for text in (*points, *negative)]
    corners = [] if box is None else _numbers("--box", box, _BOX)

    def in_image(image: ImageReader) -> dict[str, Prompt]:
        from simmat.predictor.prompts import check_inside

        to_pixels = geo_backend("--crs").to_pixels
        coords = (to_pixels(map_coords, crs, image) - 0.5).astype(np.float32)
        box_px = None
        if box is not None:
            x0, y0, x1, y1 = corners
            edges = to_pixels([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], crs, image)
            box_px = np.concatenate([edges.min(0), edges.max(0)]).astype(np.float32)
        prompt = Prompt(coords, np.asarray([1] * len(points) + [0] * len(negative), np.int64), box_px)
        try:
            check_inside(prompt, image)
        except ConfigError as error:
            raise ConfigError(
                f"{error}; these are the pixels of the prompt in {crs}: X comes before Y, longitude before latitude"
            ) from error
        return {name: prompt}

    return Prompts((name,), repr([name, map_coords, len(points), corners, crs]), in_image)


def map_features(name: str, path: Path, crs: str | None) -> Prompts:
    """Return the points and polygons of a file that OGR opens; `crs` replaces the file's own coordinate system.

    The output names of the objects begin with `name`.
    """

    def in_image(image: ImageReader) -> dict[str, Prompt]:
        found = geo_backend(f"{path}").read_prompts(path, crs, image)
        return {f"{name}_{object_}": prompt for object_, prompt in found.items()}

    return Prompts(None, repr([name, crs, files_key({"": path})]), in_image)


def prompt_values(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as json values."""
    return {
        "point_coords_xy": prompt.point_coords.tolist(),
        "point_labels": prompt.point_labels.tolist(),
        "box_xyxy": prompt.box.tolist() if prompt.box is not None else None,
    }


def make_prompt(points: Sequence[str], negative: Sequence[str], box: str | None, *, prefix: str = "--") -> Prompt:
    """Make a prompt from points "X,Y" and a box "X0,Y0,X1,Y1"; `prefix` comes before the names in messages."""
    positive = [_numbers(f"{prefix}point", text, _POINT) for text in points]
    negatives = [_numbers(f"{prefix}negative", text, _POINT) for text in negative]
    if not positive and box is None:
        raise ConfigError(f"no point on an object and no box; give {prefix}point {_POINT} or {prefix}box {_BOX}")
    corners = np.asarray(_numbers(f"{prefix}box", box, _BOX), dtype=np.float32) if box is not None else None
    with np.errstate(over="ignore"):  # the check against the image bounds refuses infinity
        coords = np.asarray([*positive, *negatives], dtype=np.float32).reshape(-1, 2)
    return Prompt(coords, np.asarray([1] * len(positive) + [0] * len(negatives), dtype=np.int64), corners)


def read_prompts(path: Path) -> dict[str, dict[str, Prompt]]:
    """Read a prompts file: file -> object -> prompt.

    A CSV has the columns `file`, `object` and `point` ("X,Y") or `box` ("X0,Y0,X1,Y1"), and optionally `negative`;
    rows of one object are one prompt. A COCO json gives the box of each annotation, whose id is the object.
    """
    problems: list[str] = []
    table = (_read_coco if path.suffix.lower() == ".json" else _read_csv)(path, problems)
    prompts: dict[str, dict[str, Prompt]] = {}
    for file, objects in table.items():
        for name, texts in objects.items():
            if any(character in name for character in "/\\\0") or name in (".", ".."):
                problems.append(f"object {name!r} of {file}: the name becomes part of a file name; leave out / and \\")
                continue
            try:
                prompts.setdefault(file, {})[name] = make_prompt(texts.points, texts.negative, texts.box, prefix="")
            except (ConfigError, DataError) as error:
                problems.append(f"object {name!r} of {file}: {error}")
    if problems:
        raise DataError(all_problems(f"{path}: prompts that cannot be used:", problems))
    if not prompts:
        raise DataError(f"{path}: no prompts; a row is a file, an object and a point or a box")
    return prompts


def _read_csv(path: Path, problems: list[str]) -> _Table:
    columns, hint = "file,object,point,negative,box", '; put a pair in quotes, "10,20"'
    header, rows = read_rows(path, "prompts file", columns, limit=_LIMIT, hint=hint)
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
        texts = table.setdefault(row["file"], {}).setdefault(row["object"], _Texts())
        texts.points += [row["point"]] if row.get("point") else []
        texts.negative += [row["negative"]] if row.get("negative") else []
        if row.get("box"):
            if texts.box is not None:
                problems.append(f"line {line}: a second box of object {row['object']!r}; an object has one")
            texts.box = row["box"]
    return table


def _read_coco(path: Path, problems: list[str]) -> _Table:
    content = read_json(path, "prompts file", limit=_LIMIT)
    if not isinstance(content, dict):
        raise DataError(f"{path}: COCO json must be an object with images and annotations")
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(f"{path}: COCO json needs the lists images and annotations")
    if not all(isinstance(image, Mapping) and isinstance(image.get("file_name"), str) for image in images):
        raise DataError(f"{path}: an image has no file_name")
    names = {str(image.get("id")): image["file_name"] for image in images}
    table: _Table = {}
    for number, annotation in enumerate(annotations):
        box = annotation.get("bbox") if isinstance(annotation, dict) else None
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
            problems.append(f"annotations[{number}]: bbox must be [x, y, width, height], got {box!r}")
            continue
        name = names.get(str(annotation.get("image_id")))
        if name is None:
            problems.append(f"annotations[{number}]: no image has the id {annotation.get('image_id')!r}")
            continue
        x, y, width, height = box
        texts = _Texts(box=f"{x},{y},{x + width},{y + height}")
        table.setdefault(name, {})[str(annotation.get("id", number))] = texts
    return table


def _numbers(name: str, text: str, form: str) -> list[float]:
    try:
        values = [float(part) for part in text.replace(" ", "").split(",")]
    except ValueError:
        values = []
    if len(values) != form.count(",") + 1 or not np.isfinite(values).all():
        raise ConfigError(f"{name} takes {form} in pixels, with commas and without spaces, got {text!r}")
    return values
