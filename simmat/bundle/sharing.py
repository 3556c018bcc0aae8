"""Share bundles: as a folder, as a zip, or on the Hugging Face Hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from simmat.bundle.document import check_bundle, read_specs, write_sensors
from simmat.bundle.files import (
    JSON_NAME,
    README_NAME,
    SHARED_NAMES,
    SIZE_LIMITS,
    ZIP_SUFFIX,
    bundle_folder,
    named_as,
    write_zip,
)
from simmat.bundle.gallery import SCHEME, from_gallery
from simmat.bundle.load import read_bundle
from simmat.bundle.model_card import model_card
from simmat.errors import BundleError, ConfigError, OutputError, SimMATError
from simmat.io.files import atomic_folder
from simmat.io.hub import why_failed
from simmat.plugins.registry import Registry
from simmat.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi


HUB = "hf://"
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_PLACE = re.compile(rf"hf://(?P<repo>{_WORD}/{_WORD})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")


def hub_repository(place: str) -> tuple[str, str | None]:
    """Return repository and revision (None: the main branch) of hf://ORG/NAME[@REVISION]; ConfigError for all else."""
    found = _PLACE.fullmatch(place)
    if found is None or ".." in place or "--" in found["repo"]:
        raise ConfigError(f"a place on the hub is hf://ORG/NAME or hf://ORG/NAME@REVISION, got {place!r}")
    return found["repo"], found["revision"]


def push_bundle(
    bundle: Path,
    destination: str,
    *,
    licence: str | None = None,
    foundation_licence: str = "",
    registry: Registry | None = None,
    force: bool = False,
    private: bool = False,
) -> str:
    """Copy a checked bundle with a model card to a folder, a zip or the hub; of one of several sensors, that alone.

    A README.md that the bundle has already is kept.

    Args:
        destination: a folder, a path that ends in .zip, or hf://ORG/NAME.
        registry: what is installed, to name packages in the model card.

    Returns:
        Where it is now.

    Raises:
        BundleError: the bundle is missing, damaged or of a newer format.
        ConfigError: the destination or licence is not valid, or the hub's client is not installed.
        OutputError: something exists already, or it cannot be written or sent.
    """
    target = _checked(destination)
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise ConfigError(
            f"--licence takes a name as the hub writes it, such as apache-2.0, mit, cc-by-4.0 or other, got {licence!r}"
        )
    if private and target is not None:
        raise ConfigError(f"--private is for hf:// only, got {destination!r}")
    with _checked_folder(bundle) as folder:
        files: dict[str, Path | bytes] = {name: folder / name for name in SHARED_NAMES}
        if not _has_readme(folder):
            card = model_card(
                read_specs(folder), licence=licence, foundation_licence=foundation_licence, registry=registry
            )
            files[README_NAME] = card.encode()
        elif licence is not None:
            raise ConfigError(
                f"{folder / README_NAME} exists and is kept as it is; state the licence in it, or remove it first"
            )
        if target is None:
            return _upload(destination, files, force=force, private=private)
        if target.suffix.lower() != ZIP_SUFFIX:
            _write_folder(target, files, force, destination)
        elif target.exists() and not force:
            raise _exists(target)
        else:
            write_zip(target, files)
    return destination


def pull_bundle(source: str, out: Path | None = None, *, force: bool = False) -> Path:
    """Fetch a bundle into a folder, which is made only if the bundle is whole.

    Args:
        source: a folder, a .zip, gallery:NAME, or hf://ORG/NAME, optionally with @REVISION.
        out: the folder; None takes the source's name, in the current folder.

    Raises:
        BundleError: there is no bundle, it is damaged, of a newer format, or a zip of anything else.
        ConfigError: the source or `out` is not valid, or the hub's client is not installed.
        OutputError: something exists already, or it cannot be written.
    """
    source = str(from_gallery(source)) if source.startswith(SCHEME) else source
    place = _checked(source)
    target = out or Path(_name(source, place))
    if target.suffix.lower() == ZIP_SUFFIX:
        raise ConfigError(f"--out names a folder, got {target}; to make a zip: simmat bundle push BUNDLE {target}")
    _check_folder(target, force)
    if place is None:
        _write_folder(target, download(source), force, source)
        return target
    with _checked_folder(place) as folder:
        _has_readme(folder)
        files = {name: folder / name for name in SHARED_NAMES if (folder / name).is_file()}
        _write_folder(target, files, force, source)
    return target


@contextmanager
def _checked_folder(path: Path) -> Iterator[Path]:
    """Give the folder of a whole bundle; of one of several sensors, one that holds it alone until the block ends."""
    with bundle_folder(path) as (whole, sensor), tempfile.TemporaryDirectory(prefix="simmat-bundle-") as made:
        folder = Path(made) / sensor if sensor else whole
        if sensor:
            write_sensors(folder, {"": read_bundle(whole / sensor)})
        check_bundle(folder)
        yield folder


def _checked(place: str) -> Path | None:
    """Return the path of a folder or a zip, None for a place on the hub; ConfigError for anything else."""
    if place.startswith(HUB):
        hub_repository(place)
        return None
    if "://" in place or not place.strip():
        raise ConfigError(f"a bundle is in a folder, a {ZIP_SUFFIX} or at hf://ORG/NAME, got {place!r}")
    return Path(place)


def _name(source: str, place: Path | None) -> str:
    if place is None:
        return hub_repository(source)[0].partition("/")[2]
    path = place.absolute()
    path = path.parent if path.name == JSON_NAME else path
    return path.stem if path.suffix.lower() == ZIP_SUFFIX else path.name


def _write_folder(target: Path, files: Mapping[str, Path | bytes], force: bool, source: str) -> None:
    """Copy the files of a bundle into a new folder, and check them there: what they came from may change meanwhile."""
    _check_folder(target, force)
    with atomic_folder(target) as new, named_as(new, source):
        for name, content in files.items():
            if isinstance(content, bytes):
                (new / name).write_bytes(content)
            else:
                shutil.copyfile(content, new / name)
        check_bundle(new)


def _check_folder(target: Path, force: bool) -> None:
    """Refuse a target folder that exists and is not empty; only a bundle may be replaced, and only with `force`."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or any(found.name not in SHARED_NAMES for found in target.iterdir()):
        raise OutputError(f"{target} exists and is not a bundle, so it is not replaced; choose another name")
    if not force:
        raise _exists(target)


def _exists(target: Path) -> OutputError:
    return OutputError(f"{target} exists already; choose another name, or replace it with --force")


def _has_readme(folder: Path) -> bool:
    """Return whether a bundle has a README.md; BundleError for a link, which would publish its target."""
    file = folder / README_NAME
    if file.is_symlink():
        raise BundleError(f"{file} is a link, which could lead to any file; put a copy in its place")
    return file.is_file()


def _upload(place: str, files: Mapping[str, Path | bytes], *, force: bool, private: bool) -> str:
    """Commit the files of a bundle to a repository, which is made if it is missing; return the commit's address."""
    api, (repo, revision) = _client(), hub_repository(place)
    from huggingface_hub import CommitOperationAdd

    with _hub_errors(place, OutputError):
        api.create_repo(repo, private=private, exist_ok=True)
        if not force and api.file_exists(repo, JSON_NAME, revision=revision):
            raise OutputError(f"{place} already holds a bundle; choose another name, or replace it with --force")
        done = api.create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in sorted(files.items())],
            commit_message="Upload a SimMAT bundle",
            revision=revision,
        )
    return str(done.commit_url)


def download(place: str) -> dict[str, Path]:
    """Load the files of a bundle, all of one commit, into the client's cache; return name -> path."""
    api, (repo, revision) = _client(), hub_repository(place)
    with _hub_errors(place, BundleError):
        info = api.model_info(repo, revision=revision, files_metadata=True)
        sizes = {found.rfilename: found.size or 0 for found in info.siblings or [] if found.rfilename in SHARED_NAMES}
        if JSON_NAME not in sizes:
            raise BundleError(f"{place} holds no bundle: it has no {JSON_NAME}")
        if large := [name for name, size in sizes.items() if size > SIZE_LIMITS[name]]:
            raise BundleError(f"{place}: {large[0]} has {sizes[large[0]]} bytes, more than a bundle can have")
        return {name: Path(api.hf_hub_download(repo, name, revision=info.sha)) for name in sorted(sizes)}


def _client() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="simmat", library_version=__version__)


@contextmanager
def _hub_errors(place: str, kind: type[SimMATError]) -> Iterator[None]:
    """Turn errors of the hub's client into errors of a kind, each on one line."""
    try:
        yield
    except SimMATError:
        raise
    except Exception as error:  # an answer that the client does not expect may raise anything
        raise kind(f"{why_failed(error, hub_repository(place)[0])}; a folder or a .zip needs no hub") from error
