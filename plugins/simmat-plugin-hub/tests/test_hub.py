"""Bundles on the Hugging Face hub, by its own client against a hub on localhost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import TOKEN, running_hub
from simmat_plugin_hub.hub import Repository, parse_place

from simmat.bundle import FILE_NAME, read_bundle_spec
from simmat.errors import ConfigError

SHARED = ["README.md", "bundle.safetensors"]
COMMANDS = """
import json, sys
import contextlib, io
from simmat.cli import run
for line in json.loads(sys.stdin.read()):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run(line)
    print(json.dumps([code, said.getvalue()]))
"""


def simmat(
    commands: list[list[str]],
    home: Path,
    endpoint: str,
    token: str = TOKEN,
    **more: str,
) -> list[tuple[int, str]]:
    """Run commands in one new process, which alone reads HF_ENDPOINT anew; return exit codes and what was printed."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "HF_TOKEN": token,
        **more,
    }
    environment |= {
        "SIMMAT_PLUGINS": "hub,testing",
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps(commands),
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_a_bundle_comes_back_from_the_hub_as_it_was(
    bundle: Path, tmp_path: Path
) -> None:
    """The whole way through the client that everybody has, and nothing replaced without a word."""
    with running_hub() as hub:
        # what a person wrote is not written over by what a program can say
        hub.repos["someone/mine"] = {"README.md": b"by hand"}
        push = [
            "bundle",
            "push",
            str(bundle),
            "hf://someone/gray-mat",
            "--licence",
            "mit",
        ]
        (
            (pushed, said),
            (again, refused),
            (forced, _),
            (pulled, _),
            (shown, _),
            (elsewhere, where),
            (kept, _),
        ) = simmat(
            [
                push,
                push,
                [*push, "--force"],
                ["bundle", "pull", "hf://someone/gray-mat"],
                ["bundle", "show", "hf://someone/gray-mat"],
                [*push[:3], "hf://someone/x/y"],
                [*push[:3], "hf://someone/mine"],
            ],
            tmp_path,
            hub.url,
        )
    codes = (pushed, again, forced, pulled, shown, elsewhere, kept)
    assert codes == (0, 2, 0, 0, 0, 2, 0), (said, refused)
    assert hub.repos["someone/mine"]["README.md"] == b"by hand"
    assert hub.repos["someone/mine"][FILE_NAME] == (bundle / FILE_NAME).read_bytes()
    assert f"{hub.url}/someone/gray-mat/commit/" in said
    assert "already holds a bundle" in refused
    assert "--force" in refused
    assert "hf://ORG/NAME" in where
    assert sorted(hub.repos["someone/gray-mat"]) == SHARED
    spec, got = (
        read_bundle_spec(bundle),
        read_bundle_spec(tmp_path / "gray-mat.safetensors"),
    )
    assert got.model_copy(update={"licence": "", "sha256": ""}) == spec.model_copy(
        update={"sha256": ""}
    )
    assert got.licence == "mit"
    card = hub.repos["someone/gray-mat"]["README.md"]
    assert card.startswith(b'---\nlicense: "mit"\nlibrary_name: simmat\n')


def test_what_the_hub_refuses_is_one_line(bundle: Path, tmp_path: Path) -> None:
    """Each of these is a user's everyday mistake; none may end in a traceback or in a half-made folder."""
    with running_hub() as hub:
        hub.repos["someone/other"] = {"config.json": b"{}"}
        found = simmat(
            [
                ["bundle", "pull", "hf://someone/missing"],
                ["bundle", "pull", "hf://someone/other"],
                ["bundle", "push", str(bundle), "hf://someone/gray-mat"],
            ],
            tmp_path,
            hub.url,
            token="hf_wrong",
        )
    assert [code for code, _ in found] == [2, 2, 2]
    for (_, said), expected in zip(
        found, ("someone/missing", "holds no bundle", "hf auth login"), strict=True
    ):
        assert said.startswith("error: ")
        assert expected in said
        assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if path.name != "hf"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "nonsense",
    [b"[]", b"{", b'{"siblings": [{"rfilename": "bundle.safetensors", "size": "x"}]}'],
)
def test_a_hub_that_answers_nonsense_is_named(
    bundle: Path, tmp_path: Path, nonsense: bytes
) -> None:
    """A login page or a broken mirror in between: what the client says to it names no place."""
    with running_hub() as hub:
        hub.nonsense = nonsense
        found = simmat([["bundle", "pull", "hf://someone/x"]], tmp_path, hub.url)
    assert [code for code, _ in found] == [2]
    assert found[0][1].startswith("error: ")
    assert f"{hub.url}/someone/x: " in found[0][1]
    assert [path.name for path in tmp_path.iterdir() if path.name != "hf"] == []


@pytest.mark.slow
@pytest.mark.parametrize("offline", ["", "1"])
def test_without_a_network_a_copy_of_the_file_is_named(
    bundle: Path, tmp_path: Path, offline: str
) -> None:
    """A closed network is common where sensors are; what to do instead must be in the message."""
    closed = "http://127.0.0.1:9"
    found = simmat(
        [
            ["bundle", "push", str(bundle), "hf://someone/x"],
            ["bundle", "pull", "hf://someone/x"],
        ],
        tmp_path,
        closed,
        **({"HF_HUB_OFFLINE": offline} if offline else {}),
    )
    for code, said in found:
        assert code == 2
        assert f"{closed}/someone/x: " in said
        assert "copy the bundle's file, which needs no hub" in said


@pytest.mark.parametrize(
    "text",
    [
        "hf://x",
        "hf://a/b/c/d",
        "hf://a/../b",
        "hf:///b",
        "hf://a/b@",
        "hf://a/b?x",
        "hf://a/b--c",
    ],
)
def test_a_place_on_the_hub_is_two_names(text: str) -> None:
    """What the hub would refuse later is refused before anything is read."""
    with pytest.raises(ConfigError, match="hf://ORG/NAME"):
        parse_place(text)


def test_a_place_may_name_a_revision() -> None:
    """Results are reproduced from a commit, not from whatever lies there today."""
    assert parse_place("hf://a/b.c-1@v1.0") == Repository("a/b.c-1", "v1.0", "")
    assert parse_place("hf://a/b/night@try/this") == Repository(
        "a/b", "try/this", "night"
    )


@pytest.mark.parametrize(
    ("stated", "said"), [(None, "does not state its size"), (2**40, "bytes, more than")]
)
def test_a_bundle_of_unknown_or_excessive_size_is_not_downloaded(
    tmp_path: Path, stated: int | None, said: str
) -> None:
    """The client compares sizes after the last byte, when the disk is full."""
    with running_hub() as hub:
        hub.repos["someone/large"] = {FILE_NAME: b"a bundle"}
        hub.stated_sizes[FILE_NAME] = stated
        ((code, error),) = simmat(
            [["bundle", "show", "hf://someone/large"]], tmp_path, hub.url
        )
        assert code == 2
        assert said in error
        assert hub.downloads == []


def test_a_bundle_that_never_ends_is_not_kept(tmp_path: Path) -> None:
    """A mirror that states a small bundle and sends without end would fill the disk."""
    with running_hub() as hub:
        hub.repos["someone/endless"] = {FILE_NAME: b"a bundle" * 10_000}
        hub.endless.add(FILE_NAME)
        ((code, error),) = simmat(
            [["bundle", "show", "hf://someone/endless"]], tmp_path, hub.url
        )
    assert code == 2
    assert "the Hub states 80000 bytes and sends more" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.incomplete"))
