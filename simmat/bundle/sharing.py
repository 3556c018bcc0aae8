"""Share bundles: as a folder, as a zip, in a gallery, or on the Hugging Face Hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simmat.bundle.document import BundleSpec, check_bundle, read_specs, write_sensors
from simmat.bundle.files import JSON_NAME, README_NAME, SHARED_NAMES, ZIP_SUFFIX, write_zip
from simmat.bundle.gallery import INDEX_NAME, NAME, SCHEME, GalleryIndex
from simmat.bundle.load import read_bundle
from simmat.bundle.model_card import model_card
from simmat.bundle.places import HUB, bundle_folder, check_place, hub_client, hub_errors, hub_repository, named_as
from simmat.documents import parse
from simmat.errors import BundleError, ConfigError, OutputError
from simmat.io.files import atomic_folder, atomic_write_json
from simmat.io.weights import sha256_of
from simmat.plugins.registry import Registry
from simmat.types import is_finite_number

PICTURES = (".jpg", ".png")
_LICENCE = re.compile(r'^license: *"?([^"\n]+?)"?$', re.MULTILINE)


def push_bundle(
    bundle: Path,
    destination: str,
    *,
    licence: str | None = None,
    registry: Registry | None = None,
    force: bool = False,
    private: bool = False,
) -> str:
    """Copy a checked bundle with a model card to a folder, a zip or the hub; of one of several sensors, that alone.

    A README.md that the bundle has already is kept.

    Args:
        destination: a folder, a path that ends in .zip, or hf://ORG/NAME.
        registry: what is installed, to name packages and licences in the model card.

    Returns:
        Where it is now.

    Raises:
        BundleError: the bundle is missing, damaged or of a newer format.
        ConfigError: the destination or licence is not valid.
        OutputError: something exists already, or it cannot be written or sent.
    """
    if destination.startswith(SCHEME):
        raise ConfigError(
            f"a gallery is a folder, got {destination!r}; push to FOLDER/NAME{ZIP_SUFFIX}, then run "
            "simmat bundle index FOLDER"
        )
    target = Path(destination) if destination.strip() and "://" not in destination else None
    if target is None:
        hub_repository(destination)
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise ConfigError(
            f"--licence takes a name as the hub writes it, such as apache-2.0, mit, cc-by-4.0 or other, got {licence!r}"
        )
    if private and target is not None:
        raise ConfigError(f"--private is for hf:// only, got {destination!r}")
    with _checked_folder(bundle) as folder:
        files: dict[str, Path | bytes] = {name: folder / name for name in SHARED_NAMES}
        if not (folder / README_NAME).exists():
            files[README_NAME] = model_card(read_specs(folder), licence=licence, registry=registry).encode()
        elif licence is not None:
            raise ConfigError(
                f"{folder / README_NAME} exists and is kept as it is; state the licence in it, or remove it first"
            )
        if target is None:
            return _upload(destination, files, force=force, private=private)
        if target.suffix.lower() != ZIP_SUFFIX:
            _write_folder(target, files, force, destination)
        elif target.exists() and not force:
            raise _exists(target)
        else:
            write_zip(target, files)
    return destination


def pull_bundle(source: str, out: Path | None = None, *, force: bool = False) -> Path:
    """Fetch a bundle into a folder, which is made only if the bundle is whole.

    Args:
        source: a folder, a .zip, gallery:NAME, or hf://ORG/NAME, optionally with @REVISION.
        out: the folder; None takes the source's name, in the current folder.

    Raises:
        BundleError: there is no bundle, it is damaged, of a newer format, or a zip of anything else.
        ConfigError: the source or `out` is not valid.
        OutputError: something exists already, or it cannot be written.
    """
    check_place(source)
    target = out or Path(_name(source))
    if target.suffix.lower() == ZIP_SUFFIX:
        raise ConfigError(f"--out names a folder, got {target}; to make a zip: simmat bundle push BUNDLE {target}")
    _check_folder(target, force)
    with _checked_folder(source) as folder:
        files = {name: folder / name for name in SHARED_NAMES if (folder / name).is_file()}
        _write_folder(target, files, force, source)
    return target


@contextmanager
def _checked_folder(path: Path | str) -> Iterator[Path]:
    """Give the folder of a whole bundle; of one of several sensors, one that holds it alone until the block ends."""
    with bundle_folder(path) as (whole, sensor), tempfile.TemporaryDirectory(prefix="simmat-bundle-") as made:
        folder = Path(made) / sensor if sensor else whole
        if sensor:
            write_sensors(folder, {"": read_bundle(whole / sensor)})
        check_bundle(folder)
        if (folder / README_NAME).is_symlink() and not Path(path).as_posix().startswith(HUB):
            raise BundleError(
                f"{folder / README_NAME} is a link, which could lead to any file; put a copy in its place"
            )
        yield folder


def _name(source: str) -> str:
    path = Path(source.partition("@")[0] if source.startswith(HUB) else source.removeprefix(SCHEME)).absolute()
    path = path.parent if path.name == JSON_NAME else path
    return path.stem if path.suffix.lower() == ZIP_SUFFIX else path.name


def _write_folder(target: Path, files: Mapping[str, Path | bytes], force: bool, source: str) -> None:
    """Copy the files of a bundle into a new folder, and check them there: what they came from may change meanwhile."""
    _check_folder(target, force)
    with atomic_folder(target) as new, named_as(new, source):
        for name, content in files.items():
            if isinstance(content, bytes):
                (new / name).write_bytes(content)
            else:
                shutil.copyfile(content, new / name)
        check_bundle(new)


def _check_folder(target: Path, force: bool) -> None:
    """Refuse a target folder that exists and is not empty; only a bundle may be replaced, and only with `force`."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or any(found.name not in SHARED_NAMES for found in target.iterdir()):
        raise OutputError(f"{target} exists and is not a bundle, so it is not replaced; choose another name")
    if not force:
        raise _exists(target)


def _exists(target: Path) -> OutputError:
    return OutputError(f"{target} exists already; choose another name, or replace it with --force")


def _upload(place: str, files: Mapping[str, Path | bytes], *, force: bool, private: bool) -> str:
    """Commit the files of a bundle to a repository, which is made if it is missing; return the commit's address."""
    (repo, revision), api = hub_repository(place), hub_client()
    from huggingface_hub import CommitOperationAdd

    with hub_errors(place, OutputError):
        api.create_repo(repo, private=private, exist_ok=True)
        if not force and api.file_exists(repo, JSON_NAME, revision=revision):
            raise OutputError(f"{place} already holds a bundle; choose another name, or replace it with --force")
        done = api.create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in sorted(files.items())],
            commit_message="Upload a SimMAT bundle",
            revision=revision,
        )
    return str(done.commit_url)


def index_folder(folder: Path) -> GalleryIndex:
    """Check the bundles NAME.zip in a folder and write its index; NAME.jpg or NAME.png is the picture of a bundle.

    Raises:
        BundleError: there is none, or one is damaged.
        ConfigError: a name has other characters than letters, digits and `._-`.
        OutputError: the index cannot be written.
    """
    zips = sorted(folder.glob(f"*{ZIP_SUFFIX}"))
    if not zips:
        if not folder.is_dir():
            raise BundleError(f"there is no folder {folder}; give one with bundles NAME{ZIP_SUFFIX}")
        raise BundleError(f"{folder} has no bundles NAME{ZIP_SUFFIX}; make them with simmat bundle push RUN NAME.zip")
    index = parse(GalleryIndex, {"format": 1, "bundles": [one for path in zips for one in _entries(path)]}, str(folder))
    atomic_write_json(folder / INDEX_NAME, index.model_dump(mode="json"))
    return index


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    if not re.fullmatch(NAME, path.stem):
        raise ConfigError(
            f"{path}: the name of a bundle in a gallery has letters, digits and ._-, and starts with one of the "
            "first two; rename the file"
        )
    with bundle_folder(path) as (folder, _):
        check_bundle(folder)
        specs, licence = read_specs(folder), ""
        with suppress(FileNotFoundError):
            stated = _LICENCE.search((folder / README_NAME).read_text(encoding="utf-8", errors="replace"))
            licence = "" if stated is None or stated[1] == "unknown" else stated[1]
    picture = next((file.name for ending in PICTURES if (file := path.with_suffix(ending)).is_file()), None)
    for sensor, spec in specs.items():
        yield {
            "name": path.stem if len(specs) == 1 else f"{path.stem}/{sensor}",
            "file": path.name,
            "sensor": spec.modality,
            "options": spec.modality_options,
            "classes": spec.card.class_names,
            "foundation": spec.foundation,
            "scores": _numbers(spec),
            "split": "val",
            "data": spec.card.source,
            "licence": licence,
            "sha256": sha256_of(path),
            "size": path.stat().st_size,
            "picture": picture,
        }


def _numbers(spec: BundleSpec) -> dict[str, float]:
    found = spec.metrics.get("val")
    pairs: Iterable[tuple[str, Any]] = found.items() if isinstance(found, dict) else ()
    return {name: float(value) for name, value in pairs if is_finite_number(value)}
