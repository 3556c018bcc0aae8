"""The library's prompt encoders and mask decoders, for prompts of several images.

Sizes are taken from `shape`, not from `len`, which tracing for ONNX makes a constant.

A decoder of the library returns one mask or three; here one pass through its parts returns all four, and tests compare
them with the library's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from simmat.errors import DataError
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch


class ClickDecoder(nn.Module):
    """A prompt encoder and a mask decoder of the library. This class is for SAM.

    Attributes:
        prompt_encoder: embeds points, boxes and masks.
        mask_decoder: two-way transformer, upscaling and heads.
        shared_image_embedding: Fourier positions of the image's grid.
    """

    def __init__(
        self,
        prompt_encoder: nn.Module,
        mask_decoder: nn.Module,
        shared_image_embedding: nn.Module,
    ) -> None:
        super().__init__()
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.shared_image_embedding = shared_image_embedding

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict masks for K prompts: logits (K, 4, h, w), h four times the side of the grid, and iou (K, 4)."""
        sparse, dense = self._embed_prompts(prompts)
        logits, iou = self._predict(embedding, prompts.image_index, sparse, dense)
        return MaskPrediction(logits.float(), iou.float())

    def _predict(
        self, embedding: ImageEmbedding, image: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        (level,) = embedding.levels
        return all_masks(
            self.mask_decoder, level[image] + dense, self._positions(level), sparse
        )

    def _embed_prompts(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Return sparse (K, tokens, D) and dense (K or 1, D, grid, grid) embeddings."""
        points, labels = prompts.point_coords, prompts.point_labels
        if not points.shape[1] and prompts.boxes is None and prompts.mask_input is None:
            raise DataError("a prompt needs at least one point, a box or a mask")
        if not points.shape[1] and prompts.boxes is None:
            points, labels = self._no_points(points, labels)
        # Positions are sines of coordinates times 2π; half precision would shift a point by pixels.
        with torch.autocast(points.device.type, enabled=False):
            sparse, dense = self.prompt_encoder(
                input_points=points.float()[:, None] if points.shape[1] else None,
                input_labels=labels[:, None] if points.shape[1] else None,
                input_boxes=prompts.boxes.float()[:, None]
                if prompts.boxes is not None
                else None,
                input_masks=self._checked(prompts.mask_input),
            )
        if sparse is None:
            sparse = dense.new_zeros(points.shape[0], 1, 0, dense.shape[1])
        return sparse[:, 0], dense

    def _no_points(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points of a prompt that has only a mask: none."""
        return points, labels

    def _checked(self, masks: Tensor | None) -> Tensor | None:
        side = 4 * cast(Any, self.prompt_encoder).image_embedding_size[0]
        if masks is not None and tuple(masks.shape[1:]) != (1, side, side):
            raise DataError(
                f"mask_input must be (K, 1, {side}, {side}) logits, got {tuple(masks.shape)}"
            )
        return masks.float() if masks is not None else None

    def _positions(self, level: Tensor) -> Tensor:
        """Return the positions of the grid, (1, D, h, w)."""
        height, width = level.shape[-2:]
        rows = (
            torch.arange(height, device=level.device, dtype=torch.float32) + 0.5
        ) / height
        columns = (
            torch.arange(width, device=level.device, dtype=torch.float32) + 0.5
        ) / width
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        with torch.autocast(level.device.type, enabled=False):
            # (h, w, D)
            positions: Tensor = self.shared_image_embedding(torch.stack([x, y], -1))
        return positions.permute(2, 0, 1)[None]


class Sam2Decoder(ClickDecoder):
    """The decoder of SAM 2 and SAM 3, which also reads two finer levels.

    In evaluation mode, if the config says so, an unstable single mask is replaced by the best of the three, as in the
    library.
    """

    def _predict(
        self, embedding: ImageEmbedding, image: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        decoder = cast(Any, self.mask_decoder)
        finest, finer, level = embedding.levels
        skips = (decoder.conv_s0(finest)[image], decoder.conv_s1(finer)[image])
        masks, iou = all_masks(
            decoder, level[image] + dense, self._positions(level), sparse, skips
        )
        if decoder.dynamic_multimask_via_stability and not self.training:
            return stabilized(
                masks,
                iou,
                decoder.dynamic_multimask_stability_delta,
                decoder.dynamic_multimask_stability_thresh,
            )
        return masks, iou

    def _no_points(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return one padding point, as in the library."""
        return points.new_zeros(points.shape[0], 1, 2), labels.new_full(
            (points.shape[0], 1), -1
        )


def all_masks(
    decoder: nn.Module,
    image: Tensor,
    positions: Tensor,
    sparse: Tensor,
    skips: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Run a mask decoder for K prompts, and return all its masks.

    Args:
        decoder: a mask decoder of SAM, SAM 2 or SAM 3.
        image: (K, D, h, w), sum of image and mask embeddings.
        positions: (1, D, h, w), positions of the grid.
        sparse: (K, tokens, D) embeddings of points and boxes.
        skips: (K, D/8, 4h, 4w) and (K, D/4, 2h, 2w), added while upscaling; none for SAM.

    Returns:
        logits (K, 4, 4h, 4w), the single mask first, and iou (K, 4).
    """
    parts = cast(Any, decoder)
    first = [parts.obj_score_token.weight] if skips else []
    # (T, D)
    own = torch.cat([*first, parts.iou_token.weight, parts.mask_tokens.weight])
    # (K, 1, T + tokens, D)
    tokens = torch.cat([own.expand(sparse.shape[0], -1, -1), sparse.to(own.dtype)], 1)[
        :, None
    ]
    queries, keys = parts.transformer(
        point_embeddings=tokens,
        image_embeddings=image,
        image_positional_embeddings=positions.expand(sparse.shape[0], -1, -1, -1),
        attention_similarity=None,
        target_embedding=None,
    )
    queries = queries[:, 0, len(first) :]  # IoU token, mask tokens, prompts
    # (K, D/4, 2h, 2w)
    fine = parts.upscale_conv1(keys[:, 0].transpose(1, 2).reshape(image.shape))
    fine = parts.activation(
        parts.upscale_layer_norm(fine + skips[1] if skips else fine)
    )
    fine = parts.upscale_conv2(fine)  # (K, D/8, 4h, 4w)
    fine = parts.activation(fine + skips[0] if skips else fine)
    filters = [
        mlp(queries[:, 1 + number])
        for number, mlp in enumerate(parts.output_hypernetworks_mlps)
    ]
    logits = torch.einsum("kmd,kdhw->kmhw", torch.stack(filters, 1), fine)
    return logits, parts.iou_prediction_head(queries[:, 0])


def stabilized(
    logits: Tensor, iou: Tensor, delta: float, threshold: float
) -> tuple[Tensor, Tensor]:
    """Replace an unstable single mask by the alternative with the best predicted IoU (SAM 2, arXiv 2408.00714).

    A mask is stable if its area above `delta` is at least `threshold` times that above `-delta`.

    Args:
        logits: (K, 4, h, w), the single mask first.
        iou: (K, 4).
        delta: offset of the logit threshold.
        threshold: least ratio of the two areas.

    Returns:
        logits and iou of the same shapes.
    """
    single = logits[:, 0].flatten(1)
    outer = (single > -delta).sum(1)
    # (K,)
    stable = (
        torch.where(outer > 0, (single > delta).sum(1) / outer.clamp(min=1), 1.0)
        >= threshold
    )
    chosen = torch.where(stable, 0, iou[:, 1:].argmax(1) + 1)
    rows = torch.arange(logits.shape[0], device=logits.device)
    return (
        torch.cat([logits[rows, chosen][:, None], logits[:, 1:]], 1),
        torch.cat([iou[rows, chosen][:, None], iou[:, 1:]], 1),
    )
