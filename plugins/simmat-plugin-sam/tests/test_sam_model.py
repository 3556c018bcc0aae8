"""SAM as a foundation model: its contract, shapes, determinism, gradients, and what loading it imports."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling.image_encoder import Attention
from simmat_plugin_sam.model import FusedAttention, SamModel, build_sam, sam_parts
from simmat_plugin_sam.prompts import embed_prompts
from simmat_plugin_sam.specs import SAM_VIT_B, SAM_VIT_H, SAM_VIT_L, SAM_VIT_TINY
from simmat_testing import FoundationContract
from simmat_testing.checks import run_checks
from simmat_testing.find_parts import FOUNDATION_CHECKS
from simmat_testing.foundation_checks import FoundationCase

from simmat.foundation import MaskPrediction, PromptBatch
from simmat.plugin_specs import FoundationSpec

SIZE = 64


def tiny(size: int = SIZE, seed: int = 0) -> SamModel:
    """Build the tiny model."""
    return build_sam(SAM_VIT_TINY, image_size=size, weights=None, seed=seed)


def images(count: int, size: int = SIZE) -> torch.Tensor:
    """Return (B, 3, S, S) normalised input."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def clicks(image_index: list[int], points: int = 2) -> PromptBatch:
    """Return a prompt of some points for every index."""
    generator = torch.Generator().manual_seed(6)
    return PromptBatch(
        image_index=torch.tensor(image_index),
        point_coords=torch.rand(len(image_index), points, 2, generator=generator)
        * SIZE,
        point_labels=torch.randint(
            0, 2, (len(image_index), points), generator=generator
        ),
    )


def answer(
    model: SamModel, image: torch.Tensor, prompts: PromptBatch
) -> MaskPrediction:
    """Run the whole model."""
    return model.decoder.decode(
        model.backbone.encode(model.backbone.embed(image)), prompts
    )


@pytest.mark.parametrize(
    ("spec", "registered", "keys"),
    [(SAM_VIT_B, "vit_b", 314), (SAM_VIT_L, "vit_l", 482), (SAM_VIT_H, "vit_h", 594)],
)
def test_the_released_models_have_the_packages_keys_and_shapes(
    spec: FoundationSpec, registered: str, keys: int
) -> None:
    """Else no released checkpoint fits; on the meta device this needs no weights."""
    with torch.device("meta"):
        ours = sam_parts(SamModel(spec, spec.image_size)).state_dict()
        theirs = sam_model_registry[registered]().state_dict()
    assert len(theirs) == keys
    assert {name: t.shape for name, t in ours.items()} == {
        name: t.shape for name, t in theirs.items()
    }


def test_positions_of_the_grid_follow_the_weights() -> None:
    """They are computed once; those of a file that is loaded later must replace them."""
    model, other = tiny(), tiny(seed=1)
    with torch.inference_mode():
        before = answer(model, images(1), clicks([0]))
        model.load_state_dict(other.state_dict())
        after = answer(model, images(1), clicks([0]))
        assert torch.equal(after.logits, answer(other, images(1), clicks([0])).logits)
    assert not torch.equal(after.logits, before.logits)
    answer(model, images(1), clicks([0])).logits.sum().backward()


@pytest.mark.parametrize("size", [16, 48, 64, 160])
def test_any_multiple_of_the_patch_is_taken(size: int) -> None:
    """512 px trains four times faster than 1024; odd numbers of patches meet padded windows."""
    prediction = answer(tiny(size), images(1, size), clicks([0]))
    assert prediction.logits.shape == (1, 4, size // 4, size // 4)
    assert prediction.iou.shape == (1, 4)


def test_half_precision_does_not_move_a_click() -> None:
    """Coordinates times 2π in bfloat16 would be off by pixels."""
    model, prompts = tiny(), clicks([0, 0, 0])
    exact = embed_prompts(model.decoder.prompt_encoder, prompts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = embed_prompts(model.decoder.prompt_encoder, prompts)
        full = answer(model, images(1), prompts)
    assert all(torch.equal(a, b) for a, b in zip(exact, half, strict=True))
    assert full.logits.dtype == torch.float32


@pytest.mark.parametrize("grid_hw", [(5, 5), (4, 7)])
def test_fused_attention_answers_and_learns_as_the_packages(
    grid_hw: tuple[int, int],
) -> None:
    """It is a faster way to the same numbers, or it is wrong."""
    theirs = Attention(16, num_heads=2, use_rel_pos=True, input_size=grid_hw)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.5, generator=generator)
    ours = FusedAttention(theirs)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    x = torch.randn(2, *grid_hw, 16, generator=generator)
    pull = torch.randn(2, *grid_hw, 16, generator=generator)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    gradients = []
    for module in (theirs, ours):
        module.zero_grad()
        (module(x) * pull).sum().backward()
        gradients.append(
            {
                name: p.grad.clone()
                for name, p in module.named_parameters()
                if p.grad is not None
            }
        )
    assert set(gradients[0]) == set(gradients[1])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-4)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    """It trades time for memory, nothing else."""
    gradients = []
    for on in (False, True):
        model = tiny()
        model.gradient_checkpointing(on)
        answer(model, images(1), clicks([0])).logits.square().sum().backward()
        gradients.append(model.backbone.image_encoder.patch_embed.proj.weight.grad)
    torch.testing.assert_close(*gradients)


class TestTiny(FoundationContract):
    """The architecture, by its name."""

    image_size = 64

    @pytest.fixture
    def foundation(self) -> str:
        return "sam_vit_tiny"


class TestMobileSam(FoundationContract):
    """With its packaged weights."""

    image_size = 64

    @pytest.fixture
    def foundation(self) -> str:
        return "mobilesam"


class TestLargeSam(FoundationContract):
    """The released models are measured without their weights."""

    @pytest.fixture(
        params=[
            "sam_vit_b",
            *(pytest.param(f"sam_vit_{x}", marks=pytest.mark.slow) for x in "lh"),
        ]
    )
    def foundation(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name


def test_a_large_model_is_measured_without_values(tmp_path: Path) -> None:
    """Nobody waits for 2.5 GB of random weights to hear that a pattern is misspelt."""
    pattern = r"backbone[.]image_encoder[.]block[.]qkv"
    spec = replace(
        SAM_VIT_H, targets=replace(SAM_VIT_H.targets, lora={pattern: ((0,), 1)})
    )
    asked = [
        FOUNDATION_CHECKS[name]
        for name in ("tuning-targets-match", "same-seed-same-answers")
    ]
    results = {r.check: r for r in run_checks(asked, FoundationCase(spec, tmp_path))}
    assert results["tuning-targets-match"].status == "failed"
    assert results["same-seed-same-answers"].status == "skipped"
    assert "run with --full" in results["same-seed-same-answers"].found


LOADING = """
import sys
import simmat
simmat.load(foundation="mobilesam", modality="rgb", device="cpu")
print([name for name in ("torchvision", "torch._dynamo") if name in sys.modules])
import segment_anything
print(segment_anything.SamPredictor.__name__)
"""


def test_loading_imports_neither_torchvision_nor_the_compiler() -> None:
    """Each takes a second; `segment_anything` itself stays whole for whoever imports it."""
    done = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "SamPredictor"]
