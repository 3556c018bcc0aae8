"""What a training writes, and weight files of others: all of tiny models."""

from __future__ import annotations

import json
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.damage import CODE


def make_bundle(folder: Path) -> None:
    """A run's folder `tuned` with a bundle of LoRA."""
    from bundles import tiny_bundle

    tiny_bundle(folder / "tuned", tune="lora", tune_options={"rank": 2})


def make_run(folder: Path) -> None:
    """The state and the log of a run of two steps."""
    from runs import config, gray_set, registry

    from simmat import training

    with tempfile.TemporaryDirectory() as name:
        data, out = (
            gray_set(Path(name) / "set", train=2, val=1, test=0),
            Path(name) / "run",
        )
        settings = {
            "mat": "mat",
            "tune": "frozen",
            "mat_options": {"width": 4},
            "steps": 2,
            "val_every": 1,
        }
        training.train(config(data, out, **settings, pictures=False), registry())
        for file in ("last.safetensors", "metrics.jsonl"):
            shutil.copy(out / file, folder)


def make_checkpoints(folder: Path) -> None:
    """State dicts as torch and safetensors write them, and two pickles that would run a command."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    state = {
        "image_encoder.patch_embed.proj.weight": torch.randn(
            8, 3, 4, 4, generator=generator
        ),
        "image_encoder.pos_embed": torch.randn(1, 4, 4, 8, generator=generator),
        "image_encoder.blocks.0.x": torch.randn(2, generator=generator),
        "a": torch.arange(10),
        "b": torch.randn(3, generator=generator).half(),
    }
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "state.safetensors")
    torch.save({**state, "code": _Hostile()}, folder / "hostile_zip.pth")
    (folder / "hostile.pth").write_bytes(pickle.dumps(_Hostile(), protocol=2))


class _Hostile:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> Any:
        import os

        return os.system, (CODE,)


def make_hf(folder: Path) -> None:
    """A tiny SAM as `transformers` writes it."""
    import torch
    from transformers import SamConfig, SamModel

    wide = {"hidden_size": 16, "image_size": 64, "patch_size": 16}
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "output_channels": 16,
        "mlp_dim": 32,
    }
    config = SamConfig(
        vision_config={
            **wide,
            **vision,
            "global_attn_indexes": [1],
            "window_size": 2,
            "num_pos_feats": 8,
        },
        prompt_encoder_config={**wide, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        SamModel(config).save_pretrained(folder)
    values = np.full(3, 0.5).tolist()
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_mean": values, "image_std": values, "size": {"longest_edge": 64}}
        )
    )
