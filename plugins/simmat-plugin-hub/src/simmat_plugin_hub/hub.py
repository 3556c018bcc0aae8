"""Bundles on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import simmat
from simmat.bundle import FILE_NAME
from simmat.errors import BundleError, ConfigError, SimMATError
from simmat.io.hub import download, why_failed

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD_NAME = "README.md"
"""The model card, which the hub shows."""
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_PLACE = re.compile(
    rf"hf://(?P<name>{_WORD}/{_WORD})(?:/(?P<sensor>\w[\w+-]*))?(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?"
)


class Repository(NamedTuple):
    """A place on the hub.

    Attributes:
        name: ORG/NAME.
        revision: a commit, branch or tag; None for the main branch.
        sensor: one of several sensors of the bundle; "" if none is named.
    """

    name: str
    revision: str | None
    sensor: str


def parse_place(place: str) -> Repository:
    """Return what hf://ORG/NAME[/SENSOR][@REVISION] names; ConfigError for all else."""
    found = _PLACE.fullmatch(place)
    if found is None or ".." in place or "--" in found["name"]:
        raise ConfigError(
            f"a bundle is a file, hf://ORG/NAME or hf://ORG/NAME@REVISION, got {place!r}"
        )
    return Repository(found["name"], found["revision"], found["sensor"] or "")


def fetch_from_hub(place: str) -> Path:
    """Download a bundle into the client's cache, and return its path there with the sensor behind it.

    Raises:
        ConfigError: the place is not valid.
        BundleError: there is no bundle, or it cannot be fetched.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository = parse_place(place)
    name, revision = repository.name, repository.revision
    with hub_errors(name, BundleError):
        try:
            bundle = download(name, FILE_NAME, revision, BundleError)
        except LocalEntryNotFoundError:  # no answer, or one that makes no sense
            raise
        except EntryNotFoundError as error:
            raise BundleError(
                f"{place} holds no bundle: it has no {FILE_NAME}"
            ) from error
    return bundle / repository.sensor


def upload(place: str, bundle: Path, card: str, *, force: bool, private: bool) -> str:
    """Commit a bundle to a repository, which is made if it is missing; return the address of the commit.

    A model card that the repository has already is kept.

    Raises:
        ConfigError: the place is not valid.
        OutputError: it has a bundle already, or nothing can be sent.
    """
    from huggingface_hub import CommitOperationAdd

    from simmat.errors import OutputError

    repository = parse_place(place)
    if repository.sensor:
        raise ConfigError(f"a bundle is pushed to hf://ORG/NAME, got {place!r}")
    name, revision = repository.name, repository.revision
    api = hub_client()
    with hub_errors(name, OutputError):
        api.create_repo(name, private=private, exist_ok=True)
        if not force and api.file_exists(name, FILE_NAME, revision=revision):
            raise OutputError(
                f"{place} already holds a bundle; choose another name, or replace it with --force"
            )
        added = [CommitOperationAdd(FILE_NAME, bundle)]
        if not api.file_exists(name, CARD_NAME, revision=revision):
            added.append(CommitOperationAdd(CARD_NAME, card.encode()))
        done = api.create_commit(
            name, added, commit_message="Upload a SimMAT bundle", revision=revision
        )
    return str(done.commit_url)


def hub_client() -> HfApi:
    """Return the hub's client."""
    from huggingface_hub import HfApi

    return HfApi(library_name="simmat", library_version=simmat.__version__)


@contextmanager
def hub_errors(repository: str, kind: type[SimMATError]) -> Iterator[None]:
    """Turn errors of the hub's client into errors of a kind, each on one line."""
    try:
        yield
    except SimMATError:
        raise
    # an answer that the client does not expect may raise anything
    except Exception as error:
        raise kind(
            f"{why_failed(error, repository)}; or copy the bundle's file, which needs no hub"
        ) from error
