"""The prompt decoder of `lite`: a dense decoder from feature similarity.

The features under a prompt's clicks, box and previous mask are compared with those at every position, in several heads
and at three strides. The similarities, maps of the prompt and the image's features pass residual dilated convolutions
at stride 8. In the middle of these, a coarse mask gives an object and a background prototype, which are compared with
every position again. The result is upsampled to stride 2 with skips from the fine levels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.nn.pointwise import PointwiseConv2d
from simmat_plugin_lite.backbone import STRIDES, WIDTHS
from simmat_plugin_lite.blocks import (
    ConvBlock,
    DoubleSize,
    LayerNorm2d,
    PromptImages,
    add_image,
    maps_of,
    mean_over,
    pool_region,
    rows_of,
    sample_points,
    unit_vectors,
)
from simmat_plugin_lite.prompt_maps import (
    MAP_CHANNELS,
    PromptState,
    prompt_maps,
    region_weight,
)

MASKS = 4  # 0: the single mask; 1..3: alternatives for an ambiguous prompt


class Similarity(nn.Module):
    """Cosine similarity of query vectors with every position of a level, in several heads."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, 16
        self.key = PointwiseConv2d(channels, heads * self.width)
        self.query = nn.Linear(channels, heads * self.width)

    def forward(self, level: Tensor, images: PromptImages, queries: Tensor) -> Tensor:
        """Map a level (B, D, h, w) and queries (K, N, D) to (G, heads, P, N, h*w) in -1..1."""
        b, _, h, w = level.shape
        n = queries.shape[1]
        g, p = images.groups, images.per_group
        keys = self.key(level).reshape(b, self.heads, self.width, h * w)
        keys = images.of_groups(unit_vectors(keys, 2))
        queries = self.query(queries).reshape(g, p * n, self.heads, self.width)
        queries = F.normalize(queries, dim=-1).transpose(1, 2)  # (G, heads, P*N, width)
        return (queries @ keys).reshape(g, self.heads, p, n, h * w)


def nearest_of(similarity: Tensor, chosen: Tensor) -> Tensor:
    """Return the largest similarity over the chosen queries: (G, heads, P, N, h*w), (G, P, N) -> (G, heads, P, h*w).

    -1 if none is chosen.
    """
    return similarity.masked_fill(~chosen[:, None, ..., None], -1.0).amax(3)


def unlike_outside(level: Tensor, stride: int, state: PromptState) -> Tensor | None:
    """Return how different each position is from those just outside the prompt's box.

    Returns:
        (K, 1, h, w) float in 0..1, 1 if no place outside is in the image; None if no prompt has a box.
    """
    if state.outside.shape[1] == 0:
        return None
    images = state.images
    around = F.normalize(
        sample_points(level, images, state.outside_xy, stride).float(), dim=-1
    )
    inside = images.of_groups(unit_vectors(level.float(), 1)).flatten(2)  # (G, D, h*w)
    like = (images.split(around).flatten(1, 2) @ inside).reshape(
        *state.outside.shape, inside.shape[-1]
    )
    like = like.masked_fill(~state.outside[..., None], -1.0).amax(1)
    return ((1 - like) / 2).clamp(1e-3, 1.0).reshape(-1, 1, *level.shape[-2:])


class PromptSimilarity(nn.Module):
    """Similarity of one level with positive clicks, negative ones, and the estimated region.

    At the coarse levels, places just outside a box count as negative clicks.
    """

    def __init__(self, channels: int, heads: int, around_box: bool) -> None:
        super().__init__()
        self.click = Similarity(channels, heads)
        self.region = Similarity(channels, heads)
        self.around_box = around_box
        self.out_channels = 3 * heads

    def forward(
        self, level: Tensor, stride: int, state: PromptState, region: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compare a level with K prompts.

        Args:
            level: (B, D, h, w).
            stride: stride of the level.
            state: K prompts.
            region: (K, 1, h, w) weight of the estimated region.

        Returns:
            (K, 3 * heads, h, w) similarities and (K, 2 * D) mean click and region features.
        """
        images = state.images
        clicked = sample_points(level, images, state.coords_xy, stride)
        # (K, 1, D)
        inside = pool_region(images.of_groups(level), images.split(region))
        queries, negative = clicked, state.negative
        if self.around_box and state.outside.shape[1]:  # 0 where no prompt has a box
            queries = torch.cat(
                [clicked, sample_points(level, images, state.outside_xy, stride)], 1
            )
            negative = torch.cat([negative, state.outside], 1)
        like = self.click(level, images, queries)
        maps = torch.stack(
            [
                nearest_of(
                    like[:, :, :, : clicked.shape[1]], images.split(state.positive)
                ),
                nearest_of(like, images.split(negative)),
                self.region(level, images, inside)[:, :, :, 0],
            ],
            1,
        )  # (G, 3, heads, P, h*w)
        maps = maps.permute(0, 3, 1, 2, 4).reshape(
            region.shape[0], self.out_channels, *region.shape[-2:]
        )
        share = state.positive.to(clicked.dtype)[..., None]
        mean_click = (clicked * share).sum(1) / share.sum(1).clamp(min=1.0)
        return maps, torch.cat([mean_click, inside[:, 0]], 1)


class LiteDecoder(nn.Module):
    """Prompt decoder over levels of `backbone.STRIDES`, with masks at stride 2."""

    def __init__(self) -> None:
        super().__init__()
        d2, d4, d8, d16 = WIDTHS
        width, fine, finest = 80, 32, 16  # channels at strides 8, 4 and 2
        self.sim16 = PromptSimilarity(d16, heads=8, around_box=True)
        self.sim8 = PromptSimilarity(d8, heads=8, around_box=True)
        self.sim4 = PromptSimilarity(d4, heads=4, around_box=False)
        prompt_channels = (
            self.sim16.out_channels + self.sim8.out_channels + MAP_CHANNELS
        )
        self.feature8 = PointwiseConv2d(d8, width)
        self.prompt8 = nn.Conv2d(prompt_channels, width, 3, padding=1)
        self.film = nn.Sequential(
            nn.Linear(2 * (d8 + d16) + d16, 128), nn.ReLU(), nn.Linear(128, 2 * width)
        )
        self.search = nn.Sequential(*(ConvBlock(width, d) for d in (1, 2, 4)))
        self.coarse = nn.Sequential(LayerNorm2d(width), nn.Conv2d(width, 1, 1))
        self.again = Similarity(d8, heads=8)
        self.join = nn.Conv2d(2 * 8 + 1, width, 1)
        self.settle = nn.Sequential(*(ConvBlock(width, d) for d in (1, 4, 1)))
        self.up4 = nn.Sequential(LayerNorm2d(width), DoubleSize(width, fine))
        self.feature4 = PointwiseConv2d(d4, fine)
        self.prompt4 = nn.Conv2d(
            self.sim4.out_channels + MAP_CHANNELS, fine, 3, padding=1
        )
        self.sharpen = nn.Sequential(ConvBlock(fine), ConvBlock(fine))
        self.mask4 = nn.Sequential(LayerNorm2d(fine), nn.Conv2d(fine, MASKS, 1))
        self.up2 = nn.Sequential(LayerNorm2d(fine), DoubleSize(fine, finest))
        self.feature2 = PointwiseConv2d(d2, finest)
        self.edge = nn.Conv2d(finest, finest, 3, padding=1)
        self.mask2 = nn.Conv2d(finest, MASKS, 1)
        self.iou = nn.Sequential(
            nn.Linear(2 * width + MASKS + 1, 128), nn.ReLU(), nn.Linear(128, 1)
        )
        for parameter in self.mask2.parameters():
            nn.init.zeros_(parameter)

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict four masks for each prompt.

        Args:
            embedding: levels (B, D, S/s, S/s) of the backbone.
            prompts: K prompts on the B images.

        Returns:
            Logits (K, 4, S/2, S/2) over the whole input and iou (K, 4) in 0..1.
        """
        if tuple(embedding.strides) != STRIDES:
            raise ValueError(
                f"decoder of lite expected levels of strides {STRIDES}, got {tuple(embedding.strides)}; "
                "give it an embedding of lite's own backbone"
            )
        images, _, _, side = embedding.levels[0].shape
        state = PromptState.from_batch(prompts, side * STRIDES[0], images)
        unlike = unlike_outside(embedding.levels[3], 16, state)
        x = self._stride8(embedding, state, unlike)
        fine = self._stride4(embedding, state, x, unlike)
        logits = self._stride2(embedding, state, fine)
        return MaskPrediction(logits=logits.float(), iou=self._expected_iou(x, logits))

    def _stride8(
        self, embedding: ImageEmbedding, state: PromptState, unlike: Tensor | None
    ) -> Tensor:
        p8, p16 = embedding.levels[2], embedding.levels[3]
        h, w = p8.shape[-2:]
        images = state.images
        region16 = region_weight(state, h // 2, w // 2, 16, unlike)
        region8 = region_weight(state, h, w, 8, unlike)
        like16, query16 = self.sim16(p16, 16, state, region16)
        like8, query8 = self.sim8(p8, 8, state, region8)
        like16 = F.interpolate(like16, (h, w), mode="bilinear", align_corners=False)
        maps = prompt_maps(state, h, w, 8).to(like8.dtype)
        whole = mean_over(p16).index_select(0, images.index)
        film = self.film(torch.cat([query8, query16, whole], 1))
        scale, shift = images.split(film)[:, :, None, None].chunk(2, -1)
        image = images.of_groups(rows_of(self.feature8(p8)))[:, None]  # (G, 1, h, w, D)
        x = maps_of((image * (1 + scale) + shift).flatten(0, 1))
        prompt = torch.cat([like16.to(like8.dtype), like8, maps], 1)
        x = x + self.prompt8(prompt.contiguous(memory_format=torch.channels_last))
        x = self.search(x)
        coarse = self.coarse(x).float().sigmoid()  # (K, 1, h, w)
        sides = pool_region(
            images.of_groups(p8), images.split(torch.cat([coarse, 1 - coarse], 1))
        )
        like = self.again(p8, images, sides).permute(0, 2, 3, 1, 4)
        like = like.reshape(x.shape[0], -1, h, w)  # (K, 2 * heads, h, w)
        x = x + self.join(torch.cat([like, (2 * coarse - 1).to(like.dtype)], 1))
        settled: Tensor = self.settle(x)
        return settled

    def _stride4(
        self,
        embedding: ImageEmbedding,
        state: PromptState,
        x: Tensor,
        unlike: Tensor | None,
    ) -> Tensor:
        p4 = embedding.levels[1]
        h, w = p4.shape[-2:]
        like4, _ = self.sim4(p4, 4, state, region_weight(state, h, w, 4, unlike))
        maps = prompt_maps(state, h, w, 4).to(like4.dtype)
        prompt = torch.cat([like4, maps], 1).contiguous(
            memory_format=torch.channels_last
        )
        fine = add_image(self.up4(x), self.feature4(p4), state.images)
        sharp: Tensor = self.sharpen(fine + self.prompt4(prompt))
        return sharp

    def _stride2(
        self, embedding: ImageEmbedding, state: PromptState, fine: Tensor
    ) -> Tensor:
        p2 = embedding.levels[0]
        base = F.interpolate(
            self.mask4(fine), p2.shape[-2:], mode="bilinear", align_corners=False
        )
        fine = add_image(self.up2(fine), self.feature2(p2), state.images)
        edge = F.relu(self.edge(F.relu(fine)))
        logits: Tensor = base + self.mask2(edge)
        return logits

    def _expected_iou(self, x: Tensor, logits: Tensor) -> Tensor:
        """Predict (K, 4) in 0..1 from the features at stride 8 under each mask and over the whole input."""
        probability = F.adaptive_avg_pool2d(
            logits.detach().float().sigmoid(), (x.shape[-2], x.shape[-1])
        )
        under = pool_region(x, probability[:, None])  # (K, 4, width)
        frame = mean_over(x)[:, None].expand_as(under)
        certainty = (2 * probability - 1).abs().mean((2, 3))[..., None].to(under.dtype)
        which = torch.eye(MASKS, device=x.device, dtype=under.dtype).expand(
            x.shape[0], -1, -1
        )
        expected: Tensor = self.iou(torch.cat([under, frame, certainty, which], -1))[
            ..., 0
        ]
        return expected.float().sigmoid()
