"""Share bundles: as a zip, or on the Hugging Face Hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simmat
from simmat.bundle.document import check_bundle, read_spec
from simmat.bundle.files import (
    JSON_NAME,
    README_NAME,
    SHARED_NAMES,
    SIZE_LIMITS,
    WEIGHTS_NAME,
    ZIP_SUFFIX,
    bundle_folder,
    named_as,
    write_zip,
)
from simmat.bundle.model_card import model_card
from simmat.errors import BundleError, ConfigError, OutputError, SimMATError
from simmat.io.files import atomic_folder
from simmat.plugins.registry import Registry

if TYPE_CHECKING:
    from huggingface_hub import HfApi


HUB = "hf://"
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_PLACE = re.compile(rf"hf://(?P<repo>{_WORD}/{_WORD})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A model repository on the hub.

    Attributes:
        repo: "ORG/NAME".
        revision: branch, tag or commit; None for the main branch.
    """

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubPlace:
        """Read hf://ORG/NAME or hf://ORG/NAME@REVISION; anything else raises ConfigError."""
        found = _PLACE.fullmatch(text)
        if found is None or ".." in text or "--" in found["repo"]:
            raise ConfigError(f"a place on the hub is hf://ORG/NAME or hf://ORG/NAME@REVISION, got {text!r}")
        return cls(found["repo"], found["revision"])

    @property
    def name(self) -> str:
        """The NAME of ORG/NAME."""
        return self.repo.partition("/")[2]


def upload(place: HubPlace, files: Mapping[str, Path | bytes], *, force: bool, private: bool) -> str:
    """Put the files of a bundle into a repository in one commit, made where it is missing, and return its address.

    Raises:
        ConfigError: the client is not installed.
        OutputError: a bundle is there already and `force` is off, the hub cannot be reached, or it refuses.
    """
    api = _client()
    from huggingface_hub import CommitOperationAdd

    with _hub_errors(place, api, OutputError):
        api.create_repo(place.repo, private=private, exist_ok=True)
        if not force and api.file_exists(place.repo, JSON_NAME, revision=place.revision):
            raise OutputError(
                f"hf://{place.repo} already holds a bundle; choose another name, or replace it with --force"
            )
        operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        done = api.create_commit(
            place.repo, operations, commit_message="Upload a SimMAT bundle", revision=place.revision
        )
    return str(done.commit_url)


def download(place: HubPlace) -> dict[str, Path]:
    """Load the files of a bundle into the client's cache, all of one commit, and return where each lies.

    Raises:
        ConfigError: the client is not installed.
        BundleError: there is no such repository or it holds no bundle, or the hub cannot be reached or refuses.
    """
    api = _client()
    with _hub_errors(place, api, BundleError):
        info = api.model_info(place.repo, revision=place.revision, files_metadata=True)
        sizes = {found.rfilename: found.size or 0 for found in info.siblings or [] if found.rfilename in SHARED_NAMES}
        if JSON_NAME not in sizes:
            raise BundleError(f"hf://{place.repo} holds no bundle: it has no {JSON_NAME}")
        if large := [name for name, size in sizes.items() if size > SIZE_LIMITS[name]]:
            raise BundleError(f"hf://{place.repo}: {large[0]} has {sizes[large[0]]} bytes, more than a bundle can have")
        return {name: Path(api.hf_hub_download(place.repo, name, revision=info.sha)) for name in sorted(sizes)}


def _client() -> HfApi:
    try:
        from huggingface_hub import HfApi, errors  # noqa: F401  # old versions lack the errors that are told apart below
    except ImportError as error:
        raise ConfigError(
            "hf:// needs the Hugging Face client, which is not installed or too old: pip install 'simmat[hub]'; "
            "a folder or a .zip needs nothing"
        ) from error
    return HfApi(library_name="simmat", library_version=simmat.__version__)


@contextmanager
def _hub_errors(place: HubPlace, api: HfApi, kind: type[SimMATError]) -> Iterator[None]:
    """Say in one line what the hub or the way to it refuses."""
    from huggingface_hub import errors

    where, login = f"hf://{place.repo}", "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except SimMATError:
        raise
    except errors.GatedRepoError as error:
        raise kind(f"{where} asks for consent; give it at {api.endpoint}/{place.repo} and {login}") from error
    except errors.RevisionNotFoundError as error:
        raise kind(f"{where} has no revision {place.revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise kind(f"{where} does not exist, or is private: check the name, or {login}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        remedy = login if status in (401, 403) else "try again later"
        raise kind(f"{api.endpoint} refuses {where} (status {status}): {_first_line(error)}; {remedy}") from error
    except Exception as error:  # what its client makes of an answer may be any error: the server is a stranger, too
        what = "cannot reach" if _is_no_connection(error) else "cannot make sense of the answer of"
        raise kind(
            f"{what} {api.endpoint} for {where} ({type(error).__name__}: {_first_line(error)}); check the "
            "network and HF_ENDPOINT, or share the bundle as a folder or a .zip"
        ) from error


def _is_no_connection(error: Exception) -> bool:
    """True for what the client's http library says of a network that is not there; which library depends on it."""
    from huggingface_hub import errors

    library = type(error).__module__.partition(".")[0]
    away: tuple[type[Exception], ...] = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError)
    return isinstance(error, away) or library in ("httpx", "httpx2", "httpcore", "requests", "urllib3")


def _first_line(error: Any) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


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
    """Copy a bundle, checked and with a model card, to where others can have it.

    A README.md that the bundle has already goes along as it is.

    Args:
        bundle: its folder or zip.
        destination: a folder, a path that ends in .zip, or hf://ORG/NAME.
        licence: of the bundle, as the hub names it.
        foundation_licence: of the foundation model, where known.
        registry: what is installed, by which the model card names the packages to install.
        force: whether a bundle that is there is replaced.
        private: whether a new repository on the hub is private.

    Returns:
        Where it is now.

    Raises:
        BundleError: the bundle is missing, damaged or of a newer format.
        ConfigError: the destination or licence is none, or the hub's client is not installed.
        OutputError: something is there already, or it cannot be written or sent.
    """
    _check_place(destination)
    _check_licence(licence)
    if private and not destination.startswith(HUB):
        raise ConfigError(f"--private is for hf:// alone, got {destination!r}")
    with bundle_folder(bundle) as folder:
        check_bundle(folder)
        files = _files_to_share(folder, licence, foundation_licence, registry)
        if destination.startswith(HUB):
            return upload(HubPlace.parse(destination), files, force=force, private=private)
        target = Path(destination)
        if target.suffix.lower() == ZIP_SUFFIX:
            _refuse_file(target, force)
            write_zip(target, files)
        else:
            _refuse_folder(target, force)
            with atomic_folder(target) as new:
                _place(files, new)
                check_bundle(new)  # a run at work may have swapped the one that was checked
    return destination


def pull_bundle(source: str, out: Path | None = None, *, force: bool = False) -> Path:
    """Fetch a bundle into a folder; it is checked as a whole before the folder takes its name.

    Args:
        source: a folder, a .zip, or hf://ORG/NAME, perhaps with @REVISION.
        out: the folder; None takes the source's name, here.
        force: whether a bundle that is there is replaced.

    Raises:
        BundleError: there is no bundle, it is damaged, of a newer format, or a zip of anything else.
        ConfigError: the source or --out is none, or the hub's client is not installed.
        OutputError: something is there already, or it cannot be written.
    """
    _check_place(source)
    target = Path(_name_of(source)) if out is None else out
    if target.suffix.lower() == ZIP_SUFFIX:
        raise ConfigError(f"--out names a folder, got {target}; to make a zip: simmat bundle push BUNDLE {target}")
    _refuse_folder(target, force)
    with _files_at(source) as files, atomic_folder(target) as new, named_as(new, source):
        _place(files, new)
        check_bundle(new)
    return target


def _files_to_share(
    folder: Path, licence: str | None, foundation_licence: str, registry: Registry | None
) -> dict[str, Path | bytes]:
    readme = folder / README_NAME
    if readme.is_file() and licence is not None:
        raise ConfigError(f"{readme} is there and goes along as it is; state the licence in it, or remove it first")
    spec = read_spec(folder)
    card = model_card(spec, licence=licence, foundation_licence=foundation_licence, registry=registry).encode()
    return {
        JSON_NAME: folder / JSON_NAME,
        README_NAME: readme if readme.is_file() else card,
        WEIGHTS_NAME: folder / WEIGHTS_NAME,
    }


@contextmanager
def _files_at(source: str) -> Iterator[Mapping[str, Path]]:
    if source.startswith(HUB):
        yield download(HubPlace.parse(source))
        return
    with bundle_folder(Path(source)) as folder:
        check_bundle(folder)
        yield {name: folder / name for name in SHARED_NAMES if (folder / name).is_file()}


def _place(files: Mapping[str, Path | bytes], folder: Path) -> None:
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            shutil.copyfile(content, folder / name)


def _check_place(place: str) -> None:
    if place.startswith(HUB):
        HubPlace.parse(place)
    elif "://" in place or not place.strip():
        raise ConfigError(f"a bundle lies in a folder, a {ZIP_SUFFIX} or at hf://ORG/NAME, got {place!r}")


def _check_licence(licence: str | None) -> None:
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise ConfigError(
            f"--licence takes a name as the hub writes it, such as apache-2.0, mit, cc-by-4.0 or other, got {licence!r}"
        )


def _name_of(source: str) -> str:
    if source.startswith(HUB):
        return HubPlace.parse(source).name
    path = Path(source).absolute()
    if path.name == JSON_NAME:
        path = path.parent
    return path.stem if path.suffix.lower() == ZIP_SUFFIX else path.name


def _refuse_file(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise OutputError(f"{target} is there already; choose another name, or replace it with --force")


def _refuse_folder(target: Path, force: bool) -> None:
    """Refuse a folder in the way; even by force nothing is replaced but a bundle."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or any(found.name not in SHARED_NAMES for found in target.iterdir()):
        raise OutputError(f"{target} is there and is no bundle, so it is not replaced; choose another name")
    if not force:
        raise OutputError(f"{target} is there already; choose another name, or replace it with --force")
