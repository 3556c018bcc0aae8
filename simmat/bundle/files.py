"""The files of a bundle: a folder or a zip of `bundle.json`, `weights.safetensors` and the model card."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from simmat.errors import BundleError
from simmat.io.files import atomic_path, remove_leftovers
from simmat.io.reading import require_file
from simmat.io.weights import sha256_of
from simmat.model import SimMAT
from simmat.nn.tensor_files import read_safetensors
from simmat.nn.tuners import trainable_state

JSON_NAME = "bundle.json"
WEIGHTS_NAME = "weights.safetensors"
README_NAME = "README.md"
"""The model card, in a bundle that was shared."""
SHARED_NAMES = (JSON_NAME, README_NAME, WEIGHTS_NAME)
"""Every file that a bundle may hold."""
SIZE_LIMITS = {JSON_NAME: 16 << 20, README_NAME: 4 << 20, WEIGHTS_NAME: 16 << 30}
"""Largest size of each file in bytes; all of SAM ViT-H, fully tuned, has 2.6 GB."""
_MAX_EXPANSION = 20
"""Weights hardly compress, and text to about a tenth; what expands more than this is made to fill a disk."""
_CHUNK = 1 << 20
ZIP_SUFFIX = ".zip"


def write_zip(target: Path, files: Mapping[str, Path | bytes]) -> None:
    """Write the files of a bundle into a zip; equal files give equal bytes.

    They are not compressed: weights hardly shrink, and the output of deflate depends on its version.
    """
    remove_leftovers(target)
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # unix, on any system
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
            opened = BytesIO(content) if isinstance(content, bytes) else content.open("rb")
            with opened as source, archive.open(entry, "w") as stream:
                shutil.copyfileobj(source, stream, _CHUNK)


def unpack_zip(source: Path, folder: Path, names: Collection[str] = SHARED_NAMES) -> None:
    """Unpack files of a bundle's zip; raise BundleError, before a byte is written, for a zip of anything else."""
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            if problems := list(_problems(entries)):
                raise BundleError(
                    f"{source} is refused: {'; '.join(problems[:5])}. A bundle's zip holds {', '.join(SHARED_NAMES)} "
                    "and nothing else; make one with `simmat bundle push`"
                )
            for entry in entries:
                if entry.filename in names:
                    with archive.open(entry) as stream, (folder / entry.filename).open("xb") as target:
                        shutil.copyfileobj(stream, target, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise BundleError(f"{source} is damaged or not a zip file ({error}); copy it again") from error
    except PermissionError as error:
        if str(error.filename) != str(source):
            raise
        raise BundleError(f"{source} cannot be read: {error.strerror}; check its permissions") from error


def _problems(entries: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield why a zip with these entries is refused; a link would be unpacked as a file with its target's name."""
    names = [entry.filename for entry in entries]
    yield from (f"it holds {name[:80]!r}" for name in sorted(set(names) - set(SHARED_NAMES)))
    if JSON_NAME not in names or len(names) > len(set(names)):
        yield f"it must hold {JSON_NAME}, and no name twice"
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            yield f"{entry.filename[:80]!r} is compressed by another method than deflate"
        limit = min(SIZE_LIMITS.get(entry.filename, 0), _MAX_EXPANSION * max(entry.compress_size, 4096))
        if entry.file_size > limit:
            yield f"{entry.filename[:80]!r} grows from {entry.compress_size} to {entry.file_size} bytes"


def trained_tensors(model: SimMAT) -> dict[str, Tensor]:
    """Return the tensors a bundle holds: the transfer layer and what the tuner changed, on the CPU."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(_own_tensors(model).items())}


def _own_tensors(model: SimMAT) -> dict[str, Tensor]:
    tensors = {f"mat.{name}": tensor for name, tensor in model.mat.state_dict().items()}
    tensors |= {f"foundation.{name}": tensor for name, tensor in trainable_state(model.foundation).items()}
    if model.dense is not None:
        tensors |= {f"dense.{name}": tensor for name, tensor in model.dense.state_dict().items()}
    return tensors


def read_weights(folder: Path, sha256: str) -> dict[str, Tensor]:
    """Read the tensors of a bundle; raise BundleError for a damaged file, NaN or infinity."""
    file = folder / WEIGHTS_NAME
    if not file.exists():
        raise BundleError(f"{file} is missing; copy the bundle again, or if it was exported, give what was exported")
    require_file(file, "weight file", error=BundleError)
    if sha256_of(file) != sha256:
        raise BundleError(
            f"{file} is damaged: its sha256 is not the one in {JSON_NAME}; copy or train the bundle again"
        )
    tensors = read_safetensors(file, error=BundleError)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all():  # 8 bits: no isfinite
            raise BundleError(
                f"{file} holds NaN or infinity in the tensor {name!r}, so it cannot give a mask; get the bundle again "
                "from who trained it, or train it again"
            )
    return tensors


def tensors_of(sensor: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a bundle of several sensors has for one: its own tensors, "SENSOR/mat.…", and the shared ones."""
    own = f"{sensor}/"
    return {
        name.removeprefix(own): tensor
        for name, tensor in tensors.items()
        if name.startswith(own) or "/" not in name.partition(".")[0]
    }


def check_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Raise BundleError if tensors of a bundle are not those of a network, which may be on the meta device."""
    expected = {name: _kind(tensor) for name, tensor in _own_tensors(model).items()}
    given = {name: _kind(tensor) for name, tensor in tensors.items()}
    if wrong := sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name)):
        first = wrong[0]
        raise BundleError(
            f"{origin} does not fit the network: {len(wrong)} tensors differ, the first is {first!r}: "
            f"needed {expected.get(first, 'none')}, got {given.get(first, 'none')}"
        )


def load_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put a bundle's tensors into a network of the same spec; raise BundleError if they do not fit."""
    check_tensors(model, tensors, origin)
    model.load_state_dict(dict(tensors), strict=False)


def _kind(tensor: Tensor) -> str:
    """Return shape and dtype for messages: "(3, 64) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
