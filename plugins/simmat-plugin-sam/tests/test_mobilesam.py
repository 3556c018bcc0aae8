"""MobileSAM: its packaged weights, the file that its authors publish, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from simmat_plugin_sam.mobilesam import MobileSamModel, build_mobilesam
from simmat_plugin_sam.model import build_sam, sam_parts
from simmat_plugin_sam.specs import MOBILESAM, MOBILESAM_RELEASE, SAM_VIT_TINY
from torch import Tensor
from torch.nn import functional as F

from simmat.errors import WeightsError
from simmat.foundation import PromptBatch

State = dict[str, Tensor]
SIDE = 96
"""Of the test images; 32 divides it, and no window divides its grids of 12 and 6."""


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def encode(model: MobileSamModel, image: Tensor) -> Tensor:
    return model.backbone.encode(model.backbone.embed(image)).levels[0]


def published(seed: int) -> State:
    """Return random weights in the layout of `mobile_sam.pt`: BatchNorm beside each convolution, qkv by head."""
    generator = torch.Generator().manual_seed(seed)
    ours = sam_parts(
        build_mobilesam(MOBILESAM, image_size=SIDE, weights=None, seed=seed)
    ).state_dict()
    state: State = {}
    for name, tensor in ours.items():
        prefix, _, leaf = name.rpartition(".")
        if not name.startswith("image_encoder.") or ".neck." in name:
            state[name] = (
                tensor[..., None, None]
                if name == "image_encoder.neck.0.weight"
                else tensor
            )
        elif any(part in prefix for part in (".attn", ".mlp")):
            values = (
                torch.randn(tensor.shape, generator=generator)
                if leaf == "attention_biases"
                else tensor
            )
            state[name] = values
        elif leaf == "weight":
            channels = len(tensor)
            state[f"{prefix}.c.weight"] = (
                tensor if tensor.ndim == 4 else tensor[..., None, None]
            )
            state[f"{prefix}.bn.weight"] = (
                torch.rand(channels, generator=generator) + 0.5
            )
            state[f"{prefix}.bn.bias"] = (
                torch.randn(channels, generator=generator) * 0.1
            )
            state[f"{prefix}.bn.running_mean"] = (
                torch.randn(channels, generator=generator) * 0.1
            )
            state[f"{prefix}.bn.running_var"] = (
                torch.rand(channels, generator=generator) + 0.5
            )
            state[f"{prefix}.bn.num_batches_tracked"] = torch.tensor(7)
    state["image_encoder.norm_head.weight"] = torch.ones(320)
    state["image_encoder.head.weight"] = torch.zeros(1000, 320)
    return state


class Published:
    """MobileSAM's encoder as its papers describe it, over the published layout, in float64."""

    def __init__(self, state: State) -> None:
        self.state = {
            name.removeprefix("image_encoder."): tensor.double()
            for name, tensor in state.items()
        }

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, norm = self.state[f"{name}.c.weight"], f"{name}.bn."
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        mean, variance = (
            self.state[norm + "running_mean"],
            self.state[norm + "running_var"],
        )
        return F.batch_norm(
            x, mean, variance, self.state[norm + "weight"], self.state[norm + "bias"]
        )

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(
            x,
            x.shape[-1:],
            self.state[f"{name}.weight"],
            self.state[f"{name}.bias"],
            eps,
        )

    def attention(self, name: str, x: Tensor, heads: int) -> Tensor:
        """(windows, window², D) -> the same shape."""
        count, tokens, width = x.shape
        q, k, v = (
            self.linear(f"{name}.qkv", self.norm(f"{name}.norm", x))
            .reshape(count, tokens, heads, -1)
            .chunk(3, -1)
        )
        side = round(tokens**0.5)
        rows, columns = torch.meshgrid(
            torch.arange(side), torch.arange(side), indexing="ij"
        )
        rows, columns = rows.flatten(), columns.flatten()
        index = (rows[:, None] - rows).abs() * side + (columns[:, None] - columns).abs()
        logits = (
            torch.einsum("bqhd,bkhd->bhqk", q, k) / 32**0.5
            + self.state[f"{name}.attention_biases"][:, index]
        )
        return self.linear(
            f"{name}.proj",
            torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).reshape(
                count, tokens, width
            ),
        )

    def block(self, name: str, x: Tensor, heads: int, window: int) -> Tensor:
        b, d, h, w = x.shape
        padded = F.pad(x, (0, -w % window, 0, -h % window))
        # (B, D, rows, columns, window, window)
        cells = padded.unfold(2, window, window).unfold(3, window, window)
        rows, columns = cells.shape[2:4]
        windows = cells.permute(0, 2, 3, 4, 5, 1).reshape(-1, window**2, d)
        attended = self.attention(f"{name}.attn", windows, heads).reshape(
            b, rows, columns, window, window, d
        )
        joined = attended.permute(0, 5, 1, 3, 2, 4).reshape(
            b, d, rows * window, columns * window
        )
        x = self.conv(f"{name}.local_conv", x + joined[:, :, :h, :w])
        tokens = x.permute(0, 2, 3, 1)
        hidden = F.gelu(
            self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.mlp.norm", tokens))
        )
        return x + self.linear(f"{name}.mlp.fc2", hidden).permute(0, 3, 1, 2)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 256, S/16, S/16)."""
        x = self.conv(
            "patch_embed.seq.2",
            F.gelu(self.conv("patch_embed.seq.0", image.double(), 2)),
            2,
        )
        for layer, (depth, heads, window) in enumerate(
            zip((2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7), strict=True)
        ):
            for index in range(depth):
                name = f"layers.{layer}.blocks.{index}"
                if layer:
                    x = self.block(name, x, heads, window)
                    continue
                hidden = F.gelu(
                    self.conv(f"{name}.conv2", F.gelu(self.conv(f"{name}.conv1", x)))
                )
                x = F.gelu(x + self.conv(f"{name}.conv3", hidden))
            if layer < 3:
                name = f"layers.{layer}.downsample"
                hidden = F.gelu(self.conv(f"{name}.conv1", x))
                x = self.conv(
                    f"{name}.conv3",
                    F.gelu(self.conv(f"{name}.conv2", hidden, 1 if layer == 2 else 2)),
                )
        for conv, norm in (("neck.0", "neck.1"), ("neck.2", "neck.3")):
            weight = self.state[f"{conv}.weight"]
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
            x = self.norm(norm, x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)
        return x


@pytest.fixture(scope="module")
def mobile_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file in the layout of `mobile_sam.pt`."""
    path = tmp_path_factory.mktemp("published") / "mobile_sam.pt"
    torch.save(published(3), path)
    return path


def test_a_dense_head_gets_finer_levels_and_the_decoder_the_same_one(
    image: Tensor,
) -> None:
    """A class map from stride 16 alone has no fine borders; masks must not change by it."""
    model = build_mobilesam(MOBILESAM, image_size=SIDE, weights=None, seed=0)
    with torch.no_grad():
        plain = encode(model, image)
        model.backbone.finer_levels = True
        levels = model.backbone.encode(model.backbone.embed(image)).levels
    assert [tuple(level.shape[1:]) for level in levels] == [
        (32, 48, 48),
        (64, 24, 24),
        (128, 12, 12),
        (256, 6, 6),
    ]
    torch.testing.assert_close(levels[-1], plain, rtol=0, atol=0)


def test_the_published_file_computes_what_its_layout_says(
    mobile_sam: Path, image: Tensor
) -> None:
    """BatchNorm folded, heads reordered, odd sizes padded: the embedding is that of the network as published."""
    model = build_mobilesam(
        MOBILESAM_RELEASE, image_size=SIDE, weights=mobile_sam, seed=0
    )
    expected = Published(published(3))(image)
    with torch.no_grad():
        torch.testing.assert_close(
            encode(model, image).double(), expected, rtol=1e-4, atol=1e-4
        )
    assert torch.equal(
        model.decoder.mask_decoder.iou_token.weight,
        published(3)["mask_decoder.iou_token.weight"],
    )


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 0.1)])
def test_training_computes_what_prediction_does(
    image: Tensor, bf16: bool, tolerance: float
) -> None:
    """Without a gradient, oneDNN runs a layer and its GELU in one pass, and torch fuses attention in bf16."""
    model = build_mobilesam(MOBILESAM, image_size=SIDE, weights=None, seed=1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        with torch.no_grad():
            fused = encode(model, image)
        torch.testing.assert_close(
            fused, encode(model, image).detach(), rtol=tolerance, atol=tolerance
        )


def test_recomputed_blocks_have_the_same_gradient(image: Tensor) -> None:
    """Gradient checkpointing changes memory and time, not the training."""
    gradients = []
    for on in (False, True):
        model = build_mobilesam(MOBILESAM, image_size=SIDE, weights=None, seed=1)
        model.gradient_checkpointing(on)
        encode(model, image).square().mean().backward()
        gradients.append(
            torch.cat(
                [
                    p.grad.flatten()
                    for p in model.backbone.parameters()
                    if p.grad is not None
                ]
            )
        )
    torch.testing.assert_close(*gradients)


def test_a_click_on_a_disc_finds_it() -> None:
    """The packaged weights are those of a Segment Anything: an object is found without any training."""
    model = build_mobilesam(
        MOBILESAM, image_size=512, weights=MOBILESAM.weights.path, seed=0
    )
    y, x = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
    disc = (y - 200) ** 2 + (x - 300) ** 2 < 90**2
    picture = torch.where(disc, 1.0, -1.0).expand(1, 3, 512, 512)
    with torch.no_grad():
        embedding = model.backbone.encode(model.backbone.embed(picture))
        click = PromptBatch(
            torch.zeros(1, dtype=torch.long),
            torch.tensor([[[300.0, 200.0]]]),
            torch.ones(1, 1).long(),
        )
        found = (
            F.interpolate(
                model.decoder.decode(embedding, click).logits[:, :1], (512, 512)
            )[0, 0]
            > 0
        )
    assert (found & disc).sum() / (found | disc).sum() > 0.9


def test_a_file_of_another_model_is_refused_by_name(
    tmp_path: Path, mobile_sam: Path
) -> None:
    """People rename files; a file of another network must not end in a list of 300 tensors."""
    other = tmp_path / "mobile_sam.pt"
    torch.save(
        sam_parts(
            build_sam(SAM_VIT_TINY, image_size=256, weights=None, seed=0)
        ).state_dict(),
        other,
    )
    with pytest.raises(
        WeightsError, match=r"not a MobileSAM checkpoint.*--foundation sam_vit_b"
    ):
        build_mobilesam(MOBILESAM_RELEASE, image_size=SIDE, weights=other, seed=0)
    other.write_bytes(mobile_sam.read_bytes()[:-100_000])
    with pytest.raises(WeightsError, match=r"mobile_sam.pt is damaged"):
        build_mobilesam(MOBILESAM_RELEASE, image_size=SIDE, weights=other, seed=0)
    with pytest.raises(WeightsError, match=r"--foundation mobilesam"):
        build_sam(SAM_VIT_TINY, image_size=256, weights=mobile_sam, seed=0)
    for change, said in (
        (
            {"layers.1.blocks.0.local_conv.bn.running_var": torch.zeros(0)},
            "layers.1.blocks.0.local_conv.bn",
        ),
        ({"patch_embed.seq.0.c.weight": torch.tensor(1.0)}, "patch_embed.seq.0.bn"),
        (
            {"layers.2.blocks.0.attn.qkv.weight": torch.zeros(481, 160)},
            "layers.2.blocks.0.attn.qkv.weight",
        ),
        (
            {"layers.4.attn.qkv.weight": torch.zeros(480, 160)},
            "layers.4.attn.qkv.weight",
        ),
    ):
        torch.save(
            published(3)
            | {f"image_encoder.{name}": tensor for name, tensor in change.items()},
            other,
        )
        with pytest.raises(WeightsError, match=said):
            build_mobilesam(MOBILESAM_RELEASE, image_size=SIDE, weights=other, seed=0)
    state = sam_parts(
        build_mobilesam(MOBILESAM, image_size=SIDE, weights=None, seed=0)
    ).state_dict()
    del state["image_encoder.layers.2.blocks.5.mlp.fc1.bias"]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(
        WeightsError, match=r"1 tensors missing .*layers.2.blocks.5.mlp.fc1.bias"
    ):
        build_mobilesam(
            MOBILESAM, image_size=SIDE, weights=tmp_path / "cut.safetensors", seed=0
        )
