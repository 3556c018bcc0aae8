"""Copy a bundle to a file or to the Hugging Face Hub, fetch one, and make a gallery of a folder."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from simmat.bundle import (
    FILE_NAME,
    SUFFIX,
    BundleSpec,
    Sensors,
    read_bundle_specs,
    read_sensors,
    write_sensors,
)
from simmat.documents import parse
from simmat.errors import BundleError, ConfigError, OutputError
from simmat.io.files import atomic_write_json, atomic_write_text, remove_temporary
from simmat.io.weights import sha256_of
from simmat.plugins.registry import Registry
from simmat.types import is_finite_number
from simmat_plugin_hub.card import model_card
from simmat_plugin_hub.gallery import INDEX_NAME, NAME, SCHEME, GalleryIndex
from simmat_plugin_hub.hub import parse_place, upload

PICTURES = (".jpg", ".png")
"""Endings of the picture of a bundle in a gallery."""


def push_bundle(
    bundle: Path | str,
    destination: str,
    *,
    licence: str | None = None,
    registry: Registry | None = None,
    force: bool = False,
    private: bool = False,
) -> str:
    """Copy a checked bundle to a file, or with a model card to the hub; of one of several sensors, that alone.

    Args:
        bundle: what every command takes: RUN, RUN/SENSOR, …
        destination: FILE.safetensors, a folder, which gets bundle.safetensors, or hf://ORG/NAME.
        licence: a name as the hub writes it, which the copy states; None keeps what the bundle states.
        registry: what is installed, to name the foundation model's licence in the model card.

    Returns:
        Where it is now.

    Raises:
        BundleError: the bundle is missing, damaged or of a newer format.
        ConfigError: the destination or licence is not valid.
        OutputError: something exists already, or it cannot be written or sent.
    """
    if licence is not None:
        _check_licence(licence)
    if "://" in destination:
        parse_place(destination)
        return _push_to_hub(
            _read(bundle, licence), destination, registry, force=force, private=private
        )
    if private:
        raise ConfigError(f"--private is for hf:// only, got {destination!r}")
    file = _file_at(destination)
    _check_free(file, force)
    remove_temporary(file.parent)
    write_sensors(file, _read(bundle, licence))
    return str(file)


def _push_to_hub(
    sensors: Sensors,
    place: str,
    registry: Registry | None,
    *,
    force: bool,
    private: bool,
) -> str:
    specs = {name: spec for name, (spec, _) in sensors.items()}
    with tempfile.TemporaryDirectory(prefix="simmat-bundle-") as folder:
        file = Path(folder) / FILE_NAME
        write_sensors(file, sensors)
        return upload(
            place,
            file,
            model_card(specs, registry=registry),
            force=force,
            private=private,
        )


def pull_bundle(
    source: Path | str, out: Path | None = None, *, force: bool = False
) -> Path:
    """Fetch a bundle into a file, which is made only if the bundle is whole.

    Args:
        source: what every command takes: hf://ORG/NAME, gallery:NAME, a file, RUN/SENSOR, …
        out: FILE.safetensors, or a folder, which gets bundle.safetensors; None takes the source's name, in the current
            folder.

    Returns:
        The file.

    Raises:
        BundleError: there is no bundle, it is damaged, or of a newer format.
        ConfigError: the source or `out` is not valid.
        OutputError: something exists already, or it cannot be written.
    """
    file = _file_at(out or f"{_name_of(str(source))}{SUFFIX}")
    _check_free(file, force)
    remove_temporary(file.parent)
    write_sensors(file, _read(source, None))
    return file


def index_folder(folder: Path) -> GalleryIndex:
    """Check the bundles NAME.safetensors in a folder, and write its index and their model cards, NAME.md.

    NAME.jpg or NAME.png is the picture of a bundle.

    Raises:
        BundleError: there is none, or one is damaged.
        ConfigError: a name has other characters than letters, digits and `._-`.
        OutputError: the index cannot be written.
    """
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        if not folder.is_dir():
            raise BundleError(
                f"there is no folder {folder}; give one with bundles NAME{SUFFIX}"
            )
        raise BundleError(
            f"{folder} has no bundles NAME{SUFFIX}; copy them there, see simmat bundle push"
        )
    entries = []
    cards = {}
    for file in files:
        _check_name(file)
        specs = read_bundle_specs(file)
        entries += [
            _entry(file, sensor, spec, len(specs) > 1) for sensor, spec in specs.items()
        ]
        cards[file.with_suffix(".md")] = model_card(specs)
    index = parse(GalleryIndex, {"format": 1, "bundles": entries}, str(folder))
    for path, card in cards.items():
        atomic_write_text(path, card)
    atomic_write_json(folder / INDEX_NAME, index.model_dump(mode="json"))
    return index


def _check_name(file: Path) -> None:
    if not re.fullmatch(NAME, file.stem):
        raise ConfigError(
            f"{file}: the name of a bundle in a gallery has letters, digits and ._-, and starts with a letter "
            "or digit; rename the file"
        )


def _entry(
    file: Path, sensor: str, spec: BundleSpec, is_one_of_several: bool
) -> dict[str, Any]:
    """Return the entry of a sensor in the index."""
    pictures = [file.with_suffix(ending) for ending in PICTURES]
    picture = next((path.name for path in pictures if path.is_file()), None)
    return {
        "name": f"{file.stem}/{sensor}" if is_one_of_several else file.stem,
        "file": file.name,
        "sensor": spec.modality,
        "options": spec.modality_options,
        "classes": spec.card.class_names,
        "foundation": spec.foundation,
        "scores": _scores(spec),
        "split": "val",
        "data": spec.card.source,
        "licence": spec.licence,
        "sha256": sha256_of(file),
        "size": file.stat().st_size,
        "picture": picture,
    }


def _scores(spec: BundleSpec) -> dict[str, float]:
    """Return the validation scores that are numbers, and "ap50" of the objects that are found without prompts."""
    found = spec.metrics.get("val")
    if not isinstance(found, dict):
        return {}
    numbers = dict(found)
    everything = found.get("everything")
    if isinstance(everything, dict):
        numbers["ap50"] = everything.get("ap50")
    return {
        name: float(value) for name, value in numbers.items() if is_finite_number(value)
    }


def _read(bundle: Path | str, licence: str | None) -> Sensors:
    """Read the sensors of a bundle as they are written into a copy."""
    sensors = read_sensors(bundle)
    for name, (spec, tensors) in sensors.items():
        if spec.exported is not None:
            raise BundleError(
                f"{bundle} is an exported model, which is a folder; copy that, or give the bundle"
            )
        if licence is not None:
            sensors[name] = (spec.model_copy(update={"licence": licence}), tensors)
    if len(sensors) == 1:
        return {"": next(iter(sensors.values()))}
    return sensors


def _check_licence(licence: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise ConfigError(
            f"--licence takes a name as the hub writes it, such as apache-2.0, mit, cc-by-4.0 or other, got {licence!r}"
        )


def _file_at(destination: Path | str) -> Path:
    """Return the file that a destination names: itself, or that in a folder."""
    if str(destination).startswith(SCHEME):
        raise ConfigError(
            f"a gallery is a folder, got {str(destination)!r}; push to FOLDER/NAME{SUFFIX}, then run simmat bundle "
            "index FOLDER"
        )
    path = Path(destination)
    if not str(destination).strip() or path.suffix.lower() == ".zip":
        raise ConfigError(
            f"a bundle is one file: give NAME{SUFFIX}, a folder, or hf://ORG/NAME, got {str(destination)!r}"
        )
    return path if path.suffix == SUFFIX else path / FILE_NAME


def _check_free(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise OutputError(
            f"{file} exists already; choose another name, or replace it with --force"
        )


def _name_of(source: str) -> str:
    """Return the name of a bundle: the last part of its place, without an ending; of RUN/bundle.safetensors RUN."""
    place = (
        source.partition("@")[0]
        if source.startswith("hf:")
        else source.removeprefix(SCHEME)
    )
    path = Path(place).absolute()
    if path.name == FILE_NAME:
        path = path.parent
    return path.stem if path.suffix.lower() == SUFFIX else path.name
