"""Weight files on the Hugging Face Hub, by its own client against a hub on localhost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import running_hub

FETCH = """
from simmat.errors import WeightsError
from simmat.io.hub import fetch
from simmat.plugin_specs import WeightFile
try:
    print(fetch(WeightFile("weights.bin", "", hub="someone/model")))
except WeightsError as error:
    print(error)
"""


def fetch_weights(home: Path, endpoint: str) -> str:
    """Fetch in a new process, which alone reads HF_ENDPOINT anew; return the path or the error."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", FETCH],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_fetched_file_is_found_again_without_the_hub(tmp_path: Path) -> None:
    """Where the hub cannot be reached, its client's cache still has the file."""
    with running_hub() as hub:
        hub.repos["someone/model"] = {"weights.bin": b"weights"}
        path = fetch_weights(tmp_path, hub.url)
        assert Path(path).read_bytes() == b"weights"
        hub.repos.clear()
        assert path == fetch_weights(tmp_path, hub.url)


@pytest.mark.parametrize(
    ("stated", "said"), [(None, "does not state its size"), (2**40, "bytes, more than")]
)
def test_a_file_of_unknown_or_excessive_size_is_not_downloaded(
    tmp_path: Path, stated: int | None, said: str
) -> None:
    """The client compares sizes after the last byte, when the disk is full."""
    with running_hub() as hub:
        hub.repos["someone/model"] = {"weights.bin": b"weights"}
        hub.stated_sizes["weights.bin"] = stated
        assert said in fetch_weights(tmp_path, hub.url)
        assert hub.downloads == []


def test_a_download_stops_after_the_stated_size(tmp_path: Path) -> None:
    """A mirror that states a small file and sends without end would fill the disk."""
    with running_hub() as hub:
        hub.repos["someone/model"] = {"weights.bin": b"weights" * 10_000}
        hub.endless.add("weights.bin")
        said = fetch_weights(tmp_path, hub.url)
    assert "the Hub states 70000 bytes and sends more" in said
    assert sum(file.stat().st_size for file in tmp_path.rglob("*")) < 70_000
