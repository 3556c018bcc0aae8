"""A model of timm put together: network, pyramid, decoder."""

from __future__ import annotations

from pathlib import Path

from simmat.errors import SpecError
from simmat.nn.pyramid import PromptableModel
from simmat.specs import FoundationSpec
from simmat_plugin_timm.architectures import architecture_of
from simmat_plugin_timm.attention import open_to_memory
from simmat_plugin_timm.body import TimmBody
from simmat_plugin_timm.network import loaded_network, random_network


def build_timm(spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int) -> PromptableModel:
    """Build a model of timm; see `simmat.specs.build_foundation`.

    Weights fill the network of timm alone; pyramid and decoder are random from the seed in any case.

    Raises:
        WeightsError: the file is damaged or of another model.
    """
    options = dict(spec.options)
    model, model_args = options.pop("model"), options.pop("model_args")
    architecture = architecture_of(model)
    if architecture is None:
        raise SpecError(f"{spec.name} is none of the models that are taken here")
    if weights is None:
        network = random_network(model, image_size, seed, **model_args)
    else:
        network = loaded_network(model, image_size, weights, **model_args)
    open_to_memory(network)
    body = TimmBody(network, architecture)
    return PromptableModel(spec.name, body, image_size=image_size, seed=seed, **options).eval()
