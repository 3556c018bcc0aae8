"""Finding and fetching weight files: resume, digest, and words for everything that goes wrong on the way."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pytest
from simmat_testing.tiny import TINY

from simmat.errors import WeightsError
from simmat.io.files import cache_folder
from simmat.io.weights import fetch, find_weights
from simmat.plugin_specs import WeightFile

BODY = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()
PART = f"model.pth.{DIGEST[:8]}.part"
LARGE = replace(
    TINY, name="large", weights=WeightFile("large.pth", "0" * 64, 375_042_383, "https://localhost/large.pth")
)


@dataclass
class Behaviour:
    """How the server answers, and what it was asked."""

    cut_after: int | None = None
    takes_range: bool = True
    status: int = 200
    says_length: bool = True
    endless: bool = False
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
        asked = self.headers.get("Range")
        self.behaviour.ranges.append(asked)
        if self.behaviour.status != 200:
            self.send_error(self.behaviour.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.behaviour.takes_range else 0
        if start >= len(BODY):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.behaviour.says_length:
            self.send_header("Content-Length", str(len(BODY) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.end_headers()
        stop = len(BODY) if self.behaviour.cut_after is None else start + self.behaviour.cut_after
        self.wfile.write(BODY[start:stop])
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
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield Server(f"http://127.0.0.1:{running.server_address[1]}/model.pth", behaviour)
        running.shutdown()
        thread.join()


def file_at(url: str, **changes: object) -> WeightFile:
    """Describe BODY at an address."""
    return replace(WeightFile("model.pth", DIGEST, len(BODY), url), **changes)


def test_a_file_is_fetched_whole_with_progress_to_the_end(server: Server, tmp_path: Path) -> None:
    """The plain case, and what a progress bar is fed with."""
    seen: list[tuple[int, int]] = []
    path = fetch(file_at(server.url), tmp_path / "new" / "cache", lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "new" / "cache" / "model.pth"
    assert path.read_bytes() == BODY
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert not path.with_name(PART).exists()


def test_a_file_that_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """Gigabytes, and perhaps offline."""
    (tmp_path / "model.pth").write_bytes(BODY)
    fetch(file_at(server.url), tmp_path)
    assert server.behaviour.ranges == []


def test_a_cut_connection_is_resumed_from_where_it_broke(server: Server, tmp_path: Path) -> None:
    """Two and a half gigabytes rarely come in one piece everywhere."""
    server.behaviour.cut_after = 100_000
    assert fetch(file_at(server.url), tmp_path).read_bytes() == BODY
    assert server.behaviour.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_what_a_killed_download_left_is_used(server: Server, tmp_path: Path) -> None:
    """Another process, another day."""
    (tmp_path / PART).write_bytes(BODY[:777])
    seen: list[int] = []
    fetch(file_at(server.url), tmp_path, lambda done, total: seen.append(done))
    assert server.behaviour.ranges == ["bytes=777-"]
    assert seen[0] == 777
    assert (tmp_path / "model.pth").read_bytes() == BODY


def test_an_interrupted_download_of_another_version_is_not_resumed(server: Server, tmp_path: Path) -> None:
    """The bundles of a gallery are replaced; the joined file would be neither."""
    other = file_at(server.url, sha256="0" * 64)
    server.behaviour.cut_after = 0
    (tmp_path / PART.replace(DIGEST[:8], "0" * 8)).write_bytes(b"x" * 777)
    with pytest.raises(WeightsError, match="777 bytes are kept"):
        fetch(other, tmp_path)
    server.behaviour.cut_after = None
    assert fetch(file_at(server.url), tmp_path).read_bytes() == BODY


def test_a_server_that_ignores_range_sends_all_again(server: Server, tmp_path: Path) -> None:
    """Its whole file must not be appended to the part."""
    server.behaviour.takes_range = False
    (tmp_path / PART).write_bytes(b"x" * 777)
    assert fetch(file_at(server.url), tmp_path).read_bytes() == BODY


def test_without_a_length_from_the_server_the_spec_has_it(server: Server, tmp_path: Path) -> None:
    """The size of the spec tells a cut from an end."""
    server.behaviour.says_length = False
    server.behaviour.cut_after = 200_000
    assert fetch(file_at(server.url), tmp_path).read_bytes() == BODY


def test_a_server_that_sends_without_end_fills_no_disk(server: Server, tmp_path: Path) -> None:
    """The size of the spec says where to stop."""
    server.behaviour.says_length, server.behaviour.endless = False, True
    with pytest.raises(WeightsError, match="not the right file"):
        fetch(file_at(server.url), tmp_path)
    assert not (tmp_path / PART).exists()


def test_a_connection_that_brings_nothing_is_one_error(server: Server, tmp_path: Path) -> None:
    """It must end, keep what it has, and say how to go on."""
    (tmp_path / PART).write_bytes(BODY[:500])
    server.behaviour.cut_after = 0
    with pytest.raises(WeightsError, match="500 bytes are kept") as caught:
        fetch(file_at(server.url), tmp_path)
    assert server.url in str(caught.value)
    assert str(tmp_path / "model.pth") in str(caught.value)
    assert len(server.behaviour.ranges) == 3
    assert (tmp_path / PART).read_bytes() == BODY[:500]


def test_a_wrong_digest_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    """A changed file never gets its name; and the next try starts clean."""
    with pytest.raises(WeightsError, match=f"{DIGEST}, should be {'0' * 64}.*removed"):
        fetch(file_at(server.url, sha256="0" * 64), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == []


def test_a_damaged_part_does_not_spoil_the_next_download(server: Server, tmp_path: Path) -> None:
    """Resuming after garbage fails once, with words, and then works."""
    (tmp_path / PART).write_bytes(b"x" * 777)
    with pytest.raises(WeightsError, match="sha256"):
        fetch(file_at(server.url), tmp_path)
    assert fetch(file_at(server.url), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_answer_that_is_not_a_file_is_reported_with_the_address(server: Server, tmp_path: Path, status: int) -> None:
    """Addresses move; people then load the file by hand."""
    server.behaviour.status = status
    with pytest.raises(WeightsError, match=f"answers {status}") as caught:
        fetch(file_at(server.url), tmp_path)
    assert server.url in str(caught.value)
    assert f"put it at {tmp_path / 'model.pth'}" in str(caught.value)
    assert "--checkpoint PATH" in str(caught.value)
    assert not (tmp_path / PART).exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/model.pth", "http://no-such-host.invalid/model.pth"])
def test_no_network_is_reported_with_the_address(tmp_path: Path, url: str) -> None:
    """A machine in a laboratory is often offline."""
    with pytest.raises(WeightsError, match="cannot download") as caught:
        fetch(file_at(url), tmp_path)
    assert url in str(caught.value)
    assert str(tmp_path / "model.pth") in str(caught.value)


def test_a_disk_that_fills_up_is_one_error(server: Server, tmp_path: Path) -> None:
    """Others write to the disk too."""
    (tmp_path / PART).symlink_to("/dev/full")
    with pytest.raises(WeightsError, match="No space left on device"):
        fetch(file_at(server.url), tmp_path)


def test_a_network_failure_is_not_reported_as_a_disk_failure(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TLS or the way there refuses is an OSError too; what came before is kept and gone on from."""
    read, fails = http.client.HTTPResponse.read, iter([False, True])

    def once(response: http.client.HTTPResponse, amount: int) -> bytes:
        if next(fails, False):
            raise ssl.SSLError("bad record mac")
        return read(response, min(amount, 100_000))

    monkeypatch.setattr(http.client.HTTPResponse, "read", once)
    assert fetch(file_at(server.url), tmp_path).read_bytes() == BODY
    assert server.behaviour.ranges == [None, "bytes=100000-"]


def test_a_login_page_does_not_replace_what_was_loaded(server: Server, tmp_path: Path) -> None:
    """A hotel's network answers 200 and a page of its own to whatever is asked for."""
    (tmp_path / PART).write_bytes(BODY[:777])
    server.behaviour.takes_range = False
    with pytest.raises(WeightsError, match=r"has 256000 bytes, should have 256001.*login page"):
        fetch(file_at(server.url, size_bytes=len(BODY) + 1), tmp_path)
    assert (tmp_path / PART).read_bytes() == BODY[:777]


def test_two_at_once_load_the_file_once(server: Server, tmp_path: Path) -> None:
    """Processes of one launch start together; their pieces must not mix."""
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(file_at(server.url), tmp_path), range(4)))
    assert paths == [tmp_path / "model.pth"] * 4
    assert paths[0].read_bytes() == BODY
    assert server.behaviour.ranges == [None]


def test_missing_weights_are_reported_with_every_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing a newcomer with SAM meets."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        find_weights(LARGE)
    for part in ("'large'", str(tmp_path), "simmat foundations fetch large", "--checkpoint PATH"):
        assert part in str(caught.value)


def test_the_cached_file_is_found_and_a_cut_one_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the wrong size would fail later, deep inside of torch."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path))
    spec = replace(LARGE, weights=file_at("http://127.0.0.1:9/"))
    path = tmp_path / "model.pth"
    path.write_bytes(BODY)
    assert find_weights(spec) == path
    path.write_bytes(BODY[:-1])
    with pytest.raises(WeightsError, match=r"damaged; run `simmat foundations fetch large`"):
        find_weights(spec)


def test_a_given_file_counts_before_the_cache(tmp_path: Path) -> None:
    """A finetuned SAM has another size and digest; that is the user's choice."""
    own = tmp_path / "own.pth"
    own.write_bytes(b"anything")
    assert find_weights(LARGE, own) == own


@pytest.mark.parametrize(("name", "says"), [("none.pth", "none.pth"), (".", "existing file")])
def test_a_given_file_that_is_not_a_file_is_refused(tmp_path: Path, name: str, says: str) -> None:
    """A mistyped path must not fall back to the cache."""
    with pytest.raises(WeightsError, match=says):
        find_weights(LARGE, tmp_path / name)


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


def test_the_cache_is_where_the_variable_or_the_platform_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Home folders are small on clusters."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    with pytest.raises(WeightsError, match=str(tmp_path)):
        find_weights(LARGE)
    monkeypatch.delenv("SIMMAT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "simmat"
