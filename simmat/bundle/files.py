"""The files of a bundle: a folder or a zip of `bundle.json`, `weights.safetensors` and the model card."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from simmat.errors import BundleError, SimMATError
from simmat.io.files import atomic_path, output_error, recover_folder, remove_left
from simmat.model import SimMAT
from simmat.nn.tensor_files import read_safetensors
from simmat.nn.tuners import trainable_state

JSON_NAME = "bundle.json"
WEIGHTS_NAME = "weights.safetensors"
README_NAME = "README.md"
"""The model card, beside the two where a bundle was shared."""
SHARED_NAMES = (JSON_NAME, README_NAME, WEIGHTS_NAME)
"""Every file that a bundle may hold."""
SIZE_LIMITS = {JSON_NAME: 16 << 20, README_NAME: 4 << 20, WEIGHTS_NAME: 16 << 30}
"""Bytes a file of a bundle may have; all of SAM ViT-H, tuned in full, has 2.6 GB."""
_MOST_EXPANSION = 20
"""Weights hardly compress and text does so to a tenth, about; what grows more than this is made to fill a disk."""
_CHUNK = 1 << 20
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


def write_zip(target: Path, files: Mapping[str, Path | bytes]) -> None:
    """Write the files of a bundle into a zip, whole or not at all; equal files give equal bytes.

    They are stored, not compressed: weights hardly shrink, and what deflate gives depends on its version.

    Raises:
        OutputError: it cannot be written.
    """
    remove_left(target)
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # unix, whatever it is written on
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
            with archive.open(entry, "w") as stream:
                if isinstance(content, bytes):
                    stream.write(content)
                else:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, stream, _CHUNK)


def unpack_zip(source: Path, folder: Path, names: Collection[str] = SHARED_NAMES) -> None:
    """Unpack a bundle's files from a zip into a folder; the zip is looked at as a whole before a byte is written.

    Args:
        source: the zip.
        folder: where the files go; it is there.
        names: which of the files.

    Raises:
        BundleError: it is damaged, or holds anything but a bundle's own files: other names, paths, links, a name
            twice, more bytes than a bundle can have.
    """
    with _zip_errors(source), zipfile.ZipFile(source) as archive:
        entries = archive.infolist()
        if problems := [*_wrong_names(entries), *(p for entry in entries for p in _problems(entry))]:
            raise BundleError(
                f"{source} is not taken: {'; '.join(problems[:5])}. A bundle's zip holds {', '.join(SHARED_NAMES)} and "
                "nothing else; make one with `simmat bundle push`"
            )
        for entry in entries:
            if entry.filename in names:
                with archive.open(entry) as stream, (folder / entry.filename).open("xb") as target:
                    shutil.copyfileobj(stream, target, _CHUNK)


def _wrong_names(entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    names = [entry.filename for entry in entries]
    for name in sorted(set(names)):
        if name not in SHARED_NAMES:
            yield f"it holds {name[:80]!r}"
        elif names.count(name) > 1:
            yield f"it holds {name!r} {names.count(name)} times"
    if JSON_NAME not in names:
        yield f"it lacks {JSON_NAME}"


def _problems(entry: zipfile.ZipInfo) -> Iterator[str]:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):  # 0 where it was not written on a unix
        yield f"{entry.filename!r} is a {'link' if kind == stat.S_IFLNK else 'special file'}"
    if entry.flag_bits & 1:
        yield f"{entry.filename!r} is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        yield f"{entry.filename!r} is compressed in an unusual way"
    limit = SIZE_LIMITS.get(entry.filename, 0)
    if limit and entry.file_size > limit:
        yield f"{entry.filename!r} has {entry.file_size} bytes, more than the {limit} allowed"
    elif entry.file_size > _MOST_EXPANSION * max(entry.compress_size, 4096):
        yield f"{entry.filename!r} grows from {entry.compress_size} to {entry.file_size} bytes"


@contextmanager
def _zip_errors(source: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise BundleError(f"{source} is damaged or no zip file ({error}); copy it again") from error
    except PermissionError as error:
        if error.filename is None or Path(str(error.filename)) != source:
            raise
        raise BundleError(f"{source} cannot be read: {error.strerror}; check who may read it") from error


def trained_tensors(model: SimMAT) -> dict[str, Tensor]:
    """Return the tensors a bundle holds: the whole transfer layer and what the tuner moved, on the CPU."""
    tensors = {f"mat.{name}": tensor for name, tensor in model.mat.state_dict().items()}
    tensors |= {f"foundation.{name}": tensor for name, tensor in trainable_state(model.foundation).items()}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a bundle's tensors.

    Raises:
        BundleError: the file is damaged, or a tensor holds numbers that are not finite, which no mask can come of.
    """
    tensors = read_safetensors(file, error=BundleError)
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise BundleError(
                f"{file} holds NaN or infinity in the tensor {name!r}, so no mask can come of it; get the bundle again "
                "from who trained it, or train it anew"
            )
    return tensors


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    wide = tensor if tensor.is_complex() or tensor.element_size() > 1 else tensor.float()  # 8 bits know no isfinite
    return bool(torch.isfinite(wide).all())


def load_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put a bundle's tensors into a network of the same spec.

    Raises:
        BundleError: one is missing, one too many, or of another shape or type of numbers.
    """
    expected = {name: _kind(tensor) for name, tensor in trained_tensors(model).items()}
    given = {name: _kind(tensor) for name, tensor in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        first = wrong[0]
        raise BundleError(
            f"{origin} does not fit the network: {len(wrong)} tensors differ, the first is {first!r}: "
            f"needed {expected.get(first, 'none')}, got {given.get(first, 'none')}"
        )
    model.load_state_dict(dict(tensors), strict=False)


def _kind(tensor: Tensor) -> str:
    """Return shape and type of numbers in words: "(3, 64) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
