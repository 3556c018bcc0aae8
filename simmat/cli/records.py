"""The json of each image that a call has written: it says what to skip, and which files may be replaced."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.errors import ConfigError, SimMATError
from simmat.io.files import read_json, shown_url

if TYPE_CHECKING:
    from simmat.predictor import Predictor

FORMAT = 1
"""Format number of the json of an image or object; increased when an older reader would misread a change."""
COCO_FILE = "coco.json"
"""File with the objects of all images of a call."""
COCO_INFO = {"description": "Objects found by simmat predict"}
"""`info` of `COCO_FILE`, which shows a later call that it may replace the file."""


def name_in_folder(file: Path, output: str) -> str:
    """Return the path of an image in the folder that was segmented, "a/b.png" for the output "a__b"; else its name."""
    for depth in range(1, len(file.parts)):
        path = Path(*file.parts[-depth:])
        if path.with_suffix("").as_posix().replace("/", "__") == output:
            return path.as_posix()
    return file.name


def read_record(file: Path) -> dict[str, Any]:
    """Return the json of an image; empty if there is none, or it cannot be read."""
    try:
        found = read_json(file)
    except SimMATError:
        return {}
    return found if isinstance(found, dict) else {}


def files_key(files: Mapping[str, Path]) -> list[Any]:
    """Return source, path, size and time of each file; missing files are reported when they are read."""
    key: list[Any] = []
    for source, file in files.items():
        status = file.stat() if file.exists() else None
        key.append([source, str(file.absolute()), *((status.st_size, status.st_mtime_ns) if status else ())])
    return key


def result_endings(formats: Iterable[str], kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the endings of the files of an image, for names of `simmat.results.FORMATS` and kinds objects, classes."""
    endings: dict[str, tuple[str, ...]] = {"overlay": ("_overlay.png",), "gpkg": (".gpkg",)}
    for name, suffixes in (("labels", (".png", ".tif")), ("geotiff", (".tif",)), ("geojson", (".geojson",))):
        endings[name] = tuple(f"_{kind}{ending}" for kind in kinds for ending in suffixes)
    return (".json", *dict.fromkeys(ending for name in formats for ending in endings.get(name, ())))


def written_files(record: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the names of the files that an earlier call wrote for an image or object."""
    names = record.get("written")
    prefixes = (f"{name}.", f"{name}_")  # a json file of another program must not make us replace other files
    return frozenset(
        file
        for file in (names if isinstance(names, list) else ())
        if isinstance(file, str) and file.startswith(prefixes) and not set(file) & set("/\\\0")
    )


def is_written(out: Path, name: str, request: str) -> bool:
    """Return whether an earlier call did the same, and all files that it wrote still exist."""
    record = read_record(out / f"{name}.json")
    written = written_files(record, name)
    return record.get("request") == request and all((out / file).is_file() for file in written)


def record_of(
    request: str,
    files: Mapping[str, Path],
    predictor: Predictor,
    missing: Sequence[str | int],
    size_hw: tuple[int, int],
) -> dict[str, Any]:
    """Return the values with which the json of an image begins."""
    return {
        "format": FORMAT,
        "request": request,
        "files": {source: shown_url(file) for source, file in files.items()},
        "missing": sorted(predictor.inputs.missing_channels(missing)),
        "bundle": str(predictor.bundle.path) if predictor.bundle else None,
        "size_hw": list(size_hw),
    }


def digest_of(*values: object) -> str:
    """Return the sha256 of a request given as json values."""
    return hashlib.sha256(json.dumps([FORMAT, *values]).encode()).hexdigest()


def replaceable_files(out: Path, outputs: Iterable[str], endings: Sequence[str]) -> frozenset[str]:
    """Return the names of files that an earlier call wrote for these outputs, which may be replaced.

    Raises:
        ConfigError: a file of another program would be replaced.
    """
    replaceable: set[str] = set()
    for name in outputs:
        existing = [f"{name}{ending}" for ending in endings if (out / f"{name}{ending}").exists()]
        written = written_files(read_record(out / f"{name}.json"), name) if existing else frozenset()
        if foreign := [file for file in existing if file not in written]:
            raise ConfigError(foreign_file(out / foreign[0]))
        replaceable.update(written)
    return frozenset(replaceable)


def foreign_file(file: Path) -> str:
    """Return the error message for a file that simmat predict did not write and does not replace."""
    return f"{file} exists already and was not written by simmat predict; choose another --out, or move it away"


def check_coco(out: Path, names: Iterable[str]) -> None:
    """Raise ConfigError if the COCO file of all images would replace another file."""
    name, file = Path(COCO_FILE).stem, out / COCO_FILE
    if name in names:
        raise ConfigError(
            f"the results of the image {name!r} and the objects of all images would both be {COCO_FILE}; rename the "
            "image, or leave coco out of --format"
        )
    if file.exists() and read_record(file).get("info") != COCO_INFO:
        raise ConfigError(foreign_file(file))


def check_unique(names: Sequence[str]) -> None:
    """Raise ConfigError if files of several images or objects would have the same name."""
    if duplicates := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ConfigError(
            f"several masks would be written as {duplicates[:5]}; rename the files, or use separate calls"
        )
