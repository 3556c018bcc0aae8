"""What plugins offer, as data: foundation models and families, transfer layers, tuners, formats of models and results.

Specs need no torch; the modules they describe are built on demand. Tensors: B images, S the side of the square input in
pixels. Each spec states the `api_version` that it is written for; any other than SimMAT's own is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    pass


API_VERSION = 4
"""Version of the plugin interface; a change that breaks plugins increases it."""


RECOMMENDED_SETTINGS = (
    "batch_size",
    "box_fraction",
    "correction_clicks",
    "precision",
    "prompts_per_image",
)
"""Settings of a training that a foundation model may recommend, besides those that its spec has fields for."""

Output = Literal["image", "features", "image+features"]


@dataclass(frozen=True, slots=True)
class TransferLayerSpec:
    """A transfer layer (MAT) as data.

    Attributes:
        name: what `--mat` takes.
        description: one line.
        build: "package.module:function"; called as
            `function(channels=, zero_shot=, backbone=, generator=, **options) -> nn.Module` where `channels` is
            a tuple of C Channel, `zero_shot` a (3, C) float32 tensor (see simmat.sensors.normalize.zero_shot_map),
            `backbone` the model's Backbone (to copy its `first_layer` from), `generator` a torch.Generator
            for all random weights. Planes are 0 where they are invalid or padding.
        output: "image": the module maps (B, C, S, S) -> (B, 3, S, S), which `backbone.embed` gets with its padding
            set to 0;
            "features": called with planes and content, (B, S, S) bool, False in padding, the module returns features
            in place of those of `backbone.embed`; in padding they are the embedding of zeros;
            "image+features": called with both, the module returns an image as above and features to add to its
            embedding.
        options: option -> default; None if it may be of any type.
        supports_missing_channels: True if the module also works without a channel that it was trained with, whose
            plane is then 0 everywhere; `simmat predict --missing` needs it.
    """

    name: str
    description: str
    build: str
    output: Output = "image"
    options: Mapping[str, Any] = field(default_factory=dict)
    supports_missing_channels: bool = False
    api_version: int = API_VERSION


@dataclass(frozen=True, slots=True)
class TunerSpec:
    """A way to tune a foundation model, as data.

    Attributes:
        name: what `--tune` takes.
        description: one line.
        apply: "package.module:function"; called as `function(model, targets=, generator=, **options) -> None`.
            It gets a model whose parameters are all frozen, replaces or adds modules, and sets `requires_grad` on
            what is trained. At step 0 the model must predict as before, unless the method's definition forbids it.
        options: option -> default; None if it may be of any type.
        learning_rate: peak learning rate for AdamW, if the user gives none.
    """

    name: str
    description: str
    apply: str
    options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 3e-4
    api_version: int = API_VERSION


@dataclass(frozen=True, slots=True)
class LossSpec:
    """What a training minimises, as data.

    Attributes:
        name: what `--loss` takes.
        description: one line.
        build: "package.module:function"; called as `function(data)` with the folder of the data set, returns a
            `simmat.nn.losses.Loss`.
    """

    name: str
    description: str
    build: str
    api_version: int = API_VERSION


MetricResult = Literal["mask", "objects", "classes"]
"""What a metric scores: the mask of one object for its first click, the objects found without prompts, class maps."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A figure of `simmat eval`, of validations, reports and model cards, as data.

    Attributes:
        name: its key in the scores: words joined by "_".
        description: the title of its row, such as "boundary IoU".
        compute: "package.module:function", which returns a number, or None if there is none. Called

            - for "mask" as `function(mask, truth, scored)` with an `Instance`, or None for an empty mask, the true
              `Instance` and the (H, W) bool pixels of the image that count; the figure is the mean over objects. Only
              protocols that compare masks at the size of the image have it.
            - for "objects" as `function(images)` with the `ImageMatches` of each image.
            - for "classes" as `function(confusion)` with a Counter, (true, found) label value -> pixels.
        result: what it scores.
    """

    name: str
    description: str
    compute: str
    result: MetricResult = "mask"
    api_version: int = API_VERSION


ResultKind = Literal["prompts", "objects", "classes", "sequences"]
"""What a result holds: the object of one prompt, the objects of an image, the class of every pixel, or the objects that
were followed through the frames of a sequence."""


@dataclass(frozen=True, slots=True)
class ResultFormat:
    """A file format of what SimMAT finds, as data.

    Attributes:
        name: what `--format` takes. Formats of sequences have a hook, and names, of their own.
        description: one line.
        write: "package.module:function"; called as `function(result, folder)`, writes a file to the folder and returns
            its name. The result is a `simmat.inference.PromptResult` of a prompt, a `simmat.inference.ImageResult` of
            objects or classes, and of a sequence what `simmat follow` documents.
        endings: what the file's name may have after `result.name`; "{kind}" stands for objects or classes.
        kinds: what it can hold.
        auto: where it is written if the user names no format, or `--format auto`: "prompts", "objects", "classes", or
            "georeferenced prompts" and so on. Those for "classes" are also written for the prompts of a large image, in
            one file for all prompts. For sequences: "sequences", and "stacks" for those in one file that holds an
            array.
        replaces: name of the format that auto leaves out if it writes this one.
        needs_georeference: whether an image must have a georeference.
        check: "package.module:function"; called before any work as `function(image)` with `origin`, `size_hw` and
            `georeference` of an image, raises DataError if the format cannot hold it.
        one_file: True for one file for all images of a call, with the first of `endings` as its name. `write` is called
            at the end as `function(images, class_names, file)` with (name, json of the image) of each; it returns how
            many images it wrote. The file says "simmat predict" in its first 1000 bytes, so that a later call knows it.
    """

    name: str
    description: str
    write: str
    endings: tuple[str, ...]
    kinds: tuple[ResultKind, ...] = ("objects", "classes")
    auto: tuple[str, ...] = ()
    replaces: str = ""
    needs_georeference: bool = False
    check: str = ""
    one_file: bool = False
    api_version: int = API_VERSION


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A part that is one function; its hook says how it is called and what it returns.

    Attributes:
        name: lower case letters, digits and hyphens.
        description: one line.
        function: "package.module:function"; for a reader of maps, the module.
    """

    name: str
    description: str
    function: str
    api_version: int = API_VERSION


@dataclass(frozen=True, slots=True)
class TuningTargets:
    """Where tuners find a model's layers: regular expressions that match whole module names.

    Names start with "backbone." or "decoder.". A field is empty if the model has no such layer; a tuner that needs it
    then refuses the model.

    Attributes:
        lora: linear or 1x1 conv layer -> which equal slices of its output LoRA changes, and their number:
            `r"backbone[.]blocks[.][0-9]+[.]qkv": ((0, 2), 3)` for q and v of a fused qkv, ((0,), 1) for all.
        spatial_layers: layers of `lora` whose input has height and width, for Conv-LoRA: Linear on
            (B, H, W, D), or 1x1 conv on (B, D, H, W).
        adapters: residual MLP or block that gets a parallel adapter -> name of the norm before it in the same parent,
            "" for none; the adapter gets the input of that norm. The first Linear (on (…, D)) or Conv2d (on
            (B, D, H, W)) in the module gives D; the output has the shape of the input.
        attention: attention modules, for prompt and prefix tuning, see `TunableAttention`.
        embed: parameter names that the `linear` tuner trains: the first layer and position embeddings.
        frozen: parameter names that no tuner trains (SAM's prompt encoder).
        newly_initialized: parameter names without pretrained weights (a pyramid and decoder added to a bare backbone).
            Every tuner trains them, even the tuner `frozen`, since untrained they give noise.
    """

    lora: Mapping[str, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    spatial_layers: tuple[str, ...] = ()
    adapters: Mapping[str, str] = field(default_factory=dict)
    attention: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    newly_initialized: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A weight file: its source and its digest.

    Attributes:
        filename: name in the cache.
        sha256: hex digest of the file; "" if its publisher may change it, as on a hub; required with a url.
            Bundles always keep the digest of the file they were trained with.
        size_bytes: size, for progress and disk checks; 0 if unknown.
        url: download address; "" if `path` or `hub` is given.
        path: path in an installed package; None if it is downloaded.
        licence: SPDX id, or the words of the source.
        hub: repository on the Hugging Face Hub ("timm/vit_small_patch14_dinov2.lvd142m"), which the Hub's client
            downloads to the Hub's own cache.
        alternatives: other file names in that repository, tried if it has no `filename`.
    """

    filename: str
    sha256: str
    size_bytes: int = 0
    url: str = ""
    path: Path | None = None
    licence: str = ""
    hub: str = ""
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundationSpec:
    """A foundation model as data.

    Attributes:
        name: what `--foundation` takes.
        description: one line for `simmat foundations list`.
        build: "package.module:function"; called as `function(spec, image_size=, weights=, seed=)`,
            see `build_foundation`.
        image_size: square input size S in pixels, if the user gives none.
        size_multiple: S must be a multiple of this.
        pixel_mean: mean of R, G, B on the 0..255 scale.
        pixel_std: standard deviation of R, G, B on the same scale.
        targets: where tuners find its layers.
        weights: weight file; None for a model with random weights. One without path, url and hub must be given
            by the user.
        promptable: whether its decoder was trained; without training, there is no zero-shot score.
        dense_head: whether its embedding says what is in an image, so that `--heads auto` may train a dense head on it.
        licence: licence of code and weights.
        options: further plain values for the builder.
        learning_rates: name of a tuner -> peak learning rate for pretrained weights, if the user gives none; the
            tuner's own rate suits SAM.
        mat: the transfer layer, with `mat_options`, if the user names none.
        tune: the tuner, if the user names none.
        training: further settings of `simmat train` that suit the model, name -> value; used where the user sets none,
            see `RECOMMENDED_SETTINGS`.
        parameters: number of weights; 0 if unknown.
        zero_shot_rgb: mean IoU of one click on the val split of `rgb-regions`, docs/transfer.md, untuned at
            `image_size`; None if it was not measured.
    """

    name: str
    description: str
    build: str
    image_size: int
    size_multiple: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    targets: TuningTargets = TuningTargets()
    weights: WeightFile | None = None
    promptable: bool = True
    dense_head: bool = True
    licence: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    mat: str = "mat-residual"
    mat_options: Mapping[str, Any] = field(default_factory=dict)
    tune: str = "lora"
    training: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    zero_shot_rgb: float | None = None
    api_version: int = API_VERSION


@dataclass(frozen=True, slots=True)
class FoundationFamily:
    """A namespace of foundation models as data.

    A name must give the same spec on every machine, since a bundle stores only the name. If a name is a path on this
    machine, users of the bundle on another machine give their own path (`load_bundle`).

    Attributes:
        name: the part before the slash: `--foundation NAME/MODEL`.
        description: one line for `simmat foundations list`.
        models: "package.module:function"; called as `function()`, returns model name -> one line about it, for lists
            and suggestions; a family may accept further names.
        spec: "package.module:function"; called as `function(model)` with the part after the slash; returns the
            `FoundationSpec` named `NAME/MODEL`, or None if there is no such model.
        local_spec: the same without asking any server, for a name in a bundle, which a stranger may have written; empty
            if `spec` asks none.
    """

    name: str
    description: str
    models: str
    spec: str
    api_version: int = API_VERSION
    local_spec: str = ""
