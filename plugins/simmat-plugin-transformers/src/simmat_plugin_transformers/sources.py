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
from simmat.io import hub
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
    **{
        f"facebook/sam-vit-{size}": f"Segment Anything, ViT-{size[0].upper()}"
        for size in ("base", "large", "huge")
    },
    **{
        f"facebook/sam2.1-hiera-{size}": f"SAM 2.1, Hiera {size}; for single images"
        for size in ("tiny", "small", "base-plus", "large")
    },
    "facebook/sam3": "SAM 3; the tracker for single images, which takes clicks",
}
"""Well-known repositories -> one line about each, for lists and suggestions; any other repository works, too."""


@dataclass(frozen=True)
class ModelFiles:
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


def find(model: str, *, fetch: bool = True) -> ModelFiles | None:
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


def _local(model: str) -> ModelFiles:
    place = Path(model).expanduser()
    config = place if place.suffix == ".json" else place / CONFIG_NAME
    if not config.is_file():
        what = (
            "is no folder"
            if place != config and not place.is_dir()
            else f"has no {CONFIG_NAME}"
        )
        what = "does not exist" if not place.exists() else what
        raise UnknownNameError(
            f"no foundation model {PREFIX + model!r}: {place.absolute()} {what}; give a folder as save_pretrained "
            f"writes it, or the path of a {CONFIG_NAME} for a model without weights"
        )
    processor = next(
        (
            found
            for name in _PROCESSOR_NAMES
            if (found := config.parent / name).is_file()
        ),
        None,
    )
    return ModelFiles(
        origin=str(config),
        config=_read(config),
        processor=_read(processor) if processor is not None else {},
        weights=WeightFile(WEIGHTS_NAME, "")
        if place == config
        else _local_weights(place),
    )


def _local_weights(folder: Path) -> WeightFile:
    path = folder / WEIGHTS_NAME
    if path.is_file():
        return WeightFile(
            WEIGHTS_NAME, sha256_of(path), size_bytes=path.stat().st_size, path=path
        )
    if (folder / _INDEX_NAME).is_file():
        raise WeightsError(
            f"{folder} has its weights in several files, but SimMAT reads one {WEIGHTS_NAME}; write it with "
            'save_pretrained(FOLDER, max_shard_size="1TB")'
        )
    if pickles := [name for name in _PICKLES if (folder / name).is_file()]:
        raise WeightsError(
            f"{folder} has {pickles[0]}, a pickle, which could run code and is not read; load it where you trust it, "
            f"and write {WEIGHTS_NAME} with save_pretrained"
        )
    return WeightFile(WEIGHTS_NAME, "")


def _from_hub(repository: str, fetch: bool) -> ModelFiles:
    config = _file(repository, CONFIG_NAME, fetch)
    assert config is not None
    processor = next(
        (
            found
            for name in _PROCESSOR_NAMES
            if (found := _file(repository, name, fetch)) is not None
        ),
        None,
    )
    values = _read(config)
    return ModelFiles(
        origin=f"{CONFIG_NAME} of {repository}",
        config=values,
        processor=_read(processor) if processor is not None else {},
        weights=WeightFile(WEIGHTS_NAME, "", hub=repository),
    )


def _file(repository: str, name: str, fetch: bool) -> Path | None:
    """Return a small file of a repository, from the cache or the Hub; None if the repository has no such file.

    Offline it is unknown whether the repository has a file other than its config.
    """
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    file, is_config = WeightFile(name, "", hub=repository), name == CONFIG_NAME
    found = hub.cached(file)
    if found is not None or (not is_config and not fetch):
        return found
    if not fetch:
        raise WeightsError(
            f"{PREFIX}{repository} is not on this machine, and a model that only a bundle or a run names is not "
            f"downloaded. If you trust it: simmat foundations fetch {PREFIX}{repository}"
        )
    if not is_config and try_to_load_from_cache(repository, name) is _CACHED_NO_EXIST:
        return None
    try:
        return hub.fetch(file)
    except WeightsError as error:
        if not is_config:
            return None
        hint = did_you_mean(repository, PUBLISHED, prefix=PREFIX, otherwise=":")
        raise WeightsError(
            f"no foundation model {PREFIX + repository!r}{hint} {error} Instead of a repository, a folder as "
            f"save_pretrained writes it can be given: {PREFIX}./FOLDER"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    values = read_json(
        path,
        "config",
        limit=_MAX_CONFIG_BYTES,
        error=SpecError,
        hint="give another model",
        constants=True,
    )
    if not isinstance(values, dict):
        raise SpecError(
            f"{path} is damaged: expected a table, got a {type(values).__name__}"
        )
    return values
