"""Where a bundle may be: a folder, a run, a zip, a gallery, the Hugging Face Hub."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from simmat.bundle.files import JSON_NAME, SHARED_NAMES, SIZE_LIMITS, ZIP_SUFFIX, unpack_zip
from simmat.bundle.gallery import SCHEME, from_gallery
from simmat.config import BUNDLE_ELSEWHERE
from simmat.errors import BundleError, ConfigError, SimMATError
from simmat.io.files import output_error, recover_folder
from simmat.io.hub import why_failed
from simmat.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB = "hf:/"
"""Start of a place on the hub; as a path it has one slash."""
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_PLACE = re.compile(rf"hf://(?P<repo>{_WORD}/{_WORD})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")


@contextmanager
def bundle_folder(source: Path | str, names: Collection[str] = SHARED_NAMES) -> Iterator[tuple[Path, str]]:
    """Give the folder of a bundle, and the sensor that is named behind it, else ""; a zip is unpacked meanwhile.

    Args:
        source: as `local_path` takes it. The folder of a run stands for its best bundle.
        names: the files of a zip to unpack. The content of a folder is not checked here.
    """
    place, sensor = _located(local_path(source))
    if not place.is_file():
        yield place, sensor
    elif place.suffix.lower() != ZIP_SUFFIX:
        raise BundleError(f"{place} is a file, not a bundle; give a bundle's folder, or a {ZIP_SUFFIX} that holds one")
    else:
        with tempfile.TemporaryDirectory(prefix="simmat-bundle-") as made:
            folder = Path(made)
            try:
                unpack_zip(place, folder, names)
            except OSError as error:
                raise output_error(error, folder) from error
            with named_as(folder, place):
                yield folder, sensor


def local_path(source: Path | str) -> Path:
    """Return the path of a bundle, with that of a sensor behind it; one from elsewhere is fetched into a cache.

    Args:
        source: a folder, its `bundle.json`, a zip, gallery:NAME or hf://ORG/NAME[@REVISION]. The name of one of several
            sensors may follow: RUN/SENSOR, hf://ORG/NAME/SENSOR@REVISION.

    Raises:
        BundleError: there is no bundle in the repository, or the zip in the gallery is not that of the index.
        ConfigError: there is no such kind of place, or no gallery is set.
        UnknownNameError: the gallery has no such bundle.
        WeightsError: the gallery does not answer.
    """
    path = Path(source)
    text = path.as_posix()
    check_place(source)
    if text.startswith(SCHEME):
        return from_gallery(text)
    if BUNDLE_ELSEWHERE.match(text) or not text.strip():
        place, at, revision = text.partition("@")
        scheme, *names = place.split("/")
        sensor = names.pop() if len(names) == 3 else ""
        return download(f"{scheme}//{'/'.join(names)}{at}{revision}") / sensor
    return path.parent if path.name == JSON_NAME else path


def check_place(source: Path | str) -> None:
    """Refuse an address that is not of the hub."""
    if BUNDLE_ELSEWHERE.match(str(source)) and not str(source).startswith((SCHEME, HUB)):
        address = re.sub(r"^(\w+:)/+", r"\1//", str(source))  # a path has one slash
        raise ConfigError(
            f"a bundle is a folder, a {ZIP_SUFFIX}, gallery:NAME, hf://ORG/NAME or hf://ORG/NAME@REVISION, got "
            f"{address!r}; download a file of another server first"
        )


def _located(path: Path) -> tuple[Path, str]:
    """Return the folder or zip of a bundle, and the rest of the path: the name of a sensor, or ""."""
    for place, sensor in ((path, ""), (path.parent, path.name)):
        if (recover_folder(place) / JSON_NAME).exists() or place.is_file():
            return place, sensor
        if (of_run := recover_folder(place / "bundle")).is_dir():
            return of_run, sensor
    # The run of one of several sensors has its bundle in that of all: RUN/NAME/bundle is RUN/bundle/NAME.
    place, sensor = _located(path.parent) if path.name == "bundle" else (path, "")
    return (place, sensor) if sensor else (path, "")


@contextmanager
def named_as(folder: Path, path: Path | str) -> Iterator[None]:
    """Replace the name of a temporary folder in errors by the path that the user gave."""
    try:
        yield
    except SimMATError as error:
        if str(folder) not in str(error):
            raise
        raise type(error)(str(error).replace(str(folder), str(path))) from error


def hub_repository(place: str) -> tuple[str, str | None]:
    """Return repository and revision (None: the main branch) of hf://ORG/NAME[@REVISION]; ConfigError for all else."""
    found = _PLACE.fullmatch(place)
    if found is None or ".." in place or "--" in found["repo"]:
        raise ConfigError(
            f"a bundle is in a folder, a {ZIP_SUFFIX}, or at hf://ORG/NAME or hf://ORG/NAME@REVISION, got {place!r}"
        )
    return found["repo"], found["revision"]


def download(place: str) -> Path:
    """Load the files of a bundle, all of one commit, into the client's cache; return their folder, which has links."""
    (repo, revision), api = hub_repository(place), hub_client()
    with hub_errors(place, BundleError):
        info = api.model_info(repo, revision=revision, files_metadata=True)
        sizes = {found.rfilename: found.size or 0 for found in info.siblings or [] if found.rfilename in SHARED_NAMES}
        if JSON_NAME not in sizes:
            raise BundleError(f"{place} holds no bundle: it has no {JSON_NAME}")
        if large := [name for name, size in sizes.items() if size > SIZE_LIMITS[name]]:
            raise BundleError(f"{place}: {large[0]} has {sizes[large[0]]} bytes, more than a bundle can have")
        paths = [Path(api.hf_hub_download(repo, name, revision=info.sha)) for name in sorted(sizes)]
    return paths[0].parent


def hub_client() -> HfApi:
    """Return the hub's client."""
    from huggingface_hub import HfApi

    return HfApi(library_name="simmat", library_version=__version__)


@contextmanager
def hub_errors(place: str, kind: type[SimMATError]) -> Iterator[None]:
    """Turn errors of the hub's client into errors of a kind, each on one line."""
    try:
        yield
    except SimMATError:
        raise
    except Exception as error:  # an answer that the client does not expect may raise anything
        raise kind(f"{why_failed(error, hub_repository(place)[0])}; a folder or a .zip needs no hub") from error
