"""A gallery: bundles as zips beside an index, in a folder or on a web server that shows such a folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue

from simmat.bundle.document import BundleSpec, check_bundle, read_specs
from simmat.bundle.files import README_NAME, ZIP_SUFFIX, bundle_folder
from simmat.documents import Document, as_tuples, parse
from simmat.errors import BundleError, ConfigError, WeightsError, unknown_name
from simmat.io.files import atomic_write_bytes, atomic_write_json, cache_folder
from simmat.io.reading import parse_json, read_bytes
from simmat.io.weights import fetch, fetch_bytes, sha256_of
from simmat.plugin_specs import WeightFile
from simmat.types import is_finite_number

SCHEME = "gallery:"
"""Before the name of a bundle of the gallery that `VARIABLE` names."""
VARIABLE = "SIMMAT_GALLERY"
INDEX_NAME = "index.json"
PICTURES = (".jpg", ".png")
_MAX_INDEX = 4 << 20
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_LICENCE = re.compile(r'^license: *"?([^"\n]+?)"?$', re.MULTILINE)

FileName = Annotated[str, Field(pattern=rf"^{_NAME}$")]


class _Table(Document):
    model_config = ConfigDict(extra="ignore")  # a newer index says more


class GalleryEntry(_Table):
    """A bundle of a gallery, or a sensor of one that holds several.

    Attributes:
        name: of the bundle, or BUNDLE/SENSOR.
        file: its zip, beside the index.
        options: of the sensor.
        classes: label value -> name.
        scores: numbers on `split` of the data that `data` names.
        licence: of the bundle, as its model card states it; "" if it does not.
        size: of the zip in bytes, whose digest is `sha256`.
        picture: a file beside the index; None if there is none.
    """

    name: Annotated[str, Field(pattern=rf"^{_NAME}(/\w[\w+-]*)?$")]
    file: FileName
    sensor: str
    options: dict[str, JsonValue] = Field(default_factory=dict)
    classes: dict[Annotated[int, Field(strict=False)], str] = Field(default_factory=dict)
    foundation: str
    scores: dict[str, float] = Field(default_factory=dict)
    split: str = ""
    data: str = ""
    licence: str = ""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1)]
    picture: FileName | None = None


class GalleryIndex(_Table):
    """The content of index.json."""

    format: Literal[1]
    bundles: Annotated[tuple[GalleryEntry, ...], BeforeValidator(as_tuples)]


@dataclass(frozen=True)
class Gallery:
    """A gallery whose index was read.

    Attributes:
        place: an address, or a folder.
    """

    place: str
    bundles: tuple[GalleryEntry, ...]

    def bundle(self, name: str) -> Path:
        """Return the checked zip of a bundle, which is downloaded to the cache unless it is there.

        Raises:
            UnknownNameError: there is no such bundle.
            WeightsError: it cannot be downloaded.
            BundleError: a zip in a folder is not the one of the index.
        """
        found = next((one for one in self.bundles if name in (one.name, one.name.partition("/")[0])), None)
        if found is None:
            names = [one.name for one in self.bundles]
            raise unknown_name("bundle", name, names, hint=f"The gallery is {self.place}.")
        if _is_url(self.place):
            file = WeightFile(found.file, found.sha256, found.size, f"{self.place}/{found.file}")
            return fetch(file, _cache_of(self.place), instead=f"give its path in place of {SCHEME}{name}")
        path = Path(self.place) / found.file
        if not path.is_file() or sha256_of(path) != found.sha256:
            raise BundleError(f"{path} is not the file of the index; make it again: simmat bundle index {self.place}")
        return path


def open_gallery(place: str) -> Gallery:
    """Read the index of a gallery, an http address or a folder; without network the index of the last time.

    Raises:
        ConfigError: the index is not one.
        WeightsError: the address does not answer.
    """
    place = place.removesuffix(f"/{INDEX_NAME}").rstrip("/")
    if not _is_url(place):
        content = read_bytes(Path(place) / INDEX_NAME, "index of a gallery", limit=_MAX_INDEX)
    else:
        kept = _cache_of(place) / INDEX_NAME
        try:
            content = fetch_bytes(f"{place}/{INDEX_NAME}", _MAX_INDEX)
            atomic_write_bytes(kept, content)
        except WeightsError:
            if not kept.is_file():
                raise
            content = read_bytes(kept, "index of a gallery", limit=_MAX_INDEX)
    where = f"{place}/{INDEX_NAME}"
    try:
        return Gallery(place, parse(GalleryIndex, parse_json(content), where).bundles)
    except ValueError as error:
        raise ConfigError(f"{where} is not the index of a gallery: {error}; see simmat bundle index") from error


def from_gallery(source: str) -> Path:
    """Return the checked zip of gallery:NAME, with the sensor of gallery:NAME/SENSOR behind it.

    Raises as `open_gallery` and `Gallery.bundle`.
    """
    place = os.environ.get(VARIABLE, "").strip()
    if not place:
        raise ConfigError(f"{source} needs the address or folder of a gallery: set {VARIABLE}")
    name = source.removeprefix(SCHEME)
    return open_gallery(place).bundle(name) / name.partition("/")[2]


def index_folder(folder: Path) -> GalleryIndex:
    """Check the bundles NAME.zip in a folder and write its index; NAME.jpg or NAME.png is the picture of a bundle.

    Raises:
        BundleError: there is none, or one is damaged.
        ConfigError: a name has other characters than letters, digits and `._-`.
        OutputError: the index cannot be written.
    """
    zips = sorted(folder.glob(f"*{ZIP_SUFFIX}"))
    if not zips:
        raise BundleError(f"{folder} has no bundles NAME{ZIP_SUFFIX}; make them with simmat bundle push RUN NAME.zip")
    index = parse(GalleryIndex, {"format": 1, "bundles": [one for path in zips for one in _entries(path)]}, str(folder))
    atomic_write_json(folder / INDEX_NAME, index.model_dump(mode="json"))
    return index


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    with bundle_folder(path) as (folder, _):
        check_bundle(folder)
        specs, licence = read_specs(folder), ""
        with suppress(FileNotFoundError):
            stated = _LICENCE.search((folder / README_NAME).read_text(encoding="utf-8", errors="replace"))
            licence = "" if stated is None or stated[1] == "unknown" else stated[1]
    picture = next((file.name for ending in PICTURES if (file := path.with_suffix(ending)).is_file()), None)
    for sensor, spec in specs.items():
        yield {
            "name": path.stem if len(specs) == 1 else f"{path.stem}/{sensor}",
            "file": path.name,
            "sensor": spec.modality,
            "options": spec.modality_options,
            "classes": spec.card.class_names,
            "foundation": spec.foundation,
            "scores": _numbers(spec),
            "split": "val",
            "data": spec.card.source,
            "licence": licence,
            "sha256": sha256_of(path),
            "size": path.stat().st_size,
            "picture": picture,
        }


def _numbers(spec: BundleSpec) -> dict[str, float]:
    found = spec.metrics.get("val")
    pairs: Iterable[tuple[str, Any]] = found.items() if isinstance(found, dict) else ()
    return {name: float(value) for name, value in pairs if is_finite_number(value)}


def _is_url(place: str) -> bool:
    return re.match(r"https?://", place, re.IGNORECASE) is not None


def _cache_of(place: str) -> Path:
    return cache_folder() / "galleries" / hashlib.sha256(place.encode()).hexdigest()[:16]
