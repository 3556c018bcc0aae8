"""The promptable models of transformers as foundation models, `hf/NAME`. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugin_specs import FoundationFamily
from simmat.plugins.hooks import hookimpl


@hookimpl
def simmat_foundation_families() -> Iterable[FoundationFamily]:
    """Return the family `hf/NAME`."""
    return (
        FoundationFamily(
            name="hf",
            description="SAM, SAM 2 and SAM 3 of transformers, from the Hugging Face Hub or a folder",
            models="simmat_plugin_transformers.specs:models",
            spec="simmat_plugin_transformers.specs:spec",
            local_spec="simmat_plugin_transformers.specs:local_spec",
        ),
    )
