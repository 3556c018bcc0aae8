"""The Hugging Face Hub: fetched by its own client from a server on this machine, and the error where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import running_hub

from simmat.errors import WeightsError
from simmat.plugins.registry import Registry

REPOSITORY = "someone/tiny-sam"


@pytest.fixture
def hub(tiny_of: Any) -> Iterator[str]:
    """Serve one repository; gives the address."""
    files = {file.name: file.read_bytes() for file in tiny_of("sam").folder.iterdir()}
    with running_hub() as served:
        served.repos[REPOSITORY] = files
        yield served.url


def simmat(
    home: Path, endpoint: str, *args: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with a Hub's cache of its own; the client reads its settings once, so in its own process."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env = {
        **clean,
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
        **more,
    }
    command = [sys.executable, "-m", "simmat", *args]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
def test_a_repository_is_fetched_and_found_again_without_a_network(
    hub: str, tiny_of: Any, tmp_path: Path
) -> None:
    """Config and weights go into the Hub's own cache, and from there on no server is needed."""
    fetched = simmat(tmp_path, hub, "foundations", "fetch", f"hf/{REPOSITORY}")
    assert fetched.returncode == 0, fetched.stderr
    path = Path(fetched.stdout.strip().splitlines()[-1])
    assert path.is_relative_to(tmp_path)
    assert (
        path.read_bytes() == (tiny_of("sam").folder / "model.safetensors").read_bytes()
    )
    again = simmat(
        tmp_path,
        "http://127.0.0.1:9",
        "foundations",
        "fetch",
        f"hf/{REPOSITORY}",
        HF_HUB_OFFLINE="1",
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip().splitlines()[-1] == str(path)


def test_the_name_in_a_bundle_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made the bundle could see who uses it."""
    import huggingface_hub
    from simmat_plugin_transformers import simmat_foundation_families

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(
        huggingface_hub,
        "hf_hub_download",
        lambda *args: pytest.fail("the Hub was asked"),
    )
    (family,) = simmat_foundation_families()
    with pytest.raises(
        WeightsError, match="If you trust it: simmat foundations fetch hf/evil/repo"
    ):
        Registry(
            [], [("foundation family", family, "simmat-plugin-transformers")]
        ).foundation("hf/evil/repo")


def test_a_repository_that_is_not_there_is_named_with_what_is_near(
    hub: str, tmp_path: Path
) -> None:
    """A typing error ends in the right name."""
    result = simmat(tmp_path, hub, "foundations", "fetch", "hf/facebook/sam-vit-bas")
    assert result.returncode == 2
    assert "'hf/facebook/sam-vit-base'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("offline", ["0", "1"])  # its client tries for 20 s
def test_without_a_network_the_error_says_where_it_looked_and_what_to_do(
    tmp_path: Path, offline: str
) -> None:
    """Unreachable, and switched off by HF_HUB_OFFLINE."""
    name = "hf/facebook/sam-vit-base"
    result = simmat(
        tmp_path,
        "http://127.0.0.1:9",
        "foundations",
        "fetch",
        name,
        HF_HUB_OFFLINE=offline,
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert all(
        word in result.stderr
        for word in (name, "config.json", str(tmp_path), "127.0.0.1:9", "hf/./FOLDER")
    )
