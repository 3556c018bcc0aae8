"""Weight files on the Hugging Face Hub, through its own client and cache.

HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE work as usual, and a file that another library has downloaded is
reused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        WeightsError: no network, no such repository or file, no permission, or a file that is too large, or not of
            the size that the Hub states; the message says what to do.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    failed: Exception | None = None
    for name in (file.filename, *file.alternatives):
        try:
            return download(file.hub, name)
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


def download(
    repo: str,
    name: str,
    revision: str | None = None,
    kind: type[SimMATError] = WeightsError,
) -> Path:
    """Return the path of a file in the Hub's cache, downloaded unless its newest version is there.

    The name of its folder is the commit that it is of.

    Args:
        revision: a commit, branch or tag; None for the main branch.
        kind: of the errors about its size.

    Raises:
        SimMATError: the Hub does not state its size, states more than `MAX_BYTES`, or sends more than it states.
        Exception: whatever else the Hub's client raises.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    place = f"{name} of {repo}"
    try:
        stated = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision))
    except EntryNotFoundError:
        raise
    except Exception as error:  # no network, or no access: the cache may have the file
        try:
            path = hf_hub_download(repo, name, revision=revision, local_files_only=True)
        except LocalEntryNotFoundError:
            raise error from None
        return Path(path)
    if stated.size is None:
        raise kind(
            f"{place}: the Hub does not state its size, so it is not downloaded; download it on your own and give its "
            "path"
        )
    if stated.size > MAX_BYTES:
        raise kind(
            f"{place} has {stated.size} bytes, more than the {MAX_BYTES} that are downloaded; check the name"
        )
    too_large = kind(
        f"{place}: the Hub states {stated.size} bytes and sends more, so the download was stopped; check HF_ENDPOINT"
    )
    bar = _stopping_after(stated.size, too_large)
    try:
        path = hf_hub_download(repo, name, revision=revision, tqdm_class=bar)
    except kind:
        _remove_part(repo, stated.etag)
        raise
    return Path(path)


def _remove_part(repo: str, etag: str | None) -> None:
    """Remove the part of a file that has arrived; older clients keep it, to go on from there."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repo, repo_type="model")
    part = Path(HF_HUB_CACHE) / folder / "blobs" / f"{etag}.incomplete"
    part.unlink(missing_ok=True)


def _stopping_after(limit: int, error: SimMATError) -> Any:
    """Return a progress bar that raises an error when more than `limit` bytes arrive.

    The Hub's client compares sizes only after the last byte, and shows its bar each piece before it is written.
    """
    # the client's own one: it heeds HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils.tqdm import tqdm

    class StoppingBar(tqdm):
        received = 0

        def update(self, n: float | None = 1) -> bool | None:
            self.received += int(n or 0)
            if self.received > limit:
                raise error
            return super().update(n)

    return StoppingBar


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
        f"{ENDPOINT}/{repo}: {type(error).__name__}: {said}; check the name, the network and HF_ENDPOINT; if it "
        "is private or requires consent, give the consent there, and log in with `hf auth login` or set HF_TOKEN"
    )


def _by_hand(file: WeightFile) -> str:
    return (
        "To do it by hand, download the file on another machine and give its path with --checkpoint PATH, or copy "
        f"the Hub's cache and set HF_HOME to it; SimMAT looks for {place(file)}"
    )
