"""What is asked about which image: prompts of the command line, or of a file for many images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simmat.errors import ConfigError, DataError, all_problems
from simmat.io.files import read_bytes, read_json
from simmat.types import Prompt

COLUMNS = ("file", "object", "point", "negative", "box")
_LIMIT = 2**31
_POINT, _BOX = "X,Y", "X0,Y0,X1,Y1"


def make_prompt(points: Sequence[str], negative: Sequence[str], box: str | None, *, where: str = "--") -> Prompt:
    """Make a prompt from texts.

    Args:
        points: "X,Y" on the object.
        negative: "X,Y" not on it.
        box: "X0,Y0,X1,Y1".
        where: what stands before the names in messages.

    Raises:
        ConfigError: a text is no such numbers, or there is neither a point nor a box.
        DataError: the box is empty.
    """
    positive = [_numbers(f"{where}point", text, _POINT) for text in points]
    others = [_numbers(f"{where}negative", text, _POINT) for text in negative]
    if not positive and box is None:
        raise ConfigError(f"nothing says what to segment; give {where}point {_POINT} or {where}box {_BOX}")
    corners = np.asarray(_numbers(f"{where}box", box, _BOX), dtype=np.float32) if box is not None else None
    with np.errstate(over="ignore"):  # the bounds of the image refuse infinity
        coords = np.asarray([*positive, *others], dtype=np.float32).reshape(-1, 2)
    labels = np.asarray([1] * len(positive) + [0] * len(others), dtype=np.int64)
    return Prompt(coords, labels, corners)


def read_prompts(path: Path) -> dict[str, dict[str, Prompt]]:
    """Read a prompts file: file -> object -> prompt.

    A CSV has the columns `file`, `object` and `point` ("X,Y") or `box` ("X0,Y0,X1,Y1"), and where wanted `negative`;
    rows of one object are one prompt. A COCO json gives the box of each annotation; its id is the object.

    Raises:
        DataError: all that is wrong with it, at once.
    """
    found = _read_coco(path) if path.suffix.lower() == ".json" else _read_csv(path)
    if not found:
        raise DataError(f"{path}: no prompts; a row is a file, an object and a point or a box")
    return found


@dataclass
class _Texts:
    points: list[str] = field(default_factory=list)
    negative: list[str] = field(default_factory=list)
    box: str | None = None


def _read_csv(path: Path) -> dict[str, dict[str, Prompt]]:
    content = read_bytes(path, "prompts file", limit=_LIMIT)
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not CSV in UTF-8 ({error})") from error
    names = set(rows[0]) if rows else set(COLUMNS)
    if not {"file", "object"} <= names or not names & {"point", "box"} or not names <= set(COLUMNS):
        got = ", ".join(map(str, rows[0])) if rows else ""
        raise DataError(
            f"{path}: the columns are {got}; needed are file, object and point or box; negative is optional"
        )
    texts: dict[str, dict[str, _Texts]] = {}
    problems: list[str] = []
    for line, row in enumerate(rows, start=2):
        if None in row or not row["file"] or not row["object"]:
            problems.append(f"line {line}: file and object must be given, with a cell for each column and no more")
            continue
        said = texts.setdefault(row["file"], {}).setdefault(row["object"], _Texts())
        said.points += [row["point"]] if row.get("point") else []
        said.negative += [row["negative"]] if row.get("negative") else []
        if row.get("box"):
            if said.box is not None:
                problems.append(f"line {line}: a second box of object {row['object']!r}; an object has one")
            said.box = row["box"]
    return _made(path, texts, problems)


def _read_coco(path: Path) -> dict[str, dict[str, Prompt]]:
    content = read_json(path, "prompts file", limit=_LIMIT)
    if not isinstance(content, dict):
        raise DataError(f"{path}: COCO json is an object with images and annotations")
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(f"{path}: COCO json needs the lists images and annotations")
    problems: list[str] = []
    names: dict[Any, str] = {}
    for image in images:
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            raise DataError(f"{path}: an image has no file_name")
        names[str(image.get("id"))] = image["file_name"]
    texts: dict[str, dict[str, _Texts]] = {}
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
        said = texts.setdefault(name, {})
        said[str(annotation.get("id", number))] = _Texts(box=f"{x},{y},{x + width},{y + height}")
    return _made(path, texts, problems)


def _made(path: Path, texts: Mapping[str, Mapping[str, _Texts]], problems: list[str]) -> dict[str, dict[str, Prompt]]:
    found: dict[str, dict[str, Prompt]] = {}
    for file, objects in texts.items():
        for name, said in objects.items():
            if any(mark in name for mark in "/\\\0") or name in (".", ".."):
                problems.append(f"object {name!r} of {file}: it becomes part of a file name; leave out / and \\")
                continue
            try:
                found.setdefault(file, {})[name] = make_prompt(said.points, said.negative, said.box, where="")
            except (ConfigError, DataError) as error:
                problems.append(f"object {name!r} of {file}: {error}")
    if problems:
        raise DataError(all_problems(f"{path}: prompts that cannot be used:", problems))
    return found


def _numbers(name: str, text: str, form: str) -> list[float]:
    parts = text.replace(" ", "").split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != form.count(",") + 1 or not np.isfinite(values).all():
        raise ConfigError(f"{name} takes {form} in pixels, got {text!r}")
    return values
