"""Weight files on the Hugging Face Hub, through its own client and cache.

HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE work as usual, and a file that another library has downloaded is
reused.
"""

from __future__ import annotations

from pathlib import Path

from simmat.errors import SimMATError, WeightsError
from simmat.plugin_specs import WeightFile

MAX_BYTES = 16 << 30
"""Largest size of a downloaded file; all of SAM ViT-H, fully tuned, has 2.6 GB."""


def cached(file: WeightFile) -> Path | None:
    """Return the path of the file in the Hub's cache, None if it is not there; uses no network."""
    from huggingface_hub import try_to_load_from_cache

    for name in (file.filename, *file.alternatives):
        found = try_to_load_from_cache(file.hub, name)
        if isinstance(found, str):
            return Path(found)
    return None


def place(file: WeightFile) -> str:
    """Return where `cached` looks, for messages."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return f"{_names(file)} of {file.hub} in the Hugging Face cache {HF_HUB_CACHE}"


def fetch(file: WeightFile) -> Path:
    """Download the file into the Hub's cache, unless its newest version is there, and return its path.

    Raises:
        WeightsError: no network, no such repository or file, no permission, or a file that is too large or of unknown
            size; the message says what to do.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    failed: Exception | None = None
    for name in (file.filename, *file.alternatives):
        try:
            return _download(file.hub, name)
        except WeightsError:
            raise
        # the client passes on errors of its http library and of the file system
        except Exception as error:
            failed = failed or error
            if isinstance(error, LocalEntryNotFoundError) or not isinstance(
                error, EntryNotFoundError
            ):
                # no network, or no access: the other names would fail alike
                failed = error
                break
    assert failed is not None
    raise WeightsError(
        f"cannot fetch {_names(file)}: {why_failed(failed, file.hub)}. {_by_hand(file)}"
    ) from failed


def check_stated_size(
    size_bytes: int | None, name: str, kind: type[SimMATError] = WeightsError
) -> None:
    """Refuse a file before its download: the Hub's client compares the size only after the last byte.

    Args:
        size_bytes: as the Hub states it; None if it does not.
        name: of the file and its repository.
        kind: of the error.

    Raises:
        SimMATError: the size is not stated, or larger than `MAX_BYTES`.
    """
    if size_bytes is None:
        raise kind(
            f"{name}: the Hub does not state its size, so it is not downloaded; download it on your own and give its "
            "path"
        )
    if size_bytes > MAX_BYTES:
        raise kind(
            f"{name} has {size_bytes} bytes, more than the {MAX_BYTES} that are downloaded; check the name"
        )


def _download(repo: str, name: str) -> Path:
    """Return the path of a file in the Hub's cache, downloaded unless its newest version is there."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        stated = get_hf_file_metadata(hf_hub_url(repo, name))
    except EntryNotFoundError:
        raise
    except Exception as error:  # no network, or no access: the cache may have the file
        try:
            return Path(hf_hub_download(repo, name, local_files_only=True))
        except LocalEntryNotFoundError:
            raise error from None
    check_stated_size(stated.size, f"{name} of {repo}")
    return Path(hf_hub_download(repo, name))


def _names(file: WeightFile) -> str:
    return " or ".join((file.filename, *file.alternatives))


def why_failed(error: Exception, repo: str) -> str:
    """Return in one line why the Hub's client failed on a repository, and what to do."""
    from huggingface_hub.constants import ENDPOINT

    cause = error.__cause__ or error
    said = next(
        (line.strip(" .") for line in str(cause).splitlines() if line.strip()), ""
    )
    return (
        f"{ENDPOINT}/{repo}: {type(error).__name__}: {said}; check the name, the network and HF_ENDPOINT; where it is "
        "private or requires consent, give that there, and log in with `hf auth login` or set HF_TOKEN"
    )


def _by_hand(file: WeightFile) -> str:
    return (
        "To do it by hand, download the file on another machine and give its path with --checkpoint PATH, or copy "
        f"the Hub's cache and set HF_HOME to it; SimMAT looks for {place(file)}"
    )
