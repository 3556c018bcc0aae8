"""Weights of timm's models: fetched through the Hub, refused by name where they do not fit."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save, save_file

from simmat.cli import run
from simmat.errors import WeightsError

MODEL = "test_vit"
"""timm's own tiny model for tests, 0.4 M parameters."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def weights_of(network: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def hub() -> Iterator[tuple[str, bytes]]:
    """A hub on this machine with timm's weights of `test_vit`: its address and the file's bytes."""
    body = save(weights_of(timm.create_model(MODEL)))

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def _answer(self, with_body: bool) -> None:
            repository = timm.get_pretrained_cfg(MODEL).hf_hub_id
            found = self.path == f"/{repository}/resolve/main/model.safetensors"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)) if found else "0")
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if not found:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if with_body and found:
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", body
    server.shutdown()
    thread.join()


def simmat(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a Hub of our own."""
    return subprocess.run(
        [sys.executable, "-m", "simmat", *arguments],
        env={**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_weights_are_fetched_through_the_hub_and_found_in_its_cache(
    hub: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where timm itself would put them, so that neither loads what the other has."""
    address, body = hub
    env = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "simmat", "foundations", "fetch", f"timm/{MODEL}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    file = Path(done.stdout.strip())
    assert file.is_relative_to(tmp_path / "hub")
    assert file.read_bytes() == body
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    timm.create_model(MODEL, pretrained=True, cache_dir=tmp_path / "hub")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and an empty cache: its folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for place in ("constants", "file_download.constants"):
        monkeypatch.setattr(f"huggingface_hub.{place}.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_without_a_network_the_error_says_what_where_and_what_to_do(
    offline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit code 2: the file, the cache, and the two ways around."""
    assert run(["foundations", "fetch", f"timm/{MODEL}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    said = captured.err.splitlines()[-1]
    for part in ("model.safetensors", f"timm/{MODEL}", "--checkpoint", "HF_HOME", str(offline)):
        assert part in said


def test_weights_that_are_not_here_are_refused_before_anything_is_written(
    offline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that began with random weights in their place would look like a bad model."""
    out = tmp_path / "run"
    arguments = ["train", "--modality", "gray", "--data", str(tmp_path), "--out", str(out), "--image-size", "64"]
    assert run([*arguments, "--foundation", f"timm/{MODEL}"]) == 2
    said = capsys.readouterr().err
    assert f"the weights of 'timm/{MODEL}'" in said
    assert str(offline) in said
    assert not out.exists()


def test_a_torch_file_of_timm_is_read_too(make_family: Any, tmp_path: Path) -> None:
    """Older weights are no safetensors."""
    family = make_family("ViT")
    source = family.theirs(num_classes=None)
    torch.save(source.state_dict(), tmp_path / "w.bin")
    loaded = family.ours(seed=1, weights=tmp_path / "w.bin").backbone.body.model
    assert torch.equal(loaded.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)


class Bomb:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_weight_file_is_not_run(make_family: Any, tmp_path: Path) -> None:
    """A stranger's file must not own the machine."""
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": Bomb(tmp_path / "hit")}))
    with pytest.raises(WeightsError, match="without running code"):
        make_family("ViT").ours(weights=tmp_path / "w.pth")
    torch.save({"a": Bomb(tmp_path / "hit")}, tmp_path / "w.bin")
    with pytest.raises(WeightsError, match="without running code"):
        make_family("ViT").ours(weights=tmp_path / "w.bin")
    assert not (tmp_path / "hit").exists()


def test_weights_of_another_model_are_refused_by_name(family: Any, tmp_path: Path) -> None:
    """A wrong file must not fill half a network."""
    save_file({"conv1.weight": torch.zeros(4, 3, 7, 7)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=rf"w.safetensors does not fit timm/{family.model}: .*"):
        family.ours(weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "title",
    ["ViT", "DINOv3", "Swin", "Hiera", *(pytest.param(t, marks=pytest.mark.slow) for t in
                                         ("SigLIP without a pooling", "DaViT of Florence"))],
)  # fmt: skip
def test_a_missing_tensor_is_refused_and_named(title: str, make_family: Any, tmp_path: Path) -> None:
    """timm itself goes on with random values in its place where the classifier is left out."""
    family = make_family(title)
    state = weights_of(family.theirs(num_classes=None))
    lost = next(name for name in state if name.endswith("mlp.fc2.weight"))
    del state[lost]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=f"Missing key.*{lost}"):
        family.ours(weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"PK\x03\x04 cut"])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_damaged_file_is_refused(content: bytes, suffix: str, make_family: Any, tmp_path: Path) -> None:
    """A cut download must not end in a stack trace."""
    (tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        make_family("ViT").ours(weights=tmp_path / f"w{suffix}")


def test_a_bundle_is_rebuilt_from_name_and_weights(tmp_path: Path) -> None:
    """Train on a weight file, then use the bundle where only that file and the name are known."""
    data = tmp_path / "set"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    rows = ["id,split,image,mask"]
    for index, split in enumerate(("train", "val", "test")):
        image, mask = Image.new("L", (64, 48), 30), Image.new("L", (64, 48), 0)
        image.paste(200 + index, (10, 10, 30, 30))
        mask.paste(1, (10, 10, 30, 30))
        image.save(data / f"images/{index}.png")
        mask.save(data / f"masks/{index}.png")
        rows.append(f"{index},{split},images/{index}.png,masks/{index}.png")
    (data / "manifest.csv").write_text("\n".join(rows) + "\n")
    file = tmp_path / "w.safetensors"
    save_file(weights_of(timm.create_model(MODEL)), file)
    out = tmp_path / "run"
    common = ["--data", str(data), "--checkpoint", str(file), "--device", "cpu"]
    training = ["--modality", "gray", "--foundation", f"timm/{MODEL}", "--tune", "lora", "--regions", "instances"]
    sizes = ["--image-size", "64", "--steps", "2", "--batch-size", "1", "--prompts-per-image", "1"]
    assert run(["train", *common, *training, *sizes, "--out", str(out)]) == 0
    document = json.loads((out / "bundle" / "bundle.json").read_text())
    assert document["foundation"] == f"timm/{MODEL}"
    assert document["foundation_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert run(["eval", str(out / "bundle"), *common, "--split", "test"]) == 0
    predict = ["predict", str(out / "bundle"), str(data / "images/2.png"), "--point", "20,20"]
    assert run([*predict, "--checkpoint", str(file), "--out", str(tmp_path / "masks")]) == 0
    assert list((tmp_path / "masks").glob("*mask.png"))
    save_file(weights_of(timm.create_model(MODEL)), file)  # others, random anew
    assert run([*predict, "--checkpoint", str(file), "--out", str(tmp_path / "again")]) == 2
