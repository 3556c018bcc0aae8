"""Find a model in a local folder or a repository of the Hugging Face Hub, and read its json files.

`ORG/NAME` is a repository. `./FOLDER`, `../FOLDER`, `~/FOLDER` and `/FOLDER` are folders; the `.json` file of a config
instead of a folder is a model without weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simmat.errors import SpecError, UnknownNameError, WeightsError, did_you_mean
from simmat.io.reading import read_json
from simmat.io.weights import sha256_of
from simmat.plugin_specs import WeightFile

PREFIX = "hf/"
WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
_INDEX_NAME = "model.safetensors.index.json"
_PROCESSOR_NAMES = ("preprocessor_config.json", "processor_config.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_MAX_CONFIG_BYTES = 2**20
"""Limit of a config; the largest in the library have some ten thousand."""
_REPOSITORY = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?"


PUBLISHED: dict[str, str] = {
    **{f"facebook/sam-vit-{size}": f"Segment Anything, ViT-{size[0].upper()}" for size in ("base", "large", "huge")},
    "syscv-community/sam-hq-vit-base": "SAM-HQ, ViT-B; see the README of simmat-plugin-transformers on its masks",
    **{
        f"facebook/sam2.1-hiera-{size}": f"SAM 2.1, Hiera {size}; for single images"
        for size in ("tiny", "small", "base-plus", "large")
    },
    "facebook/sam3": "SAM 3; the tracker for single images, which takes clicks",
    **{f"facebook/dino-vit{size}{patch}": f"DINO, ViT-{size.upper()}/{patch}" for size in "sb" for patch in (16, 8)},
    **{f"facebook/dinov2-{size}": f"DINOv2, ViT {size}" for size in ("small", "base", "large", "giant")},
    **{
        f"facebook/dinov2-with-registers-{size}": f"DINOv2 with registers, ViT {size}"
        for size in ("small", "base", "large", "giant")
    },
    **{f"facebook/dinov3-vit{size}16-pretrain-lvd1689m": f"DINOv3, ViT-{size.upper()}/16" for size in ("s", "b", "l")},
}
"""Well-known repositories -> one line about each, for lists and suggestions; any other repository works, too."""


@dataclass(frozen=True)
class Source:
    """The files of a model, before its weights are read.

    Attributes:
        origin: place of the config, for messages.
        config: the config as json values.
        processor: the settings of the image processor as json values; empty without such a file.
        weights: its weight file; without path and repository if there is none.
    """

    origin: str
    config: dict[str, Any]
    processor: dict[str, Any]
    weights: WeightFile


def is_folder(model: str) -> bool:
    """True for a name that means a path on this machine."""
    return model.startswith(("./", "../", "~/", "/")) or model in (".", "..", "~")


def find(model: str, *, fetch: bool = True) -> Source | None:
    """Find a model by its name after `hf/`; None if it is not the name of a model.

    Args:
        fetch: ask the Hub for what its cache lacks.

    Raises:
        SpecError: the folder or repository is not a model of the library.
        UnknownNameError: there is no such folder or repository.
        WeightsError: the Hub cannot be reached or must not be asked, or the weights are in a format that is not read.
    """
    if is_folder(model):
        return _local(model)
    return _from_hub(model, fetch) if re.fullmatch(_REPOSITORY, model) else None


def _local(model: str) -> Source:
    place = Path(model).expanduser()
    config = place if place.suffix == ".json" else place / CONFIG_NAME
    if not config.is_file():
        what = "is no folder" if place != config and not place.is_dir() else f"has no {CONFIG_NAME}"
        what = "does not exist" if not place.exists() else what
        raise UnknownNameError(
            f"no foundation model {PREFIX + model!r}: {place.absolute()} {what}; give a folder as save_pretrained "
            f"writes it, or the path of a {CONFIG_NAME} for a model without weights"
        )
    processor = next((found for name in _PROCESSOR_NAMES if (found := config.parent / name).is_file()), None)
    return Source(
        origin=str(config),
        config=_read(config),
        processor=_read(processor) if processor is not None else {},
        weights=WeightFile(WEIGHTS_NAME, "") if place == config else _local_weights(place),
    )


def _local_weights(folder: Path) -> WeightFile:
    path = folder / WEIGHTS_NAME
    if path.is_file():
        return WeightFile(WEIGHTS_NAME, sha256_of(path), size_bytes=path.stat().st_size, path=path)
    if (folder / _INDEX_NAME).is_file():
        raise WeightsError(
            f"{folder} has its weights in several files, SimMAT reads one {WEIGHTS_NAME}; write it with "
            'save_pretrained(FOLDER, max_shard_size="1TB")'
        )
    if pickles := [name for name in _PICKLES if (folder / name).is_file()]:
        raise WeightsError(
            f"{folder} has {pickles[0]}, a pickle, which could run code and is not read; load it where you trust it, "
            f"and write {WEIGHTS_NAME} with save_pretrained"
        )
    return WeightFile(WEIGHTS_NAME, "")


def _from_hub(repository: str, fetch: bool) -> Source:
    config = _file(repository, CONFIG_NAME, fetch)
    assert config is not None
    processor = next(
        (found for name in _PROCESSOR_NAMES if (found := _file(repository, name, fetch)) is not None), None
    )
    values = _read(config)
    return Source(
        origin=f"{CONFIG_NAME} of {repository}",
        config=values,
        processor=_read(processor) if processor is not None else {},
        weights=WeightFile(WEIGHTS_NAME, "", hub=repository),
    )


def _file(repository: str, name: str, fetch: bool) -> Path | None:
    """Return a small file of a repository, from the cache or the Hub; None if the repository does not have it."""
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    found = try_to_load_from_cache(repository, name)
    if isinstance(found, str):
        return Path(found)
    if found is _CACHED_NO_EXIST and name != CONFIG_NAME:
        return None
    if not fetch:
        if name != CONFIG_NAME:
            return None
        raise WeightsError(
            f"{PREFIX}{repository} is not here, and the Hub is not asked about a model that only a bundle or a run "
            f"names. If you trust it: simmat foundations fetch {PREFIX}{repository}"
        )
    try:
        return Path(hf_hub_download(repository, name))
    except EntryNotFoundError as error:
        missing_there = not isinstance(error, LocalEntryNotFoundError)
        if name != CONFIG_NAME:
            return None  # the processor file is optional, and offline its existence is unknown
        if missing_there:
            raise SpecError(
                f"{PREFIX}{repository}: the repository has no {CONFIG_NAME}, so it is not a model of transformers"
            ) from error
        raise _not_reached_error(repository, error) from error
    except Exception as error:  # the Hub's client raises errors of its http client and of the file system
        raise _not_reached_error(repository, error) from error


def _not_reached_error(repository: str, error: Exception) -> UnknownNameError | WeightsError:
    """Return the error for a config that could not be downloaded, with what to do."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    name = PREFIX + repository
    if isinstance(error, GatedRepoError):
        return WeightsError(
            f"{name}: its licence must be accepted on its page at {ENDPOINT}/{repository}, and a token given: "
            "`hf auth login`, or HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError):
        return UnknownNameError(
            f"no foundation model {name!r}{did_you_mean(repository, PUBLISHED, prefix=PREFIX, otherwise=':')}"
            f" {ENDPOINT} has no such repository, or a private one (then give a token: `hf auth login`, or "
            f"HF_TOKEN). A folder is written {PREFIX}./FOLDER; `simmat foundations list {PREFIX}` shows well-known ones"
        )
    cause = error.__cause__ or error
    why = (str(cause).strip().splitlines() or [""])[0] or type(cause).__name__
    return WeightsError(
        f"{name} is not here: its {CONFIG_NAME} is not in the Hugging Face cache {HF_HUB_CACHE}, and {ENDPOINT} cannot "
        f"be reached ({why}). Without a network, download the repository elsewhere (`hf download "
        f"{repository} --local-dir FOLDER`) and name the folder, --foundation {PREFIX}./FOLDER; or copy that cache "
        "and name it in HF_HOME"
    )


def _read(path: Path) -> dict[str, Any]:
    values = read_json(
        path, "config", limit=_MAX_CONFIG_BYTES, error=SpecError, hint="give another model", constants=True
    )
    if not isinstance(values, dict):
        raise SpecError(f"{path} is damaged: expected a table, got a {type(values).__name__}")
    return values
