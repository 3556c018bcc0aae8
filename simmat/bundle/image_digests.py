"""A record of images by their content: which images a bundle was trained on."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from simmat.documents import StrictModel
from simmat.types import Window

_DIGEST_BYTES = 6
"""Of a million images and as many others, about one in 280 such pairs of sets has two with the same digest."""
_WINDOW_BYTES = 16
_EVERYWHERE = Window(0, 0, 2**31 - 1, 2**31 - 1)
"""A whole image in a record with windows."""
_MAX_RECORD = 12 << 20
"""Largest record in characters: 1.5 million images, or 400,000 windows."""


class ImageDigests(StrictModel):
    """The images that a bundle was trained or validated on, by their content.

    Attributes:
        digests: base64 of (N, 6) bytes, the first of the sha256 of the reference file of each image.
        windows: base64 of (N, 4) little-endian int32, the y0, x0, y1, x1 of the used part; "" for whole images.
    """

    digests: str
    windows: str = ""

    @classmethod
    def of(cls, digests: npt.NDArray[np.uint8], windows: Sequence[Window | None]) -> ImageDigests | None:
        """Make the record of N images from (N, 32) sha256 and their windows; None if it would be too large."""
        rows = set()
        for digest, window in zip(digests[:, :_DIGEST_BYTES], windows, strict=True):
            rows.add((digest.tobytes(), window))
        return cls._of_rows(rows)

    @classmethod
    def _of_rows(cls, rows: set[tuple[bytes, Window | None]]) -> ImageDigests | None:
        if any(window is not None for _, window in rows):
            rows = {(digest, window or _EVERYWHERE) for digest, window in rows}
        ordered = sorted(rows, key=repr)
        digests = b"".join(digest for digest, _ in ordered)
        windows = np.array([window for _, window in ordered if window is not None], "<i4")
        found = cls(digests=_base64(digests), windows=_base64(windows.tobytes()))
        if len(found.digests) + len(found.windows) > _MAX_RECORD:
            return None
        return found

    def joined(self, other: ImageDigests) -> ImageDigests | None:
        """Return the record of the images of both; None if it would be too large."""
        return self._of_rows({*self._rows(), *other._rows()})

    def _rows(self) -> Iterator[tuple[bytes, Window | None]]:
        digests = np.frombuffer(base64.b64decode(self.digests), np.uint8).reshape(-1, _DIGEST_BYTES)
        windows = np.frombuffer(base64.b64decode(self.windows), "<i4").reshape(-1, 4).tolist()
        for row, digest in enumerate(digests):
            window = Window(*windows[row]) if windows else None
            yield digest.tobytes(), window

    def has(self, digests: npt.NDArray[np.uint8], windows: Sequence[Window | None]) -> list[bool]:
        """Return of each of N images, by their (N, 32) sha256, whether a pixel of it was used."""
        used: dict[bytes, list[Window | None]] = {}
        for own_digest, part in self._rows():
            used.setdefault(own_digest, []).append(part)
        answers = []
        for digest, window in zip(digests[:, :_DIGEST_BYTES], windows, strict=True):
            parts = used.get(digest.tobytes(), [])
            answers.append(any(_overlap(part, window) for part in parts))
        return answers

    def problems(self) -> Iterator[str]:
        """Yield contradictions."""
        try:
            digests = len(base64.b64decode(self.digests, validate=True))
            windows = len(base64.b64decode(self.windows, validate=True))
        except ValueError as error:
            yield f"its digests are not base64: {error}"
            return
        count, rest = divmod(digests, _DIGEST_BYTES)
        if rest or windows not in (0, _WINDOW_BYTES * count):
            yield f"digests must be {_DIGEST_BYTES} bytes each, and windows {_WINDOW_BYTES} bytes for each, or none"


def _overlap(part: Window | None, window: Window | None) -> bool:
    """Return whether two parts of an image share a pixel; None is the whole image."""
    return part is None or window is None or bool(window.intersection(part))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
