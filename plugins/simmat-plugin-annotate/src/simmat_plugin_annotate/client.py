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
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Timer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt

_MAX_ANSWER = 64 << 20
_MAX_WARNING = 2000
"""Most characters of a warning that are kept."""
_MAX_PIXELS = 1 << 30
_MAX_MASKS = 4 << 30
# an array takes memory in pages of up to this size, where it is not zero
_LARGEST = float(np.finfo(np.float32).max)
_PAGE = 2 << 20
# elements of .aux.xml that change values
_CHANGING = re.compile(rb"<(Scale|Offset|NoDataValue)>")


class ServerError(Exception):
    """The server refused a request; the message says why."""


class Client:
    """A model on a server, with a current image: `set_image` once, then `predict` as often as asked.

    Attributes:
        model: what the server says of it: name, sensor, sources, channels, classes, limits.
        size_hw: (height, width) of the current image in pixels.
        warning: how the values of the current image differ from those of the training; "" if they do not.
    """

    _error: type[Exception] = ServerError

    def __init__(self, address: str, *, timeout_s: float = 600) -> None:
        """Connect to a server.

        Args:
            address: what `simmat serve` prints, which ends in ?token=TOKEN; without it SIMMAT_SERVE_TOKEN is the token.
            timeout_s: seconds until an answer must have arrived as a whole.
        """
        try:
            parts = urlsplit(address)
            is_address = (
                parts.scheme in ("http", "https")
                and bool(parts.hostname)
                and parts.port != 0
                and parts.path in ("", "/")
            )
        except ValueError:  # "http://[", or a port above 65535
            is_address = False
        if not is_address:
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
        self.warning = ""
        self.size_hw = (0, 0)
        self._known_hw: tuple[int, ...] | None = None
        self._parts: list[tuple[str, str, bytes]] = []
        """Source, file name and content of each file of the current image."""
        self.model: dict[str, Any] = self._ask("GET", "/model")
        with self.valid_answer():
            _check_model(self.model)

    def set_image(
        self,
        image: str | Path | Mapping[str, str | Path] | npt.NDArray[Any],
        size_hw: tuple[int, ...] | None = None,
    ) -> None:
        """Send an image; the server stores and encodes it.

        Args:
            image: a file as the sensor wrote it, or {source: file}; or an array (C, H, W) in the units of the model's
                channels, NaN where nothing was measured.
            size_hw: (height, width) of the image; a server that says another is refused. None means that of an array,
                and of files what the server says.
        """
        self.image_id = ""
        self.warning = ""
        self._parts = []
        self.size_hw = (0, 0)
        self._known_hw = size_hw
        if isinstance(image, np.ndarray):
            self._known_hw = image.shape[-2:]
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
        return self._with_masks(self.ask("POST", "predict", body), "masks", "score")

    def everything(self, box: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the objects that the model finds, best first, as `predict` does, each with a point on it."""
        what = "everything"
        if box is not None:
            what += f"?box={','.join(map(str, box))}"
        return self._with_masks(self.ask("GET", what), "objects", "score")

    def classes(self) -> list[dict[str, Any]]:
        """Return class, name, area, mean probability and mask (H, W) bool of each class of the image."""
        return self._with_masks(self.ask("GET", "classes"), "classes", "probability")

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

    def _with_masks(self, found: Any, name: str, number: str) -> list[dict[str, Any]]:
        """Return the parts of an answer under a name, each with a number, their masks as (H, W) bool."""
        parts = []
        with self.valid_answer():
            for answer, crop in with_crops(found[name], self.size_hw, True):
                check_values(answer, number)
                mask = np.zeros(self.size_hw, bool)
                if crop is not None:
                    x0, y0, x1, y1 = answer["mask"]["box"]
                    mask[y0:y1, x0:x1] = crop
                parts.append({**answer, "mask": mask})
        return parts

    @contextmanager
    def valid_answer(self) -> Iterator[None]:
        """Say that the server is another program where what it answered is not what the block takes it for."""
        try:
            yield
        except _MALFORMED as error:
            raise self._error(
                f"{self.place}: the answer is not from simmat serve ({error!r:.200}); check the address, and "
                "that client and server have the same version"
            ) from error

    def _send(self) -> None:
        """Send the files of the current image."""
        model = self._ask("GET", "/model")
        with self.valid_answer():
            _check_model(model)
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
            parts += [head.encode(errors="replace"), content, b"\r\n"]
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
        with self.valid_answer():
            height, width = found["size_hw"]
            is_size = type(height) is int and type(width) is int  # a text times 2**31
            _check(is_size and 0 < height * width <= _MAX_PIXELS, "size_hw")
            _check(0 < height, "size_hw")
            _check(re.fullmatch(r"[\w-]{1,200}", found["id"]) is not None, "id")
            is_known = self._known_hw in (None, (height, width))
            _check(is_known, f"size_hw: {self._known_hw} was sent, so {height, width}")
            self._known_hw = (height, width)
            self.size_hw = (height, width)
            self.image_id = found["id"]
            # a server of an earlier version says nothing of the values
            self.warning = str(found.get("warning", ""))[:_MAX_WARNING]

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
        except _MALFORMED:  # of another program
            said = f"{status} {reason}, which is not an answer from simmat serve; check the address"
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
        late = Event()
        try:
            connection = self._connect(self.place, timeout=self._timeout_s)
            connection.connect()
            # the connection drops its socket before the content is read
            timer = Timer(self._timeout_s, _end, [connection.sock, late])
            timer.daemon = True
            timer.start()
            try:
                connection.request(method, path, body, headers)
                with connection.getresponse() as answer:
                    content = answer.read(_MAX_ANSWER + 1)
            finally:
                timer.cancel()
                connection.close()
            if late.is_set():
                raise TimeoutError
        # ValueError: a length or size of a chunk that is none
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = str(error) or type(error).__name__
            if late.is_set():
                cause = f"it took longer than {self._timeout_s:g} s"
            raise self._error(
                f"{self.place}: no answer from simmat serve: {cause}"
            ) from error
        if len(content) > _MAX_ANSWER:
            raise self._error(
                f"{self.place}: the answer has more than {_MAX_ANSWER >> 20} MiB; ask for a part of the image, or "
                "check the address"
            )
        return answer.status, answer.reason, content


def with_crops(
    answers: Iterable[dict[str, Any]], size_hw: tuple[int, int], whole: bool = False
) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.bool_] | None]]:
    """Yield the parts of an answer, each with the part of its mask inside its box; None where it is empty.

    Args:
        whole: whether the caller makes an array of the whole image for each mask.

    Raises:
        ValueError: a mask is not valid, or all together take more than `_MAX_MASKS` bytes.
    """
    taken = 0
    height, width = size_hw
    for answer in answers:
        crop = None
        if answer["mask"] is not None:
            crop = _crop_of(answer["mask"], size_hw)
        rows = 0 if crop is None else len(crop)
        if whole:
            taken += min(height * width, rows * width + 2 * _PAGE)
        elif crop is not None:
            taken += crop.size
        if taken > _MAX_MASKS:
            raise ValueError(
                f"the masks take more than {_MAX_MASKS >> 30} GiB of memory; ask for a part of the image"
            )
        yield answer, crop


def _crop_of(
    mask: Mapping[str, Any], size_hw: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Return the part (h, w) of a mask inside its box; runs outside and inside of it alternate, row by row.

    Raises:
        ValueError: the box is not in the image of `size_hw`, or the runs do not fill it.
    """
    x0, y0, x1, y1 = mask["box"]
    height, width = size_hw
    _check(0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height, "box")
    runs = mask["runs"]
    _check(
        all(type(run) is int and run >= 0 for run in runs)
        and sum(runs) == (x1 - x0) * (y1 - y0),
        "runs",
    )
    is_inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_inside, runs).reshape(y1 - y0, x1 - x0)


_MALFORMED = (
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading an answer raises that has other parts than it should."""


def _check(is_right: bool, name: str) -> None:
    if not is_right:
        raise ValueError(f"{name} is not valid")


def check_values(answer: Mapping[str, Any], number: str = "score") -> None:
    """Raise ValueError if the class or a number of a part of an answer is none.

    Args:
        answer: a mask or an object; a class of the class map has the number "probability".
        number: the one that each has.
    """
    _check(type(answer["class"]) in (int, type(None)), "class")
    _check(type(answer["area"]) is int, "area")
    _check(_is_number(answer[number]), number)
    chance = answer.get("class_probability")
    _check(chance is None or _is_number(chance), "class_probability")
    x, y = answer.get("point", (0, 0))
    _check(_is_number(x) and _is_number(y), "point")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _check_model(model: Mapping[str, Any]) -> None:
    """Raise an error if a server does not say of its model what the client needs."""
    texts = [model["name"], model["digest"], model["sensor"]]
    texts += [*model["sources"], *model["classes"].values()]
    for channel in model["channels"]:
        texts += [channel["name"], channel["quantity"], channel["unit"]]
    _check(all(_is_text(text) for text in texts), "a name")
    _check(type(model["sources"]) is list and len(model["sources"]) > 0, "sources")
    _check(type(model["limits"]["bytes"]) is int, "limits")


def _is_text(value: object) -> bool:
    """Return whether a value of a json document is a text that can be sent: half of a surrogate pair cannot."""
    if not isinstance(value, str):
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _end(sock: socket.socket, late: Event) -> None:
    """End a connection that another thread waits for: each byte may come in time, and the last one never."""
    late.set()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
