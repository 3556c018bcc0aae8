"""Every transfer layer, tuner and family that exports is equal to torch; the export itself compares them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from bundles import METRICS, SPEC
from installed import need_plugins
from simmat_plugin_baselines import TUNERS as OTHER_TUNERS
from simmat_plugin_export.export import TOLERANCE, export
from simmat_plugin_export.joining import KINDS, Kinds

from simmat.assemble import assemble, find_parts
from simmat.bundle import load_bundle, trained_tensors, write_bundle
from simmat.errors import ConfigError
from simmat.model_spec import DenseSpec
from simmat.plugins.builtin import TRANSFER_LAYERS
from simmat.plugins.builtin import TUNERS as BUILTIN_TUNERS
from simmat.plugins.loader import load_plugins

TUNERS = (*BUILTIN_TUNERS, *OTHER_TUNERS)
CLICKS = ((True, False, False),)
FOUNDATIONS = ("sam_vit_tiny", "lite", "tiny", "timm/vit_tiny_patch16_224")
# of three channels alone
LAYERS = [layer.name for layer in TRANSFER_LAYERS if layer.name != "identity"]
CASES = [
    *product(FOUNDATIONS, LAYERS, ["frozen"]),
    *product(
        FOUNDATIONS,
        ["mat-residual"],
        [tuner.name for tuner in TUNERS if tuner.name != "frozen"],
    ),
]


def difference(
    folder: Path,
    foundation: str,
    mat: str,
    tune: str,
    *,
    kinds: Kinds = CLICKS,
    dense: bool = False,
) -> float:
    """Export a model whose trained weights are not those of the start, and return how far it is from torch."""
    need_plugins("lite", "timm")
    registry = load_plugins()
    head = DenseSpec(background=True, classes=(None,)) if dense else None
    changes = {
        "foundation": foundation,
        "mat": mat,
        "tune": tune,
        "mat_options": {},
        "dense": head,
    }
    spec = SPEC.model_copy(update=changes)
    try:
        model = assemble(spec, find_parts(spec, registry, None))
    except ConfigError as error:  # the tuner does not know this model
        pytest.skip(str(error))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    write_bundle(folder / "bundle.safetensors", spec, trained_tensors(model), METRICS)
    return export(
        load_bundle(folder / "bundle.safetensors", registry),
        folder / "out",
        kinds=kinds,
    ).difference


@pytest.mark.slow
@pytest.mark.parametrize(("foundation", "mat", "tune"), CASES)
def test_all_that_can_be_trained_can_be_exported(
    tmp_path: Path, foundation: str, mat: str, tune: str
) -> None:
    """Whoever has trained for days must not find out then that the choice of a tuner was wrong."""
    assert difference(tmp_path, foundation, mat, tune) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("foundation", FOUNDATIONS)
def test_every_kind_of_prompt_is_equal_to_torch(
    tmp_path: Path, foundation: str
) -> None:
    """Points, boxes and masks, in every combination, are graphs of their own."""
    assert (
        difference(
            tmp_path, foundation, "mat-residual", "lora", kinds=KINDS, dense=True
        )
        < TOLERANCE
    )
