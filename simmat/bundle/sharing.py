"""Giving a bundle away and fetching one: folder, zip, or the Hugging Face hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from simmat.bundle.document import check_bundle, read_spec
from simmat.bundle.files import (
    JSON_NAME,
    README_NAME,
    SHARED_NAMES,
    WEIGHTS_NAME,
    ZIP_SUFFIX,
    bundle_folder,
    named_as,
    write_zip,
)
from simmat.bundle.hub import HUB, HubPlace, download, upload
from simmat.bundle.model_card import model_card
from simmat.errors import ConfigError, OutputError
from simmat.files import atomic_folder
from simmat.registry import Registry


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
