"""Finding and fetching weight files: digest, and words for everything that goes wrong on the way."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pytest
from runs import config, gray_set, registry
from simmat_testing.tiny import TINY

from simmat.config import TrainConfig
from simmat.errors import SpecError, WeightsError
from simmat.io.weights import check_digest, fetch, find_weights
from simmat.plugin_specs import FoundationSpec, WeightFile
from simmat.plugins.registry import Registry
from simmat.training.plan import plan_run

BODY = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()
PART = f"model.pth.{DIGEST[:16]}.part"
LARGE = replace(
    TINY,
    name="large",
    weights=WeightFile(
        "large.pth", "0" * 64, 375_042_383, "https://localhost/large.pth"
    ),
)


@dataclass
class Behaviour:
    """How the server answers, and what it was asked."""

    cut_after: int | None = None
    status: int = 200
    says_length: bool = True
    endless: bool = False
    takes_range: bool = True
    requests: int = 0
    ranges: list[str | None] = field(default_factory=list)


class Server(NamedTuple):
    """A server on this machine and how it behaves."""

    url: str
    behaviour: Behaviour


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve BODY as the behaviour says."""

    behaviour: Behaviour

    def do_GET(self) -> None:
        """Answer one request, perhaps not to its end."""
        self.behaviour.requests += 1
        if self.behaviour.status != 200:
            self.send_error(self.behaviour.status)
            return
        asked = self.headers["Range"]
        self.behaviour.ranges.append(asked)
        start = 0
        if asked is not None and self.behaviour.takes_range:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(BODY):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.behaviour.says_length:
            self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        self.wfile.write(BODY[start : self.behaviour.cut_after])
        with contextlib.suppress(ConnectionError):
            while self.behaviour.endless:
                self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve BODY on a free port of this machine."""
    behaviour = Behaviour()
    handler = type("BoundHandler", (Handler,), {"behaviour": behaviour})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(
            target=running.serve_forever, args=(0.01,), daemon=True
        )
        thread.start()
        yield Server(
            f"http://127.0.0.1:{running.server_address[1]}/model.pth", behaviour
        )
        running.shutdown()
        thread.join()


def left_in(folder: Path) -> list[str]:
    """Return the names of all files in the cache but locks."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def file_at(url: str, **changes: object) -> WeightFile:
    """Describe BODY at an address."""
    return replace(WeightFile("model.pth", DIGEST, len(BODY), url), **changes)


def test_a_file_is_fetched_whole_with_progress_to_the_end(
    server: Server, tmp_path: Path
) -> None:
    """The plain case, and what a progress bar is fed with."""
    seen: list[tuple[int, int]] = []
    path = fetch(
        file_at(server.url),
        tmp_path / "new" / "cache",
        lambda done, total: seen.append((done, total)),
    )
    assert path == tmp_path / "new" / "cache" / "model.pth"
    assert path.read_bytes() == BODY
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert left_in(path.parent) == ["model.pth"]


@pytest.mark.parametrize("cut_after", [0, 200_000])
def test_a_cut_connection_is_one_error_and_the_next_call_goes_on(
    server: Server, tmp_path: Path, cut_after: int
) -> None:
    """Gigabytes over a line that breaks."""
    server.behaviour.cut_after = cut_after
    with pytest.raises(WeightsError, match="cannot download") as caught:
        fetch(file_at(server.url), tmp_path)
    assert server.url in str(caught.value)
    assert str(tmp_path / "model.pth") in str(caught.value)
    assert (tmp_path / PART).read_bytes() == BODY[:cut_after]
    server.behaviour.cut_after = None
    seen: list[int] = []
    path = fetch(file_at(server.url), tmp_path, lambda done, total: seen.append(done))
    assert path.read_bytes() == BODY
    assert seen[0] == cut_after
    assert server.behaviour.ranges[1] == (f"bytes={cut_after}-" if cut_after else None)
    assert left_in(tmp_path) == ["model.pth"]


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (b"x" * 777, "sha256"),
        (b"x" * len(BODY), "sha256"),
        (BODY + b"x", "sha256"),
    ],
)
def test_a_damaged_part_spoils_one_download_only(
    server: Server, tmp_path: Path, kept: bytes, says: str
) -> None:
    """The digest is of the whole file, and what is wrong is removed."""
    (tmp_path / PART).write_bytes(kept)
    with pytest.raises(WeightsError, match=says):
        fetch(file_at(server.url), tmp_path)
    assert left_in(tmp_path) == []
    assert fetch(file_at(server.url), tmp_path).read_bytes() == BODY


def test_a_wrong_digest_is_refused_and_leaves_nothing(
    server: Server, tmp_path: Path
) -> None:
    """A changed file never gets its name."""
    with pytest.raises(WeightsError, match=f"{DIGEST}, should be {'0' * 64}"):
        fetch(file_at(server.url, sha256="0" * 64), tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_answer_that_is_not_a_file_is_reported_with_the_address(
    server: Server, tmp_path: Path, status: int
) -> None:
    """Addresses move; people then load the file by hand."""
    server.behaviour.status = status
    with pytest.raises(WeightsError, match=f"answers {status}") as caught:
        fetch(file_at(server.url), tmp_path)
    assert server.url in str(caught.value)
    assert f"put it at {tmp_path / 'model.pth'}" in str(caught.value)
    assert "--checkpoint PATH" in str(caught.value)
    assert left_in(tmp_path) == []


def test_a_login_page_is_not_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    """A hotel's network answers 200 and a page of its own to whatever is asked for."""
    with pytest.raises(WeightsError, match=r"ended after 256000 of 256001 bytes"):
        fetch(file_at(server.url, size_bytes=len(BODY) + 1), tmp_path)
    with pytest.raises(WeightsError, match=r"not the right file.*login page"):
        fetch(file_at(server.url, size_bytes=len(BODY) - 1), tmp_path)
    assert left_in(tmp_path) == []


def test_two_at_once_load_the_file_once(server: Server, tmp_path: Path) -> None:
    """Processes of one launch start together; their pieces must not mix."""
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(file_at(server.url), tmp_path), range(4)))
    assert paths == [tmp_path / "model.pth"] * 4
    assert paths[0].read_bytes() == BODY
    assert server.behaviour.requests == 1


def test_missing_weights_are_reported_with_every_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing a newcomer with SAM meets."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        find_weights(LARGE)
    for part in (
        "'large'",
        str(tmp_path),
        "simmat foundations fetch large",
        "--checkpoint PATH",
    ):
        assert part in str(caught.value)


def test_the_cached_file_is_found_and_a_cut_one_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the wrong size would fail later, deep inside of torch."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path))
    spec = replace(LARGE, weights=file_at("http://127.0.0.1:9/"))
    path = tmp_path / "model.pth"
    path.write_bytes(BODY)
    assert find_weights(spec) == path
    path.write_bytes(BODY[:-1])
    with pytest.raises(
        WeightsError, match=r"damaged; run `simmat foundations fetch large`"
    ):
        find_weights(spec)


def test_a_random_model_has_no_file_and_takes_none(tmp_path: Path) -> None:
    """Its weights are its seed."""
    assert find_weights(TINY) is None
    with pytest.raises(WeightsError, match="'tiny'"):
        find_weights(TINY, tmp_path / "x.pth")


def test_a_missing_packaged_file_names_the_package_to_install(tmp_path: Path) -> None:
    """A broken installation."""
    spec = replace(LARGE, weights=file_at("", path=tmp_path / "inside.pth"))
    with pytest.raises(WeightsError, match="install"):
        find_weights(spec)
    (tmp_path / "inside.pth").write_bytes(BODY[::-1])
    with pytest.raises(WeightsError, match=r"damaged; install that package again"):
        fetch(spec.weights)
    (tmp_path / "inside.pth").write_bytes(BODY)
    assert find_weights(spec) == fetch(spec.weights) == tmp_path / "inside.pth"


DIGEST_BODY = bytes(range(256))
DAMAGED = bytes([1, *DIGEST_BODY[1:]])
DESCRIBED = WeightFile(
    "w.safetensors", hashlib.sha256(DIGEST_BODY).hexdigest(), len(DIGEST_BODY)
)


def described(file: WeightFile) -> FoundationSpec:
    """The tiny model, as if it had a weight file."""
    return replace(registry().foundation("tiny"), weights=file)


def packaged(path: Path, body: bytes) -> FoundationSpec:
    """A model whose file lies in a package."""
    path.write_bytes(body)
    return described(replace(DESCRIBED, path=path))


def with_foundation(spec: FoundationSpec) -> Registry:
    """The parts a run needs, with that model."""
    known = registry()
    parts = [
        ("modality", known.modality("gray"), "test"),
        ("foundation model", spec, "test"),
        ("transfer layer", known.transfer_layer("mat-residual"), "test"),
        ("tuner", known.tuner("lora"), "test"),
        ("loss", known.get("loss", "focal"), "test"),
    ]
    return Registry((), parts)


def run_on(root: Path, **changes: object) -> TrainConfig:
    """A run that was never begun."""
    return config(gray_set(root / "data"), root / "run", **changes)


@pytest.mark.parametrize(
    ("place", "cure"),
    [
        ({"path": Path("w.safetensors")}, "install the package"),
        ({"url": "http://127.0.0.1:9/w"}, "; run `simmat foundations fetch tiny`"),
        ({"hub": "o/r"}, "; remove it and run `simmat foundations fetch tiny`"),
    ],
)
def test_a_wrong_digest_is_refused_with_what_to_do(
    place: dict[str, object], cure: str
) -> None:
    """Each place has another way to a good file."""
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged") as caught:
        check_digest(
            described(replace(DESCRIBED, **place)), Path("w.safetensors"), "0" * 64
        )
    assert cure in str(caught.value)


def test_a_file_from_a_url_needs_its_digest(tmp_path: Path) -> None:
    """Nothing else tells that what came over the net is what was meant; it is refused before the download."""
    with pytest.raises(SpecError, match=r"'w\.pth' .*sha256"):
        fetch(WeightFile("w.pth", "", url="https://example.org/w.pth"), cache=tmp_path)


def test_a_run_on_damaged_weights_does_not_start(tmp_path: Path) -> None:
    """One flipped bit in a weight may be a network that learns nothing, hours later."""
    spec = packaged(tmp_path / "w.safetensors", DAMAGED)
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged"):
        plan_run(run_on(tmp_path), with_foundation(spec))


def test_a_run_takes_the_file_its_user_gives(tmp_path: Path) -> None:
    """Weights tuned elsewhere have another digest; that is the user's choice."""
    spec = packaged(tmp_path / "w.safetensors", DIGEST_BODY)
    own = tmp_path / "own.safetensors"
    own.write_bytes(DAMAGED)
    found = plan_run(run_on(tmp_path, checkpoint=own), with_foundation(spec))
    assert found.spec.foundation_sha256 == hashlib.sha256(DAMAGED).hexdigest()
