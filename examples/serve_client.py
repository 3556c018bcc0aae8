"""A client of `simmat serve`, to copy into any program: it needs Python and numpy alone.

client = Client("http://127.0.0.1:8765/?token=…")
client.set_image("cow.tiff")
mask = client.predict([(320, 240)])[0]["mask"]
"""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np


class ServerError(Exception):
    """The server refused a request; the message says why."""


class Client:
    """A model on a server, with a current image: `set_image` once, then `predict` as often as asked.

    Attributes:
        model: what the server says of it: name, sensor, sources, channels, classes, limits.
        size_hw: (height, width) of the current image in pixels.
    """

    def __init__(self, address: str, *, timeout_s: float = 600) -> None:
        """Connect to the address that `simmat serve` prints, which ends in ?token=TOKEN."""
        parts = urlsplit(address)
        self._place, self._timeout_s = parts.netloc, timeout_s
        self._headers = {"Authorization": f"Bearer {parse_qs(parts.query).get('token', [''])[0]}"}
        self.model: dict[str, Any] = self._ask("GET", "/model")
        self.size_hw, self._image, self._files = (0, 0), "", dict[str, Path]()

    def set_image(self, image: str | Path | Mapping[str, str | Path]) -> None:
        """Send an image, a file or {source: file}; the server stores and encodes it."""
        given = image if isinstance(image, Mapping) else {self.model["sources"][0]: image}
        self._files = {source: Path(file) for source, file in given.items()}
        self._send()

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
        marks = [1] * len(points) if labels is None else labels
        prompt = {"points": [[x, y, int(mark)] for (x, y), mark in zip(points, marks, strict=True)]}
        body = prompt | ({} if box is None else {"box": list(box)})
        return [self._drawn(one) for one in self._of_image("POST", "predict", body)["masks"]]

    def everything(self, box: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the objects that the model finds, best first, as `predict` does, each with a point on it."""
        query = "" if box is None else f"?box={','.join(map(str, box))}"
        return [self._drawn(one) for one in self._of_image("GET", f"everything{query}")["objects"]]

    def classes(self) -> list[dict[str, Any]]:
        """Return class, name, area and mask (H, W) bool of each class of the image."""
        return [self._drawn(one) for one in self._of_image("GET", "classes")["classes"]]

    def _drawn(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        mask = np.zeros(self.size_hw, bool)
        if answer["mask"] is not None:
            (x0, y0, x1, y1), runs = answer["mask"]["box"], answer["mask"]["runs"]
            inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)  # runs outside and inside alternate, row by row
            mask[y0:y1, x0:x1] = inside.reshape(y1 - y0, x1 - x0)
        return {**answer, "mask": mask}

    def _send(self) -> None:
        boundary, parts = secrets.token_hex(16), []
        for source, file in self._files.items():
            name = "".join("_" if one in '"\r\n\\' else one for one in file.name)
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{source}"; filename="{name}"\r\n\r\n'
            parts += [head.encode(), file.read_bytes(), b"\r\n"]
        content = b"".join([*parts, f"--{boundary}--\r\n".encode()])
        if len(content) > self.model["limits"]["bytes"]:
            raise ServerError(f"{file}: the server takes at most {self.model['limits']['bytes']} bytes")
        found = self._ask("POST", "/images", content, f"multipart/form-data; boundary={boundary}")
        self._image, self.size_hw = found["id"], tuple(found["size_hw"])

    def _of_image(self, method: str, what: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        try:
            return self._ask(method, f"/images/{self._image}/{what}", content)
        except FileNotFoundError:  # it was dropped, or the server was restarted
            self._send()
            return self._ask(method, f"/images/{self._image}/{what}", content)

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        connection = http.client.HTTPConnection(self._place, timeout=self._timeout_s)
        try:
            connection.request(method, path, body, self._headers | ({"Content-Type": kind} if body else {}))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status == 200:
            return json.loads(content)
        if not content.startswith(b"{"):
            raise ServerError(f"{answer.status} {answer.reason}")
        error = json.loads(content)["error"]
        text = "; ".join([error["message"], *error["problems"]])
        raise (FileNotFoundError if answer.status == 404 and self._image else ServerError)(text)
