"""The folder of a bundle, wherever it lies: as a folder, as its json, in a zip, or in the folder of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from simmat.bundle.spec import JSON_NAME, SHARED_NAMES
from simmat.bundle.zipped import unpack_zip
from simmat.errors import BundleError, SimMATError
from simmat.files import output_error, recover_folder

ZIP_SUFFIX = ".zip"
RUN_BUNDLE = "bundle"
"""Where a run keeps its best bundle."""


@contextmanager
def bundle_folder(path: Path, names: Collection[str] = SHARED_NAMES) -> Iterator[Path]:
    """Give the folder of a bundle; one in a zip is unpacked for as long as the block lasts.

    Args:
        path: a folder, its `bundle.json`, a zip, or the folder of a run, whose best bundle is meant.
        names: which of the files are needed.

    Raises:
        BundleError: the zip is not taken, see `unpack_zip`; a folder is not looked into here.
    """
    if path.parts[:1] == ("hf:",):  # a path has lost one of the two slashes
        place = f"hf://{path.relative_to('hf:').as_posix()}"
        raise BundleError(f"{place} is on the hub; fetch it first: simmat bundle pull {place}")
    if path.name == JSON_NAME:
        yield path.parent
    elif not path.is_file():
        yield _of_run(path)
    elif path.suffix.lower() != ZIP_SUFFIX:
        raise BundleError(f"{path} is a file, no bundle; give a bundle's folder, or a {ZIP_SUFFIX} that holds one")
    else:
        with tempfile.TemporaryDirectory(prefix="simmat-bundle-") as made:
            folder = Path(made)
            try:
                unpack_zip(path, folder, names)
            except OSError as error:
                raise output_error(error, folder) from error
            with named_as(folder, path):
                yield folder


def _of_run(path: Path) -> Path:
    """Return the best bundle where a folder is a run's, else the folder as it is."""
    inner = recover_folder(path / RUN_BUNDLE)
    return inner if inner.is_dir() and not (path / JSON_NAME).exists() else path


@contextmanager
def named_as(folder: Path, path: Path | str) -> Iterator[None]:
    """Let errors about a folder of passing name speak of the path that the user gave."""
    try:
        yield
    except SimMATError as error:
        if str(folder) not in str(error):
            raise
        raise type(error)(str(error).replace(str(folder), str(path))) from error
