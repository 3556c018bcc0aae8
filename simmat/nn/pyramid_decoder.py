"""A prompt decoder for any pyramid: Segment Anything's own, with skips from the finer levels.

Prompt encoder and mask decoder are those of the `segment-anything` package (Kirillov et al. 2023, arXiv 2304.02643);
the finer levels join its upscaling as in SAM 2 (Ravi et al. 2024, arXiv 2408.00714). It comes without weights: put
behind a pretrained backbone it must be trained, and has no zero-shot score until it is.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer  # type: ignore[import-untyped]
from torch import Tensor, nn

from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.nn.sam_prompts import dense_positions, embed_prompts


class PyramidMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """The package's mask decoder for K prompts over several images, its upscaling joined by two finer levels."""

    def predict(
        self, levels: tuple[Tensor, ...], positions: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Answer K prompts.

        Args:
            levels: (K, D / 8, 4g, 4g), (K, D / 4, 2g, 2g) and (K, D, g, g), prompt k's image at row k.
            positions: (1, D, g, g).
            sparse: (K, N, D) embedded points and boxes.
            dense: (K, D, g, g) embedded masks.

        Returns:
            (K, 4, 4g, 4g) mask logits and (K, 4) predicted IoU.
        """
        finest, finer, level = levels
        count, dim, height, width = level.shape
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(count, -1, -1), sparse], 1)
        out, image = self.transformer(level + dense, positions.expand(count, -1, -1, -1), tokens)
        image = image.transpose(1, 2).reshape(count, dim, height, width)
        double, norm, act, again, last_act = self.output_upscaling
        image = act(norm(double(image) + finer))
        image = last_act(again(image) + finest)  # (K, D / 8, 4g, 4g)
        weights = torch.stack([mlp(out[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 1)
        logits = torch.einsum("kmd,kdhw->kmhw", weights, image)
        return logits, self.iou_prediction_head(out[:, 0])


class PyramidDecoder(nn.Module):
    """Masks and their expected IoU from the three levels of a `simmat.nn.pyramid.FeaturePyramid`.

    Args:
        dim: channels of the coarsest level, a multiple of 8.
        grid: its side g.
        image_size: S.
        heads: of the attention.
        hidden: width of the transformer's MLPs.
    """

    def __init__(self, dim: int, grid: int, image_size: int, *, heads: int = 8, hidden: int = 2048) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder(dim, (grid, grid), (image_size, image_size), mask_in_chans=16)
        self.mask_decoder = PyramidMaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=hidden, num_heads=heads),
            iou_head_hidden_dim=dim,
        )

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Answer K prompts: logits (K, 4, 4g, 4g) and iou (K, 4)."""
        sparse, dense = self._embed_prompts(prompts)
        levels = tuple(level.index_select(0, prompts.image_index) for level in embedding.levels)
        positions = dense_positions(self.prompt_encoder, sparse)
        logits, iou = self.mask_decoder.predict(levels, positions, sparse, dense)
        return MaskPrediction(logits.float(), iou.float())

    def _embed_prompts(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Return sparse (K, N, D) and dense (K, D, g, g) embeddings."""
        sparse, dense = embed_prompts(self.prompt_encoder, prompts)
        # What this batch did not ask with gets a gradient of zero, not none: DistributedDataParallel waits for each.
        unused = torch.stack([parameter.sum() for parameter in self.prompt_encoder.parameters()]).sum() * 0.0
        return sparse, dense + unused
