"""A small Hugging Face hub on localhost: as much of its API as pushing and pulling a bundle needs."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"
COMMIT = "c" * 40


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory: name -> path -> bytes. Who pushes must show the token."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.nonsense: bytes | None = None
        """What a broken hub says to everything."""
        self.stated_sizes: dict[str, int | None] = {}
        """Path -> the size stated in listings and answers to HEAD instead of the true one; None for no size."""
        self.endless: set[str] = set()
        """Paths of files that are sent without end, whatever size is stated."""
        self.downloads: list[str] = []
        """The paths of the files that were downloaded."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Stay quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.server.nonsense is not None:
            return self._send(
                200, self.server.nonsense, {"Content-Type": "application/json"}
            )
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/"):
            repo = "/".join(path.split("/")[3:5])
            if (files := self._files(repo)) is not None:
                self._json(self._info(repo, files))
            return
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        if (files := self._files(repo)) is None:
            return
        content = files.get(rest.partition("/")[2])
        if content is None:
            self._json(
                {"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"}
            )
            return
        name = rest.partition("/")[2]
        if self.command == "GET":
            self.server.downloads.append(name)
        if self.command == "GET" and name in self.server.endless:
            self._send_without_end(content)
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._send(
            200,
            content,
            {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"},
            self.server.stated_sizes.get(name, len(content)),
        )

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in path:
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self._json({"files": modes})
        elif "/commit/" in path:
            self._commit("/".join(path.split("/")[3:5]), body)
        else:
            self._json({"error": f"no such address here: {path}"}, 404)

    def _create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        new = repo not in self.server.repos
        self.server.repos.setdefault(repo, {})
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.server.private.add(repo)
        url = {"url": f"{self.server.url}/{repo}", "name": repo, "id": "1"}
        self._json(
            url if new else {"error": "You already created this model repo", **url},
            200 if new else 409,
        )

    def _commit(self, repo: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                assert line["value"]["encoding"] == "base64"
                self.server.repos[repo][line["value"]["path"]] = base64.b64decode(
                    line["value"]["content"]
                )
        self._json(
            {
                "success": True,
                "commitOid": COMMIT,
                "commitUrl": f"{self.server.url}/{repo}/commit/{COMMIT}",
            }
        )

    def _files(self, repo: str) -> dict[str, bytes] | None:
        hidden = (
            repo in self.server.private
            and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        )
        if repo in self.server.repos and not hidden:
            return self.server.repos[repo]
        self._json(
            {"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"}
        )
        return None

    def _info(self, repo: str, files: dict[str, bytes]) -> dict[str, Any]:
        siblings = [
            {
                "rfilename": name,
                "size": self.server.stated_sizes.get(name, len(content)),
                "blobId": "0",
            }
            for name, content in files.items()
        ]
        return {
            "_id": "1",
            "id": repo,
            "modelId": repo,
            "sha": COMMIT,
            "private": False,
            "siblings": siblings,
        }

    def _send_without_end(self, content: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):  # the client has enough
            while True:
                self.wfile.write(content)

    def _json(
        self, value: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self._send(
            status,
            json.dumps(value).encode(),
            {"Content-Type": "application/json", **(headers or {})},
        )

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str],
        size_bytes: int | None = -1,
    ) -> None:
        """Send an answer that states `size_bytes`: none for None, the true size for -1."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if size_bytes == -1:
            size_bytes = len(content)
        if size_bytes is None:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(size_bytes))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Serve until the block ends."""
    with FakeHub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
