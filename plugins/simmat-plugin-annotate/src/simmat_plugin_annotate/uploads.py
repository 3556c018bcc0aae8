"""The images that clients of `simmat serve` have sent: their files as they are, in a temporary folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from simmat.errors import DataError, OutputError
from simmat.io.files import output_errors
from simmat.io.images import read_image
from simmat.io.weights import sha256_of
from simmat.predictor import Predictor
from simmat.sensors.adapter import ModalityAdapter, Source
from simmat.types import SensorImage, Window
from simmat_plugin_annotate.planes import ImageCache, Planes, UnknownError

_NAME = 100
"""Most characters of a file's name."""

ARRAY = "array"
"""Takes the place of the sensor's sources for planes in the units of its channels."""


_FOLDER, _LOCK = "simmat-serve-", ".lock"


@contextmanager
def client_folder() -> Iterator[Path]:
    """Yield an empty temporary folder, which is removed afterwards; remove those that killed servers left.

    Raises:
        OutputError: there is no room for it.
    """
    try:
        temporary = Path(tempfile.gettempdir())
        _remove_left(temporary)
        folder = tempfile.TemporaryDirectory(prefix=_FOLDER, ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(
            f"the images of clients need a temporary folder: {error.strerror}; set TMPDIR to a folder with enough space"
        ) from error
    with folder as name, FileLock(Path(name) / _LOCK):
        home = Path(name) / "images"
        home.mkdir()
        yield home


def _remove_left(temporary: Path) -> None:
    """Remove this user's folders of clients' images whose server has ended: nothing holds their lock."""
    for folder in temporary.glob(f"{_FOLDER}*"):
        lock = FileLock(folder / _LOCK)
        with suppress(OSError, Timeout):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode):
                continue
            if sys.platform != "win32" and found.st_uid != os.getuid():
                continue
            if not (folder / _LOCK).exists():  # it is being made
                continue
            with lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


class _ArrayFile(ModalityAdapter):
    """Planes in the units of the channels, as `Predictor.set_image` takes them as an array."""

    name, description, sources = ARRAY, "", (Source(ARRAY, (".npy",)),)

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self._predictor = predictor

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read them."""
        try:
            return self._predictor.image_loader.load(
                read_image(files[ARRAY]).planes, ()
            )
        except ValueError as error:  # another shape
            raise DataError(str(error)) from error


@dataclass
class _UploadedImage:
    """A stored image, its bytes on disk, and the number of requests for it in progress."""

    planes: Planes
    size: int
    requests: int = 0


class Uploads:
    """The images that clients have sent; those used longest ago are dropped, but none with a request in progress."""

    def __init__(
        self, predictor: Predictor, home: Path, *, max_pixels: int, max_bytes: int
    ) -> None:
        """Keep images in a folder.

        Args:
            home: an empty folder.
            max_pixels: of an image.
            max_bytes: on disk, of the files and embeddings of all images.
        """
        self._predictor, self._home = predictor, home
        self._max_pixels, self._max_bytes = max_pixels, max_bytes
        self._memory = ImageCache()
        self._images: OrderedDict[str, _UploadedImage] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: str) -> Planes:
        """Return the planes of an image; raise UnknownError if there is none, or it was dropped."""
        if (image := self._images.get(key)) is None:
            raise UnknownError(
                "there is no image with this id, or it was removed; send its files again"
            )
        return image.planes

    def use(self, key: str) -> None:
        """Keep an image until `release`; raise UnknownError if there is none, or it was dropped."""
        with self._lock:
            self.find(key)
            self._images[key].requests += 1

    def release(self, key: str) -> None:
        """End a request for an image, which is now the one used last."""
        with self._lock:
            image = self._images[key]
            image.requests -= 1
            image.size = _bytes_in(image.planes.home)  # with its embeddings
            self._images.move_to_end(key)
            self._make_room()

    def _make_room(self) -> bool:
        """While the images take too much disk, drop those used longest ago; return whether the last one has room.

        The last one stays, and those with a request in progress.
        """
        for key, image in list(self._images.items())[:-1]:
            if self._is_full() and not image.requests:
                del self._images[key]
                shutil.rmtree(image.planes.home, ignore_errors=True)
        return len(self._images) == 1 or not self._is_full()

    def _is_full(self) -> bool:
        return sum(image.size for image in self._images.values()) > self._max_bytes

    def add(self, files: Mapping[str, tuple[str, BinaryIO]]) -> str:
        """Store an image, unless it is there already, and return its key: a digest of its files.

        It is kept until `release`, as by `use`.

        Args:
            files: source -> name and content of its file; or `ARRAY` -> those of an npy file.

        Raises:
            DataError: the sources are not those of the sensor, an image has too many pixels, or cannot be read.
            BundleError: the image has other channels than the model.
            OutputError: the files cannot be written, or images with requests in progress take the disk.
        """
        adapter: ModalityAdapter = self._predictor.adapter
        sources = adapter.source_names()
        if set(files) == {ARRAY} != set(sources):
            adapter = _ArrayFile(self._predictor)
        elif set(files) != set(sources):
            got = ", ".join(repr(name[:50]) for name in files) or "none"
            raise DataError(
                f"the form must hold a file for each of {', '.join(map(repr, sources))}, got {got}"
            )
        with output_errors(self._home):
            folder = Path(tempfile.mkdtemp(dir=self._home))
        try:
            with output_errors(self._home):
                paths, key = _written(files, folder)
            with suppress(UnknownError):
                self.use(key)
                shutil.rmtree(folder, ignore_errors=True)
                return key
            planes = Planes(adapter, paths, self._memory, folder)
            self._check(planes)
            with self._lock:
                image = self._images.setdefault(
                    key, _UploadedImage(planes, _bytes_in(folder))
                )
                if image.planes is planes and not self._make_room():
                    del self._images[key]
                    raise OutputError(
                        "the images of requests in progress fill the disk space that --keep-gb allows; send "
                        "this image later"
                    )
                image.requests += 1
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if image.planes is not planes:  # another client has sent it meanwhile
            shutil.rmtree(folder, ignore_errors=True)
        return key

    def _check(self, planes: Planes) -> None:
        height, width = planes.size_hw
        if height * width > self._max_pixels:
            raise DataError(
                f"{planes.origin}: has {width}x{height} pixels, at most {self._max_pixels} are allowed; cut it into "
                "tiles, or start the server with a larger --max-megapixels"
            )
        self._predictor.check_channels(planes.read(Window(0, 0, 1, 1)))

    def without_paths(self, text: str) -> str:
        """Return a text in which no file is named by its place on this machine."""
        home = re.escape(str(self._home))
        text = re.sub(rf"{home}[\\/][^\\/]+[\\/]\d+[\\/]", "", text)
        text = re.sub(rf"{home}[\w.\\/-]*", "the server's folder", text)
        bundle = self._predictor.bundle
        return (
            text if bundle is None else text.replace(str(bundle.path), bundle.path.name)
        )


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # a temporary file that has its name by now
            size += path.stat().st_size
    return size


def _written(
    files: Mapping[str, tuple[str, BinaryIO]], folder: Path
) -> tuple[dict[str, Path], str]:
    """Write the files, each into a folder of its own; return source -> path, and the digest of all."""
    paths, whole = {}, hashlib.sha256()
    for number, (source, (name, stream)) in enumerate(sorted(files.items())):
        path = folder / str(number) / safe_name(name)
        path.parent.mkdir()
        with path.open("xb") as target:
            shutil.copyfileobj(stream, target)
        whole.update(repr((source, path.name, sha256_of(path))).encode())
        paths[source] = path
    return paths, whole.hexdigest()[:32]


def safe_name(name: str) -> str:
    """Return the last part of a file's name as a client wrote it, of letters, digits and `._-`; its ending is kept."""
    last = re.split(r"[\\/]", name)[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "_", last)[-_NAME:].lstrip(".") or "image"
