"""What the json of an image says of the call that wrote it, so that a later call can skip what is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simmat.errors import ConfigError, SimMATError
from simmat.io.files import read_json

COCO_FILE = "coco.json"
"""The objects of all images of a call."""
COCO_INFO = {"description": "Objects found by simmat predict"}
"""In that file, by which a later call knows that it may replace it."""


def read_record(file: Path) -> dict[str, Any]:
    """Return the json of an image; empty if there is none, or it is of another program."""
    try:
        found = read_json(file)
    except SimMATError:
        return {}
    return found if isinstance(found, dict) else {}


def files_key(files: Mapping[str, Path]) -> list[Any]:
    """Return paths, sizes and times of files; missing ones are reported when they are read."""
    found: list[Any] = []
    for source, file in files.items():
        status = file.stat() if file.exists() else None
        found.append([source, str(file.absolute()), *((status.st_size, status.st_mtime_ns) if status else ())])
    return found


def result_endings(formats: Iterable[str], kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the endings of the files of an image.

    Args:
        formats: names of `simmat.results.FORMATS`.
        kinds: of results: "objects", "classes".
    """
    endings: dict[str, tuple[str, ...]] = {"overlay": ("_overlay.png",), "geojson": (".geojson",), "gpkg": (".gpkg",)}
    for name, kept in (("labels", (".png", ".tif")), ("geotiff", (".tif",))):
        endings[name] = tuple(f"_{kind}{ending}" for kind in kinds for ending in kept)
    return (".json", *dict.fromkeys(ending for name in formats for ending in endings.get(name, ())))


def written_files(record: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the names of the files that an earlier call wrote for an image or object."""
    listed = record.get("written")
    own = (f"{name}.", f"{name}_")  # whatever the json of another program says, no other file is replaced
    return frozenset(
        file
        for file in (listed if isinstance(listed, list) else ())
        if isinstance(file, str) and file.startswith(own) and not set(file) & set("/\\\0")
    )


def own_files(out: Path, outputs: Iterable[str], endings: Sequence[str]) -> frozenset[str]:
    """Return the names of files that an earlier call wrote for these outputs."""
    own: set[str] = set()
    for name in outputs:
        existing = [f"{name}{ending}" for ending in endings if (out / f"{name}{ending}").exists()]
        written = written_files(read_record(out / f"{name}.json"), name) if existing else frozenset()
        if foreign := [file for file in existing if file not in written]:
            raise ConfigError(foreign_file(out / foreign[0]))
        own.update(written)
    return frozenset(own)


def foreign_file(file: Path) -> str:
    """Return why a file that another program or a person made is not replaced."""
    return f"{file} exists already and was not written by simmat predict; choose another --out, or move it away"


def check_coco(out: Path, names: Iterable[str]) -> None:
    """Refuse to write the COCO file of all images over another file."""
    name, file = Path(COCO_FILE).stem, out / COCO_FILE
    if name in names:
        raise ConfigError(
            f"the results of the image {name!r} and the objects of all images would both be {COCO_FILE}; rename the "
            "image, or leave coco out of --format"
        )
    if file.exists() and read_record(file).get("info") != COCO_INFO:
        raise ConfigError(foreign_file(file))


def refuse_twice(names: Sequence[str]) -> None:
    """Refuse images or objects whose files would have one name."""
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ConfigError(f"several masks would be written as {twice[:5]}; rename the files, or use separate calls")
