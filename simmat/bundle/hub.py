"""Bundles on the Hugging Face hub, through its own client: the extra `simmat[hub]`.

The client knows the token (`hf auth login` or HF_TOKEN), the address (HF_ENDPOINT) and its cache (HF_HOME).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simmat
from simmat.bundle.files import JSON_NAME, SHARED_NAMES, SIZE_LIMITS
from simmat.errors import BundleError, ConfigError, OutputError, SimMATError

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
