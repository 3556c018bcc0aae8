"""A gallery: bundles beside an index, in a folder or on a web server that shows such a folder."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue, field_validator

from simmat.documents import FromLists, StrictModel, parse
from simmat.errors import BundleError, ConfigError, WeightsError, unknown_name
from simmat.io.files import atomic_write_bytes, cache_folder
from simmat.io.http import get_bytes
from simmat.io.reading import parse_json, read_bytes
from simmat.io.weights import fetch, sha256_of
from simmat.plugin_specs import WeightFile

SCHEME = "gallery:"
"""Before the name of a bundle of the gallery that `VARIABLE` names."""
VARIABLE = "SIMMAT_GALLERY"
INDEX_NAME = "index.json"
_MAX_INDEX = 4 << 20
_MAX_BUNDLE = 16 << 30
_INDEX_S = 60.0
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"

FileName = Annotated[str, Field(pattern=rf"^{NAME}$")]


class _IndexTable(StrictModel):
    model_config = ConfigDict(extra="ignore")  # a newer index says more


class GalleryEntry(_IndexTable):
    """A bundle of a gallery, or a sensor of one that holds several.

    Attributes:
        name: of the bundle, or BUNDLE/SENSOR.
        file: its file, beside the index.
        options: of the sensor.
        classes: label value -> name.
        scores: numbers on `split` of the data that `data` names.
        licence: of the bundle, as its model card states it; "" if it does not.
        size: of the file in bytes, whose digest is `sha256`.
        picture: a file beside the index; None if there is none.
    """

    name: Annotated[str, Field(pattern=rf"^{NAME}(/\w[\w+-]*)?$")]
    file: FileName
    sensor: str
    options: dict[str, JsonValue] = Field(default_factory=dict)
    classes: dict[Annotated[int, Field(strict=False)], str] = Field(
        default_factory=dict
    )
    foundation: str
    scores: dict[str, float] = Field(default_factory=dict)
    split: str = ""
    data: str = ""
    licence: str = ""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1, le=_MAX_BUNDLE)]
    picture: FileName | None = None


class GalleryIndex(_IndexTable):
    """The content of index.json."""

    format: int
    bundles: FromLists[tuple[GalleryEntry, ...]]

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: int) -> int:
        if value != 1:
            raise ValueError("must be 1; for a newer format update SimMAT")
        return value


@dataclass(frozen=True)
class Gallery:
    """A gallery whose index was read.

    Attributes:
        place: an address, or a folder.
        unreachable: why the index is that of the last time; "" if it is not.
    """

    place: str
    bundles: tuple[GalleryEntry, ...]
    unreachable: str = ""

    def bundle(self, name: str) -> Path:
        """Return the checked file of a bundle, which is downloaded to the cache unless it is there.

        Raises:
            ConfigError: the gallery is empty.
            UnknownNameError: there is no such bundle.
            WeightsError: it cannot be downloaded.
            BundleError: a file in a folder is not the one of the index.
        """
        found = next(
            (
                one
                for one in self.bundles
                if name in (one.name, one.name.partition("/")[0])
            ),
            None,
        )
        if found is None:
            names = [one.name for one in self.bundles]
            if not names:
                raise ConfigError(
                    f"{SCHEME}{name}: the gallery {self.place} has no bundles"
                )
            raise unknown_name(
                "bundle", name, names, hint=f"The gallery is {self.place}."
            )
        if _is_url(self.place):
            file = WeightFile(
                found.file, found.sha256, found.size, f"{self.place}/{found.file}"
            )
            return fetch(
                file,
                _cache_of(self.place),
                instead=f"give its path in place of {SCHEME}{name}",
            )
        path = Path(self.place) / found.file
        if not path.is_file():
            raise BundleError(
                f"{path} is in the index of the gallery, but missing; copy it there again"
            )
        if (digest := sha256_of(path)) != found.sha256:
            raise BundleError(
                f"{path} is not the file in the index: its sha256 is {digest}, but should be {found.sha256}; "
                "copy it again, or, if you made this gallery and changed the file, run simmat bundle index "
                f"{self.place}"
            )
        return path


def open_gallery(place: str) -> Gallery:
    """Read the index of a gallery, an http address or a folder; without network, or behind a login page, the last one.

    Raises:
        ConfigError: there is no index, or it is not one.
        WeightsError: the address does not answer.
    """
    address = place.removesuffix(f"/{INDEX_NAME}").rstrip("/")
    if _is_url(address):
        return _open_url(address)
    folder = Path(address)
    if not address or not folder.is_dir():
        raise ConfigError(
            f"no gallery at {place!r}; give a folder, or an address with http:// or https://"
        )
    if not (folder / INDEX_NAME).exists():
        raise ConfigError(
            f"{folder} has no {INDEX_NAME}; make it: simmat bundle index {folder}"
        )
    content = _read_index(folder / INDEX_NAME)
    return Gallery(address, _parse_index(content, f"{address}/{INDEX_NAME}"))


def _open_url(address: str) -> Gallery:
    """Read the index of a gallery on a server, and keep it for the time without network."""
    where = f"{address}/{INDEX_NAME}"
    kept = _cache_of(address) / INDEX_NAME
    try:
        content = get_bytes(where, _MAX_INDEX, _INDEX_S)
        if kept.is_file():
            _check_json(content, where)  # a login page is not json
    except WeightsError as error:
        if not kept.is_file():
            raise
        return Gallery(
            address, _parse_index(_read_index(kept), where), unreachable=str(error)
        )
    bundles = _parse_index(content, where)
    atomic_write_bytes(kept, content)
    return Gallery(address, bundles)


def _check_json(content: bytes, where: str) -> None:
    try:
        parse_json(content)
    except ValueError as error:
        raise WeightsError(f"{where} is not the index of a gallery: {error}") from error


def _read_index(file: Path) -> bytes:
    return read_bytes(file, "index of a gallery", limit=_MAX_INDEX)


def _parse_index(content: bytes, where: str) -> tuple[GalleryEntry, ...]:
    try:
        document = parse_json(content)
    except ValueError as error:
        raise ConfigError(
            f"{where} is not the index of a gallery: {error}; see simmat bundle index"
        ) from error
    return parse(GalleryIndex, document, where).bundles


def fetch_from_gallery(place: str) -> Path:
    """Return the checked file of gallery:NAME, with the sensor of gallery:NAME/SENSOR behind it.

    Raises as `open_gallery` and `Gallery.bundle`.
    """
    gallery = os.environ.get(VARIABLE, "").strip()
    if not gallery:
        raise ConfigError(
            f"{place} needs a gallery: set {VARIABLE} to its folder or address, such as http://HOST:8000"
        )
    name = place.removeprefix(SCHEME)
    sensor = name.partition("/")[2]
    return open_gallery(gallery).bundle(name) / sensor


def _is_url(place: str) -> bool:
    return re.match(r"https?://[^/]", place, re.IGNORECASE) is not None


def _cache_of(place: str) -> Path:
    return (
        cache_folder() / "galleries" / hashlib.sha256(place.encode()).hexdigest()[:16]
    )
