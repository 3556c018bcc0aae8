"""Weight files on the Hugging Face Hub: found in its cache, fetched by its own client.

So HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they mean everywhere, and a file that another library has
already loaded is not loaded twice.
"""

from __future__ import annotations

from pathlib import Path

from simmat.errors import WeightsError
from simmat.specs import WeightFile


def cached(file: WeightFile) -> Path | None:
    """Return where the file lies in the Hub's cache, None where it does not; no network is asked."""
    _need_client(file)
    from huggingface_hub import try_to_load_from_cache

    for name in (file.filename, *file.alternatives):
        found = try_to_load_from_cache(file.hub, name)
        if isinstance(found, str):
            return Path(found)
    return None


def place(file: WeightFile) -> str:
    """Say where `cached` looks."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return f"{_names(file)} of {file.hub} in the Hugging Face cache {HF_HUB_CACHE}"


def fetch(file: WeightFile) -> Path:
    """Download the file into the Hub's cache, unless the newest is there, and return its path.

    Raises:
        WeightsError: no network, no such repository or file, or it may not be read; the message says what to do.
    """
    _need_client(file)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in (file.filename, *file.alternatives):
        try:
            return Path(hf_hub_download(file.hub, name))
        except LocalEntryNotFoundError as error:  # neither the network nor the cache has it
            raise _failed(file, name, error) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # of whichever http client and file system the Hub's client stands on
            raise _failed(file, name, error) from error
    raise WeightsError(f"the Hugging Face Hub's {file.hub} has no {_names(file)}. {_by_hand(file)}")


def _need_client(file: WeightFile) -> None:
    """Refuse where the client is not there, or lacks the errors that are told apart here (before 0.25)."""
    try:
        import huggingface_hub.errors  # noqa: F401
    except ImportError as error:
        raise WeightsError(
            f"the weights of {file.hub} lie on the Hugging Face Hub, whose client is not installed or too old: "
            "pip install 'simmat[hub]', or give a file with --checkpoint PATH"
        ) from error


def _names(file: WeightFile) -> str:
    return " or ".join((file.filename, *file.alternatives))


def _failed(file: WeightFile, name: str, error: Exception) -> WeightsError:
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        why = "its licence must be accepted on its page, and a token given: `hf auth login`, or HF_TOKEN"
    elif isinstance(error, RepositoryNotFoundError):
        why = "there is no such repository, or not for everybody (then give a token: `hf auth login`, or HF_TOKEN)"
    else:
        cause = error.__cause__ or error
        why = (str(cause).strip().splitlines() or [""])[0].rstrip(".") or type(cause).__name__
    return WeightsError(f"cannot fetch {name} of {file.hub} from {ENDPOINT}: {why}. {_by_hand(file)}")


def _by_hand(file: WeightFile) -> str:
    return (
        "To do it by hand, load the file where there is a network and give its path with --checkpoint PATH, or copy "
        f"the Hub's cache and name it in HF_HOME; SimMAT looks for {place(file)}"
    )
