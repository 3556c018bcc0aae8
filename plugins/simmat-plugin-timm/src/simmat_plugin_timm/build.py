"""Build a model of timm: network, pyramid, decoder."""

from __future__ import annotations

from pathlib import Path

from simmat_plugin_sam.pyramid import PromptableModel

from simmat.plugin_specs import FoundationSpec
from simmat_plugin_timm.architectures import known_architecture
from simmat_plugin_timm.body import TimmBody
from simmat_plugin_timm.network import loaded_network, random_network


def build_timm(spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int) -> PromptableModel:
    """Build a model of timm; see `simmat.plugin_specs.build_foundation`.

    The weights are those of timm's network; pyramid and decoder are always random from the seed.

    Raises:
        SpecError: the model is not supported.
        WeightsError: the file is damaged or belongs to another model.
    """
    options = dict(spec.options)
    model, model_args = options.pop("model"), options.pop("model_args")
    architecture = known_architecture(model)
    if weights is None:
        network = random_network(model, image_size, seed, **model_args)
    else:
        network = loaded_network(model, image_size, weights, **model_args)
    body = TimmBody(network, architecture)
    return PromptableModel(spec.name, body, image_size=image_size, seed=seed, **options).eval()
