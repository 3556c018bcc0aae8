"""The functions of `import simmat`: load, train, evaluate, open a data set, list what is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.assemble import Parts, check_image_size
from simmat.bundle import load_bundle
from simmat.config import load_config
from simmat.data.card import card_of_files
from simmat.errors import ConfigError, did_you_mean
from simmat.io.files import check_writable
from simmat.io.weights import check_digest, find_weights, sha256_of
from simmat.nn.device import join_processes, pick_device
from simmat.plugins.loader import installed
from simmat.plugins.registry import Modality, Registry
from simmat.predictor import Predictor, ZeroShotPredictor
from simmat.sensors.adapter import with_data_card
from simmat.sensors.channel_selection import parse_channels

if TYPE_CHECKING:
    from simmat.callbacks import Callback
    from simmat.data.dataset import Dataset
    from simmat.documents import StrictModel
    from simmat.evaluation.report import ScoreReport
    from simmat.evaluation.scores import Scores
    from simmat.inference import ImageOutcome, Progress
    from simmat.nn.losses import Loss, MaskLoss


def load(
    source: str | Path | None = None,
    *,
    foundation: str | None = None,
    modality: Modality | None = None,
    modality_options: Mapping[str, Any] | None = None,
    channels: str | Sequence[str | int] | None = None,
    checkpoint: str | Path | None = None,
    image_size: int | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    registry: Registry | None = None,
) -> Predictor:
    """Load a tuned model, or an untuned foundation model for a sensor.

    Args:
        source: the folder of a run, its bundle.safetensors, the folder of an exported model, or what a plugin fetches,
            such as hf://ORG/NAME; None for an untuned model.
            If a bundle holds several sensors, append the name of one: RUN/SENSOR, hf://ORG/NAME/SENSOR.
        foundation: the untuned model; with `source`, the name of the bundle's foundation model on this machine.
        modality: the sensor of the untuned model: a name, an adapter, or its class. With `source`, a sensor of the
            bundle that is not installed, such as one defined in a notebook.
        modality_options: options of the sensor: {"unit": "cK"}; composition: {"thermal.unit": "cK"}. With `source`,
            options of the new files, instead of the training's.
        channels: channels of the untuned model's sensor, as `--channels` takes them; None for all.
        checkpoint: the foundation model's weight file; None looks in the cache and the packages.
        image_size: side of the untuned model's input in pixels; None takes the model's own.
        data: a data set whose card states what the untuned model's files mean: alignment of sources, nodata, options of
            the sensor. With `source`, its alignment replaces that of the training.
        device: auto, cpu, cuda, cuda:N or mps.
        registry: what is installed; None loads the plugins.

    Raises:
        SpecError: the adapter or class of a sensor is invalid, such as a name with spaces.
        SimMATError: names, files or weights are wrong, or arguments are missing or exclude each other.
    """
    known, name = (registry or installed()).with_modality(modality)
    place = pick_device(device)
    weights = Path(checkpoint) if checkpoint is not None else None
    card = None if data is None else card_of_files(Path(data))
    if source is not None:
        if (channels, image_size) != (None, None):
            raise ConfigError(
                "channels and image_size (--channels, --image-size) are for an untuned model; a bundle has its own"
            )
        bundle = load_bundle(
            Path(source).expanduser(),
            known,
            foundation=foundation,
            checkpoint=weights,
            modality_options=modality_options,
            alignment=None if card is None else card.alignment,
            device=place,
        )
        bundle.check_device(device)
        return Predictor.of_bundle(bundle)
    if foundation is None or name is None:
        raise ConfigError(
            "give a BUNDLE (source), or for an untuned model both --foundation NAME and "
            "--modality NAME"
        )
    spec = known.foundation(foundation, fetch=True)
    file = find_weights(spec, weights)
    if file is None or not spec.promptable:
        raise ConfigError(
            f"foundation model {foundation!r} cannot be used untuned, because its weights or its decoder are random; "
            "train it first"
        )
    if weights is None:
        check_digest(spec, file, sha256_of(file))
    selected = parse_channels(channels) if isinstance(channels, str) else channels
    parts = Parts(spec, known.transfer_layer("zeroshot"), known.tuner("frozen"), file)
    size = image_size or spec.image_size
    check_image_size(spec, size)
    sensor = known.modality(name, modality_options, channels=selected)
    if card is not None:
        sensor = with_data_card(sensor, card.model_dump())
    return ZeroShotPredictor(parts, sensor, size, place, card)


def train(
    *,
    modality: Modality,
    data: str | Path | Dataset,
    out: str | Path,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    loss: Loss | MaskLoss | str | None = None,
    registry: Registry | None = None,
    **settings: Any,
) -> Path:
    """Train a transfer layer and tune a foundation model.

    Args:
        modality: the sensor: a name, an adapter, or its class.
        data: folder of the data set, or a data set.
        out: the run's folder; `load` takes it.
        progress: show a progress bar.
        callbacks: called at every step and validation, see `simmat.Callback`; an error that they raise ends the
            training.
        loss: a loss in place of SimMAT's: a `MaskLoss` or `Loss` of `simmat.nn.losses`, or the name of an installed
            one.
        registry: what is installed; None loads the plugins.
        settings: settings of `simmat train`, with underscores: steps=80, tune="lora", mat_options={"width": 32}, …

    Returns:
        The run's folder.

    Raises:
        TypeError: a setting is unknown, or `data` is neither a folder nor a data set.
        SimMATError: settings, data, weights or the output folder are wrong.
    """
    from simmat.callbacks import Callback, Callbacks, ConsoleCallback
    from simmat.config import CARD_FIELDS, TrainConfig
    from simmat.training import train as run_training

    settings = _known_keywords("train", TrainConfig, settings)
    wrong = [one for one in callbacks if not isinstance(one, Callback)]
    if wrong:
        raise TypeError(
            f"callbacks must be instances of simmat.Callback, got {wrong[0]!r}"
        )
    known, name = (registry or installed()).with_modality(modality)
    if isinstance(loss, str):
        settings = {**settings, "loss": loss}
        loss = None
    folder, card = _folder(data)
    card = {key: value for key, value in card.items() if key in CARD_FIELDS}
    config = load_config(
        None, {**card, "modality": name, "data": folder, "out": Path(out), **settings}
    )
    with ConsoleCallback() if progress else nullcontext(Callback()) as console:
        run_training(config, known, Callbacks((console, *callbacks)), loss=loss)
    return config.out


def evaluate(
    model: str | Path | Predictor,
    data: str | Path | Dataset,
    *,
    modality: Modality | None = None,
    split: str = "test",
    protocol: str = "one-click",
    zero_shot: bool | None = None,
    everything: bool = False,
    semantic: bool = False,
    device: str = "auto",
    registry: Registry | None = None,
    **card: Any,
) -> ScoreReport:
    """Score a bundle and its untuned foundation model, or only an untuned model, on a split of a data set.

    Args:
        model: what `load` takes or returned.
        data: folder of the data set, or a data set.
        modality: a sensor of the bundle that is not installed, as `load` takes it.
        split: "train", "val" or "test".
        protocol: name of an evaluation protocol.
        zero_shot: whether to score the untuned model, too, if it can be used: False does not, None scores it with
            prompts, and True also finds `everything` with it, by a grid of clicks, which takes long.
        everything: find and score every object without prompts, too.
        semantic: score the class of every pixel, too; the model needs a dense head.
        device: for a model that is not loaded yet.
        registry: what is installed; None loads the plugins.
        card: fields that override the data card: regions="instances", min_region=30, …

    Returns:
        What `simmat eval --json` prints: "tuned" and "zero_shot" hold the averages, or None. `objects` has a row for
        each object.

    Raises:
        ConfigError: the protocol is unknown, or `semantic` is asked of a model without a dense head.
        DataError: the data set cannot be read, or has no region to score.
    """
    from simmat.data.dataset import open_dataset as open_dataset_of
    from simmat.evaluation import EvalRequest, evaluate_bundle, find_protocol
    from simmat.evaluation import evaluate as evaluate_samples
    from simmat.evaluation.report import score_report

    known = registry or installed()
    if not isinstance(model, Predictor):
        model = load(model, modality=modality, device=device, registry=known)
    root, stated = _folder(data)
    card = {**stated, **card}
    found = find_protocol(protocol)
    tuned: Scores | None
    untuned: Scores | None
    if model.bundle is None:
        dataset = open_dataset_of(root, model.adapter, card)
        samples = dataset.split(split)
        tuned = None
        untuned = evaluate_samples(
            model,
            dataset,
            samples,
            request=EvalRequest(
                protocol=found, everything=everything, semantic=semantic
            ),
            registry=known,
        )
    else:
        tuned, untuned = evaluate_bundle(
            model.bundle,
            root,
            split,
            overrides=card,
            zero_shot=zero_shot,
            registry=known,
            request=EvalRequest(
                protocol=found, everything=everything, semantic=semantic
            ),
        )
    return score_report(model, root, split, found, tuned, untuned)


def predict(
    model: str | Path | Predictor | None,
    files: str | Path | Sequence[str | Path] | Mapping[str, str | Path] = (),
    *,
    out: str | Path,
    progress: Progress | None = None,
    registry: Registry | None = None,
    **options: Any,
) -> list[ImageOutcome]:
    """Segment files and folders as `simmat predict` does, and write the results.

    To get results without files, also of arrays, see `Predictor.open_images`.
    Images that an earlier call finished are skipped; an image that fails does not stop the others. Under `accelerate
    launch` the processes share the images, and the main process returns all results.

    Args:
        model: what `load` takes or returned; None for an untuned model, with `foundation` and `modality`.
        files: files and folders; for a sensor with several sources, folders with the layout of a data set, or {source:
            file} for one image; with `prompts` at most the folder of the images.
        out: folder of the results.
        progress: is told what is done while the function runs.
        registry: what is installed; None loads the plugins.
        options: fields of `simmat.inference.PredictOptions`: points=[(320, 240)], everything=True, formats="auto", …;
            and arguments of `load` for a model that is not loaded yet: device, foundation, modality, …

    Raises:
        TypeError: an option is unknown.
        SimMATError: options are wrong or do not suit the model, files of others would be replaced, or results cannot be
            written. A problem with a single image is the `error` of its result.
    """
    from simmat.documents import parse
    from simmat.inference import PredictOptions, Progress
    from simmat.inference.options import LOCAL
    from simmat.inference.run import predict_files

    loading = {name: options.pop(name) for name in _LOADING if name in options}
    given = parse(
        PredictOptions,
        _known_keywords("predict", PredictOptions, options),
        "simmat predict",
    )
    for folder in filter(None, (Path(out), given.cache)):
        check_writable(folder)
    known = registry or installed()
    loading = loading if model is None else {"source": model, **loading}
    processes = join_processes(loading.get("device"))
    if processes.count > 1:
        if given.executor != LOCAL:
            raise ConfigError(
                f"--executor {given.executor} already distributes the images; run it without accelerate launch"
            )
        if processes.device.type == "cuda":
            loading["device"] = str(processes.device)
        else:
            loading["device"] = processes.device.type
    if isinstance(model, Predictor) and len(loading) > 1 and processes.count == 1:
        raise ConfigError(
            f"the model is loaded already; leave {', '.join(sorted(loading.keys() - {'source'}))} out"
        )
    if isinstance(model, Predictor) and given.executor != LOCAL:
        raise ConfigError(
            "--executor loads the model on other machines; give the folder of its bundle"
        )
    predictor = (
        model if isinstance(model, Predictor) else load(**loading, registry=known)
    )
    again = partial(load, **loading)
    return predict_files(
        predictor,
        _paths(files),
        Path(out),
        given,
        known,
        processes,
        again,
        progress or Progress(),
    )


def _known_keywords(
    function: str, model: type[StrictModel], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return keyword arguments; TypeError if a function does not know one."""
    for name in given:
        if name not in model.model_fields:
            hint = did_you_mean(name, model.model_fields, otherwise="")
            raise TypeError(
                f"{function}() got an unexpected keyword argument {name!r}{hint}"
            )
    return dict(given)


def _paths(
    files: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
) -> Sequence[Path] | Mapping[str, Path]:
    if isinstance(files, Mapping):
        return {name: Path(file) for name, file in files.items()}
    if isinstance(files, str | Path):
        return [Path(files)]
    return [Path(file) for file in files]


_LOADING = tuple(
    name for name in signature(load).parameters if name not in ("source", "registry")
)
"""Arguments of `load` that `predict` passes on."""


def open_dataset(
    root: str | Path,
    modality: Modality,
    *,
    modality_options: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
    **card: Any,
) -> Dataset:
    """Open a folder as a data set of a sensor.

    Args:
        root: the folder.
        modality: the sensor: a name, an adapter, or its class.
        modality_options: options of the sensor: {"unit": "cK"}; of a composition: {"thermal.unit": "cK"}.
        registry: what is installed; None loads the plugins.
        card: fields that override the data card: regions="instances", nodata=0, …

    Raises:
        DataError: the folder is not a data set.
        ConfigError: the card is wrong, or does not say what a region is.
    """
    from simmat.data.dataset import open_dataset as open_dataset_of

    known, name = (registry or installed()).with_modality(modality)
    return open_dataset_of(root, known.modality(name or "", modality_options), card)


def list_modalities(registry: Registry | None = None) -> tuple[str, ...]:
    """Return the names of the installed sensors, sorted."""
    return (registry or installed()).names("modality")


def list_foundations(registry: Registry | None = None) -> tuple[str, ...]:
    """Return the names of the installed foundation models, sorted; without the models of families."""
    return (registry or installed()).names("foundation model")


def _folder(data: str | Path | Dataset) -> tuple[Path, dict[str, Any]]:
    """Return a data set's folder, and what overrides its card; TypeError for arrays and others."""
    from simmat.data.card import load_card
    from simmat.data.dataset import Dataset

    if isinstance(data, Dataset):
        if data.part:
            raise ConfigError(
                f"data is the {data.part} split of {data.root} only; give the whole data set"
            )
        own = load_card(data.root, {}, defaults={"regions": "instances"})
        kept = {name: value for name, value in data.card if value != getattr(own, name)}
        # which a card file may leave out
        return data.root, {**kept, "regions": data.card.regions}
    if not isinstance(data, str | os.PathLike):
        raise TypeError(
            f"data must be a folder or a simmat.Dataset, got a {type(data).__name__}; make one from arrays with "
            f"simmat.Dataset.from_arrays(images, masks)"
        )
    return Path(data), {}
