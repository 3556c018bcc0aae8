"""Well-known models of the supported families, for lists and suggestions; any other repository works, too."""

from __future__ import annotations

PUBLISHED: dict[str, str] = {
    **{f"facebook/sam-vit-{size}": f"Segment Anything, ViT-{size[0].upper()}" for size in ("base", "large", "huge")},
    "syscv-community/sam-hq-vit-base": "SAM-HQ, ViT-B; see the README of simmat-plugin-transformers on its masks",
    **{
        f"facebook/sam2.1-hiera-{size}": f"SAM 2.1, Hiera {size}; for single images"
        for size in ("tiny", "small", "base-plus", "large")
    },
    "facebook/sam3": "SAM 3; the tracker for single images, which takes clicks",
    **{f"facebook/dino-vit{size}{patch}": f"DINO, ViT-{size.upper()}/{patch}" for size in "sb" for patch in (16, 8)},
    **{f"facebook/dinov2-{size}": f"DINOv2, ViT {size}" for size in ("small", "base", "large", "giant")},
    **{
        f"facebook/dinov2-with-registers-{size}": f"DINOv2 with registers, ViT {size}"
        for size in ("small", "base", "large", "giant")
    },
    **{f"facebook/dinov3-vit{size}16-pretrain-lvd1689m": f"DINOv3, ViT-{size.upper()}/16" for size in ("s", "b", "l")},
}
"""Repository -> one line about it."""
