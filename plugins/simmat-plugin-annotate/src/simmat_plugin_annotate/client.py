"""A client of `simmat serve`. This file needs Python and numpy alone, so it can be copied into any program.

client = Client("http://127.0.0.1:8765/?token=…")
client.set_image("cow.tiff")
mask = client.predict([(320, 240)])[0]["mask"]
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt

# elements of .aux.xml that change values
_CHANGING = re.compile(rb"<(Scale|Offset|NoDataValue)>")


class ServerError(Exception):
    """The server refused a request; the message says why."""


class Client:
    """A model on a server, with a current image: `set_image` once, then `predict` as often as asked.

    Attributes:
        model: what the server says of it: name, sensor, sources, channels, classes, limits.
        size_hw: (height, width) of the current image in pixels.
    """

    _error: type[Exception] = ServerError

    def __init__(self, address: str, *, timeout_s: float = 600) -> None:
        """Connect to a server.

        Args:
            address: what `simmat serve` prints, which ends in ?token=TOKEN; without it SIMMAT_SERVE_TOKEN is the token.
            timeout_s: seconds to wait for an answer.
        """
        parts = urlsplit(address)
        if (
            parts.scheme not in ("http", "https")
            or not parts.netloc
            or parts.path not in ("", "/")
        ):
            raise self._error(
                f"{address.partition('?')[0]}: not an address of simmat serve; give what it prints: "
                "http://HOST:PORT/?token=TOKEN"
            )
        self.place = parts.netloc
        self._timeout_s = timeout_s
        self._connect: type[http.client.HTTPConnection] = http.client.HTTPConnection
        if parts.scheme == "https":
            self._connect = http.client.HTTPSConnection
        token = parse_qs(parts.query).get(
            "token", [os.environ.get("SIMMAT_SERVE_TOKEN", "")]
        )[0]
        self._headers = {"Authorization": f"Bearer {token}"}
        self.image_id = ""
        self.size_hw = (0, 0)
        self._parts: list[tuple[str, str, bytes]] = []
        """Source, file name and content of each file of the current image."""
        self.model: dict[str, Any] = self._ask("GET", "/model")

    def set_image(
        self, image: str | Path | Mapping[str, str | Path] | npt.NDArray[Any]
    ) -> None:
        """Send an image; the server stores and encodes it.

        Args:
            image: a file as the sensor wrote it, or {source: file}; or an array (C, H, W) in the units of the model's
                channels, NaN where nothing was measured.
        """
        self.image_id = ""
        self._parts = []
        self.size_hw = (0, 0)
        if isinstance(image, np.ndarray):
            stream = io.BytesIO()
            np.save(stream, np.asarray(image, np.float32), allow_pickle=False)
            self._parts = [("array", "array.npy", stream.getvalue())]
        else:
            files = (
                image
                if isinstance(image, Mapping)
                else {self.model["sources"][0]: image}
            )
            for file in files.values():
                self._check_alone(file)
            self._parts = [
                (source, Path(file).name, Path(file).read_bytes())
                for source, file in files.items()
            ]
        self._send()

    @property
    def sent_bytes(self) -> int:
        """Bytes of the files of the current image, which are kept to send them again."""
        return sum(len(content) for _, _, content in self._parts)

    def _check_alone(self, file: str | Path) -> None:
        """Raise an error for a file whose mask or values are in another one, which is not sent."""
        has_mask = Path(f"{file}.msk").exists()
        notes = Path(f"{file}.aux.xml")
        has_values = notes.is_file() and _CHANGING.search(notes.read_bytes())
        if has_mask or has_values:
            raise self._error(
                f"{file}: the mask (.msk) or values (.aux.xml) beside it are not sent; put them into the file "
                "(gdalwarp -dstnodata NUMBER OLD NEW for a mask, gdal_translate OLD NEW), or move them away"
            )

    def predict(
        self,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
    ) -> list[dict[str, Any]]:
        """Return every mask of the model for a prompt, the single one first.

        Args:
            points: (x, y) in pixels of the image.
            labels: 1 for a point on the object, 0 for one beside it; None means that all are on it.
            box: (x0, y0, x1, y1), outer edges.

        Returns:
            mask (H, W) bool, score, area, class, class_probability of each.
        """
        if labels is None:
            labels = [1] * len(points)
        marked = [
            [x, y, int(label)] for (x, y), label in zip(points, labels, strict=True)
        ]
        body: dict[str, Any] = {"points": marked}
        if box is not None:
            body["box"] = list(box)
        return self._with_masks(self.ask("POST", "predict", body)["masks"])

    def everything(self, box: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the objects that the model finds, best first, as `predict` does, each with a point on it."""
        what = "everything"
        if box is not None:
            what += f"?box={','.join(map(str, box))}"
        return self._with_masks(self.ask("GET", what)["objects"])

    def classes(self) -> list[dict[str, Any]]:
        """Return class, name, area, mean probability and mask (H, W) bool of each class of the image."""
        return self._with_masks(self.ask("GET", "classes")["classes"])

    def ask(self, method: str, what: str, body: Any = None) -> Any:
        """Return what the server answers about the current image: one of the requests /images/ID/WHAT."""
        if not self.image_id:
            raise self._error("no image is set; call set_image first")
        content = None if body is None else json.dumps(body).encode()
        try:
            return self._ask(method, f"/images/{self.image_id}/{what}", content)
        except FileNotFoundError:  # it was dropped, or the server was restarted
            self._send()
        try:
            return self._ask(method, f"/images/{self.image_id}/{what}", content)
        except FileNotFoundError as error:
            raise self._error(str(error)) from error

    def _with_masks(self, answers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return what is found, its masks as (H, W) bool."""
        found = []
        for answer in answers:
            mask = np.zeros(self.size_hw, bool)
            if answer["mask"] is not None:
                x0, y0, x1, y1 = answer["mask"]["box"]
                mask[y0:y1, x0:x1] = crop_of(answer["mask"])
            found.append({**answer, "mask": mask})
        return found

    def _send(self) -> None:
        """Send the files of the current image."""
        model = self._ask("GET", "/model")
        # else an answer would be read with the classes of the old one
        if model["digest"] != self.model["digest"]:
            raise self._error(
                f"{self.place}: the server has another model now; connect again"
            )
        boundary = secrets.token_hex(16)
        parts: list[bytes] = []
        for source, file, content in self._parts:
            name = re.sub(r'["\r\n\\]', "_", file)
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{source}"; filename="{name}"\r\n\r\n'
            parts += [head.encode(), content, b"\r\n"]
        parts.append(f"--{boundary}--\r\n".encode())
        body = b"".join(parts)
        limit = model["limits"]["bytes"]
        if len(body) > limit:
            raise self._error(
                f"{file}: the image has {len(body)} bytes, the server takes at most {limit}"
            )
        found = self._ask(
            "POST", "/images", body, f"multipart/form-data; boundary={boundary}"
        )
        self.image_id = found["id"]
        self.size_hw = tuple(found["size_hw"])

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
    ) -> Any:
        """Return what the server answers; FileNotFoundError for an image that it does not have."""
        status, reason, content = self._request(method, path, body, kind)
        try:
            found = json.loads(content)
            if status == 200 and (path != "/model" or "digest" in found):
                return found
            text = "; ".join([found["error"]["message"], *found["error"]["problems"]])
        except (ValueError, TypeError, KeyError):  # of another program
            said = f"{status} {reason}, which is not an answer of simmat serve; check the address"
            raise self._error(f"{self.place}: {said}") from None
        if status == 404 and path.startswith("/images/"):
            raise FileNotFoundError(text)
        raise self._error(text)

    def _request(
        self, method: str, path: str, body: bytes | None, kind: str
    ) -> tuple[int, str, bytes]:
        """Return the status, the reason and the content of an answer."""
        headers = dict(self._headers)
        if body:
            headers["Content-Type"] = kind
        try:
            connection = self._connect(self.place, timeout=self._timeout_s)
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.reason, answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise self._error(
                f"{self.place}: no answer of simmat serve: {error or type(error).__name__}"
            ) from error


def crop_of(mask: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Return the part (h, w) of a mask inside its box; runs outside and inside of it alternate, row by row."""
    x0, y0, x1, y1 = mask["box"]
    runs = mask["runs"]
    is_inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_inside, runs).reshape(y1 - y0, x1 - x0)
