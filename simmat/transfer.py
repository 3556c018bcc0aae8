"""What brings a foundation model to a sensor, as data: a transfer layer before it, a tuner within it.

Specs are read without torch; the modules behind them are built on demand. Tensors: B images, S the square input size in
pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from simmat.api_version import API_VERSION

Output = Literal["image", "features", "image+features"]


@dataclass(frozen=True, slots=True)
class TransferLayerSpec:
    """A transfer layer (MAT) as data.

    Attributes:
        name: what `--mat` takes.
        description: one line.
        build: "package.module:function"; called as
            `function(channels=, zero_shot=, backbone=, generator=, **options) -> nn.Module` where `channels` is
            a tuple of C Channel, `zero_shot` a (3, C) float32 tensor (see simmat.normalize.zero_shot_map),
            `backbone` the model's Backbone (to copy its `first_layer` from), `generator` a torch.Generator
            for every random weight. Planes are 0 where they are invalid or padding.
        output: "image": the module maps (B, C, S, S) -> (B, 3, S, S), which goes to `backbone.embed` with its
            padding set to 0;
            "features": called with planes and content, (B, S, S) bool, False where there is only padding, it gives
            what `backbone.embed` would; over padding that is the embedding of zeros;
            "image+features": called with both, it gives an image as above and features that are added to its
            embedding.
        options: option -> default; None where it may be of any type.
        takes_missing: True where it answers as well as can be without a channel it was trained with, whose plane is 0
            everywhere: `simmat predict --missing` asks for it.
        api_version: of the plugin interface it is written for; another than SimMAT's own is refused by name.
    """

    name: str
    description: str
    build: str
    output: Output = "image"
    options: Mapping[str, Any] = field(default_factory=dict)
    takes_missing: bool = False
    api_version: int = API_VERSION


@dataclass(frozen=True, slots=True)
class TunerSpec:
    """A way to tune a foundation model, as data.

    Attributes:
        name: what `--tune` takes.
        description: one line.
        apply: "package.module:function"; called as `function(model, targets=, generator=, **options) -> None`.
            It gets a model whose parameters are all frozen, swaps or adds modules, and sets `requires_grad` on
            what shall move. At step 0 the model must answer as before unless the method's definition forbids it.
        options: option -> default; None where it may be of any type.
        learning_rate: a good peak learning rate for AdamW, used where the user gives none.
        api_version: of the plugin interface it is written for; another than SimMAT's own is refused by name.
    """

    name: str
    description: str
    apply: str
    options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 3e-4
    api_version: int = API_VERSION
