"""A gallery: bundles that others find by name, fetched once and checked."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotate_server import gray_images
from bundles import tiny_bundle
from runs import config, gray_set, registry
from simmat_plugin_hub import index_folder, push_bundle

from simmat import training
from simmat.bundle import read_bundle
from simmat.cli import run
from simmat.config import dump_toml, load_config
from simmat.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery of one bundle, and an empty cache."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    push_bundle(
        tiny_bundle(tmp_path / "b"),
        str(tmp_path / "gallery/gray-squares.safetensors"),
        licence="cc-by-4.0",
    )
    (tmp_path / "gallery/gray-squares.png").write_bytes(b"a picture")
    assert run(["bundle", "index", str(tmp_path / "gallery")]) == 0
    return tmp_path / "gallery"


@pytest.fixture
def server(folder: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """A web server that shows the folder."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(folder)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def predict(root: Path, out: Path) -> int:
    return run(
        [
            "predict",
            "gallery:gray-squares",
            str(root / "images/s0.png"),
            "--point",
            "16,12",
            "--out",
            str(out),
        ]
    )


def test_a_listed_bundle_is_fetched_once_and_used(
    server: http.server.ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Later also without network."""
    address = f"http://127.0.0.1:{server.server_port}"
    assert run(["bundle", "list", "--gallery", address, "--json"]) == 0
    said = capsys.readouterr().out
    (entry,) = json.loads(said[said.index("[") :])
    assert (entry["name"], entry["sensor"], entry["licence"]) == (
        "gray-squares",
        "gray",
        "cc-by-4.0",
    )
    assert (entry["scores"]["miou_object"], entry["data"], entry["picture"]) == (
        0.512,
        "made up",
        "gray-squares.png",
    )
    monkeypatch.setenv("SIMMAT_GALLERY", f"{address}/index.json")
    root = gray_images(tmp_path / "set", count=1)
    assert predict(root, tmp_path / "out") == 0, capsys.readouterr().err
    server.shutdown()
    server.server_close()
    assert predict(root, tmp_path / "again") == 0, capsys.readouterr().err
    assert run(["bundle", "show", "gallery:gray-squares"]) == 0, capsys.readouterr().err
    assert run(["bundle", "list"]) == 0
    assert "the last known list" in capsys.readouterr().err
    assert (tmp_path / "again/s0_mask.png").read_bytes() == (
        tmp_path / "out/s0_mask.png"
    ).read_bytes()


def test_another_file_than_the_index_names_is_refused(
    server: http.server.ThreadingHTTPServer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a folder and from a server, by its digest; one that was replaced is fetched again by a new index."""
    for place in (str(folder), f"http://127.0.0.1:{server.server_port}"):
        monkeypatch.setenv("SIMMAT_GALLERY", place)
        content = (folder / "gray-squares.safetensors").read_bytes()
        (folder / "gray-squares.safetensors").write_bytes(content[:-1] + b"x")
        assert (
            run(
                [
                    "bundle",
                    "pull",
                    "gallery:gray-squares",
                    "--out",
                    str(tmp_path / "pulled.safetensors"),
                ]
            )
            == 2
        )
        assert "gray-squares.safetensors" in capsys.readouterr().err
        (folder / "gray-squares.safetensors").write_bytes(content)
    assert (
        run(
            [
                "bundle",
                "pull",
                "gallery:gray-squares",
                "--out",
                str(tmp_path / "pulled.safetensors"),
            ]
        )
        == 0
    )
    assert run(["bundle", "pull", "gallery:gray-square"]) == 2
    assert "gray-squares" in capsys.readouterr().err
    (folder / "gray-squares.safetensors").unlink()
    monkeypatch.setenv("SIMMAT_GALLERY", str(folder))
    assert (
        run(
            ["bundle", "pull", "gallery:gray-squares", "--out", str(tmp_path / "again")]
        )
        == 2
    )
    assert "missing" in capsys.readouterr().err


def test_an_index_names_no_file_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a stranger's."""
    index = json.loads((folder / "index.json").read_text())
    index["bundles"][0]["file"] = "../gray-squares.safetensors"
    (folder / "index.json").write_text(json.dumps(index))
    assert run(["bundle", "list", "--gallery", str(folder)]) == 2
    assert "bundles" in capsys.readouterr().err


def test_an_answer_that_is_no_index_does_not_replace_the_last_one(
    server: http.server.ThreadingHTTPServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Behind a login page the kept index works; a newer format is an error."""
    monkeypatch.setenv("SIMMAT_GALLERY", f"http://127.0.0.1:{server.server_port}")
    index = (folder / "index.json").read_bytes()
    for answer, code, said in (
        (b"<html>Log in</html>", 2, "not the index"),
        (index, 0, ""),
        (b"<html>Log in</html>", 0, "the last known list"),
        (index.replace(b'": 1', b'": 2', 1), 2, "update SimMAT"),
    ):
        (folder / "index.json").write_bytes(answer)
        assert run(["bundle", "list"]) == code
        assert said in capsys.readouterr().err
    for answer in (index, b"<html>Log in</html>"):
        (folder / "index.json").write_bytes(answer)
        assert run(["bundle", "show", "gallery:gray-squares"]) == 0, (
            capsys.readouterr().err
        )
    server.shutdown()
    server.server_close()
    assert run(["bundle", "show", "gallery:gray-squares"]) == 0, capsys.readouterr().err


def test_without_a_gallery_the_error_says_how_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No address is built in."""
    monkeypatch.delenv("SIMMAT_GALLERY", raising=False)
    assert (
        run(
            [
                "predict",
                "gallery:a",
                str(tmp_path),
                "--point",
                "1,1",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert "SIMMAT_GALLERY" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("bundle list --gallery localhost:8000", "http://"),
        ("bundle list --gallery http://", "'http://'"),
        ("bundle list --gallery {tmp}", "bundle index"),
        ("bundle index {tmp}/none", "no folder"),
        ("bundle index {tmp}", "rename"),
        ("bundle push {tmp}/b gallery:b", "FOLDER/NAME.safetensors"),
        (
            "bundle pull http://localhost:1/a/b.safetensors",
            "http://localhost:1/a/b.safetensors",
        ),
    ],
)
def test_a_place_that_is_no_gallery_is_refused_with_what_to_give(
    command: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A slip in an address is frequent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    push_bundle(tiny_bundle(tmp_path / "b"), str(tmp_path / "two words.safetensors"))
    before = sorted(tmp_path.iterdir())
    assert run(command.format(tmp=tmp_path).split()) == 2
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("first")
    settings = config(
        gray_set(root / "set"), root / "run", steps=1, lr=1e-2, heads="prompt,dense"
    )
    training.train(settings, registry())
    return root


def test_a_training_starts_from_a_bundle_of_a_gallery(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settings file may name it too: there it is no path below the folder of the file."""
    push_bundle(
        first / "run", str(tmp_path / "gallery/squares.safetensors"), licence="cc0-1.0"
    )
    index_folder(tmp_path / "gallery")
    monkeypatch.setenv("SIMMAT_GALLERY", str(tmp_path / "gallery"))
    started = config(
        first / "set",
        tmp_path / "run",
        init="gallery:squares",
        steps=1,
        heads="prompt,dense",
        tune=None,
    )
    (tmp_path / "settings.toml").write_text(dump_toml(started))
    training.train(load_config(tmp_path / "settings.toml"), registry())
    before: Any = read_bundle(first / "run")[0].metrics["val"]
    record = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert record["miou_object"] == pytest.approx(before["miou_object"], abs=1e-6)
    assert load_config(tmp_path / "run/config.toml").init == Path("gallery:squares")
    with pytest.raises(ConfigError, match="hf://a/b/c/d"):
        training.train(
            config(first / "set", tmp_path / "other", init="hf://a/b/c/d"), registry()
        )
