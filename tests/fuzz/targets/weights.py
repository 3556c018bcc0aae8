"""Weight files of others: checkpoints of SAM, and models as `transformers` writes them."""

from __future__ import annotations

import json
import random

from simmat_plugin_sam.checkpoint import check_variant, read_checkpoint

from fuzz.case import Case, Place, Target, registry
from fuzz.damage import (
    mutate_bytes,
    mutate_file,
    mutate_tree,
    strange,
    to_json,
)
from simmat.assemble import build_foundation, check_image_size

_LARGEST_SIZE = 256
"""Of a model that is built; a larger one that its config asks for is allowed and takes long."""


def _checkpoint(place: Place, rng: random.Random) -> Case:
    seed = rng.choice(place.seeds.files("checkpoints"))
    named = rng.random() < 0.5  # no seed is large enough for any variant of SAM
    path = place.put(seed.name, mutate_file(seed, rng))

    def read() -> None:
        state = read_checkpoint(path)
        assert all(isinstance(name, str) for name in state), "a name that is no text"
        if named:
            check_variant(state, registry().foundation("sam_vit_b"), path)

    return Case(read)


def _hf_model(place: Place, rng: random.Random) -> Case:
    seed = place.seeds.folder("hf")
    # The name is part of what is asked for, and what was found is kept by name within a process.
    folder = place.files / f"model-{rng.getrandbits(60):x}"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(seed / "model.safetensors")
    content = (seed / "config.json").read_bytes()
    damaged = (
        to_json(mutate_tree(json.loads(content), rng))
        if rng.random() < 0.8
        else mutate_bytes(content, rng)
    )
    (folder / "config.json").write_bytes(damaged)
    if rng.random() < 0.2:
        settings = {
            "image_mean": strange(rng),
            "image_std": strange(rng),
            "size": strange(rng),
        }
        (folder / "preprocessor_config.json").write_bytes(to_json(settings))

    def read() -> None:
        spec = registry().foundation(f"hf/{folder}")
        check_image_size(spec, spec.image_size)
        if spec.image_size <= _LARGEST_SIZE:
            weights = spec.weights.path if spec.weights is not None else None
            build_foundation(spec, image_size=spec.image_size, weights=weights, seed=0)

    return Case(read)


TARGETS = (
    Target("checkpoint", _checkpoint),
    Target(
        "hf-config",
        _hf_model,
        needs=("simmat_plugin_transformers", "transformers"),
        weight=6,
    ),
)
