"""Checks of result formats, losses and metrics, on one image with two objects."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import numpy as np
import torch

from simmat.data.instances import Annotation, FoundObject, Instance
from simmat.errors import SimMATError
from simmat.evaluation import ImageMatches
from simmat.inference import ImageResult, PromptResult
from simmat.nn.losses import Batch
from simmat.nn.tuners import set_train_mode
from simmat.plugin_specs import MetricSpec
from simmat.plugins.registry import import_from_string
from simmat.predictor import Uncertainty
from simmat.training import StepOutputs
from simmat.types import Georeference, Prompt, Window
from simmat_testing.checks import CheckFailed, CheckSkipped, PartCase
from simmat_testing.networks import build_network
from simmat_testing.tiny import TINY

_SIDE = 64
"""Side of the image, and of the input of the network whose answers a loss gets, in pixels."""
_SHIP = Instance(1, Window(8, 8, 24, 24), np.ones((16, 16), np.bool_))
_BUOY = Instance(2, Window(32, 40, 48, 60), np.ones((16, 20), np.bool_))
_CLASS_NAMES = {1: "ship", 2: "buoy"}
_PLACE = Georeference("EPSG:32632", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_300_000.0))


def format_writes_what_it_declares(case: PartCase) -> None:
    """For a result of each of its kinds, the format writes one file, whose name it returns and `endings` declares."""
    if case.spec.one_file:
        raise CheckSkipped(
            "it writes one file for all images of a command; try it with simmat predict"
        )
    write = import_from_string(case.spec.write)
    for kind in case.spec.kinds:
        folder = case.folder / kind
        folder.mkdir()
        result = (
            _prompt_result()
            if kind == "prompts"
            else _image_result(classes=kind == "classes")
        )
        name = write(result, folder)
        written = sorted(file.name for file in folder.iterdir())
        if written != [name]:
            raise CheckFailed(
                f"for {kind} it returns {name!r} and writes {written}",
                "write one file, and return its name",
            )
        declared = [
            result.name + ending.format(kind=kind) for ending in case.spec.endings
        ]
        if name not in declared:
            raise CheckFailed(
                f"for {kind} it writes {name!r}, declared are {declared}",
                "begin the name with result.name, and add what follows to `endings`",
            )


def _prompt_result() -> PromptResult:
    mask = _SHIP.mask((_SIDE, _SIDE))
    unsure = Uncertainty(mask.astype(np.float32), np.zeros_like(mask, np.float32))
    click = Prompt(np.array([[16.0, 16.0]], np.float32), np.array([1], np.int64))
    picture = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    return PromptResult(
        "image",
        mask,
        0.9,
        click,
        1,
        "ship",
        0.8,
        georeference=_PLACE,
        picture=lambda: picture,
        uncertainty=unsure,
    )


def _image_result(*, classes: bool) -> ImageResult:
    picture = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    if not classes:
        found = tuple(
            FoundObject(one, 0.9, one.pixel_xy(0), {1: 0.5, 2: 0.5})
            for one in (_SHIP, _BUOY)
        )
        return ImageResult(
            "image",
            (_SIDE, _SIDE),
            _PLACE,
            _CLASS_NAMES,
            lambda: picture,
            objects=found,
        )
    labels = np.zeros((_SIDE, _SIDE), np.uint8)
    labels[_SHIP.window.slices] = 1
    labels[_BUOY.window.slices] = 2
    return ImageResult(
        "image", (_SIDE, _SIDE), _PLACE, _CLASS_NAMES, lambda: picture, class_map=labels
    )


def loss_reaches_the_network(case: PartCase) -> None:
    """The loss of a batch is a finite scalar with a gradient for what is trained; its terms are scalars without one."""
    try:
        loss = import_from_string(case.spec.build)(case.folder)
    except SimMATError as error:
        raise CheckSkipped(f"it needs more than images and labels: {error}") from error
    network = build_network(TINY, image_size=_SIDE, tuner="full")
    set_train_mode(network)
    batch = _batch(torch.stack([loss.item("a"), loss.item("b")]))
    terms = dict(
        loss(StepOutputs(network, batch, boxes=False, correction_clicks=1), batch)
    )
    shapes = {name: tuple(term.shape) for name, term in terms.items()}
    if (
        "loss" not in terms
        or any(shapes.values())
        or not all(bool(term.isfinite()) for term in terms.values())
    ):
        raise CheckFailed(
            f"it returns {shapes}",
            'return finite scalars: "loss", and terms by their names in the log',
        )
    total = terms.pop("loss")
    if attached := [name for name, term in terms.items() if term.requires_grad]:
        raise CheckFailed(
            f"{', '.join(attached)} has a gradient",
            "detach the terms that are only logged",
        )
    if total.requires_grad:
        torch.autograd.backward(total)
    gradients = [
        parameter.grad
        for parameter in network.parameters()
        if parameter.grad is not None
    ]
    if not gradients or not all(
        bool(gradient.isfinite().all()) for gradient in gradients
    ):
        raise CheckFailed(
            "no finite gradient reaches the network",
            "compute the loss from what the network answers",
        )


def _batch(extra: torch.Tensor) -> Batch:
    """Return two images of noise with one prompt each, the ship."""
    planes = torch.randn(2, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(_SHIP.mask((_SIDE, _SIDE)))
    return Batch(
        planes=planes,
        content=torch.ones(2, _SIDE, _SIDE, dtype=torch.bool),
        targets=target.expand(2, 1, _SIDE, _SIDE),
        ignore=torch.zeros(2, _SIDE, _SIDE, dtype=torch.bool),
        clicks=torch.full((2, 1, 2), 16.0),
        boxes=torch.tensor([8.0, 8.0, 24.0, 24.0]).expand(2, 1, 4),
        draws=torch.full((2, 1, 1), 0.5),
        step_draw=torch.zeros(2),
        class_targets=torch.zeros(2, 0, dtype=torch.int64),
        distance=torch.zeros(2, 0),
        extra=extra,
    )


def metric_scores_every_result(case: PartCase) -> None:
    """Of what is right, wrong, empty or without a pixel that counts, the figure is a finite number or None."""
    compute = import_from_string(case.spec.compute)
    for name, given in _scored(case.spec).items():
        try:
            figure = compute(*given)
        except Exception as error:
            raise CheckFailed(
                f"{name}: {type(error).__name__}: {error}",
                "return None where there is no figure",
            ) from error
        if figure is not None and (
            not isinstance(figure, int | float) or not math.isfinite(figure)
        ):
            raise CheckFailed(
                f"{name}: {figure!r}",
                "return a finite number, or None where there is no figure",
            )


def metric_leaves_its_input_alone(case: PartCase) -> None:
    """A call gives the same figure again, because metrics share what they score."""
    compute = import_from_string(case.spec.compute)
    for name, given in _scored(case.spec).items():
        fresh = copy.deepcopy(given)
        if compute(*given) != compute(*given) or compute(*given) != compute(*fresh):
            raise CheckFailed(
                f"{name}: another figure the second time",
                "change none of the arguments; draw nothing",
            )


def _scored(spec: MetricSpec) -> dict[str, tuple[Any, ...]]:
    """Return what a metric may get, by what it is."""
    if spec.result == "classes":
        return {
            "right classes": (Counter({(1, 1): 5}),),
            "wrong classes": (Counter({(0, 1): 3}),),
            "none": (Counter(),),
        }
    everything, nothing = (
        np.ones((_SIDE, _SIDE), np.bool_),
        np.zeros((_SIDE, _SIDE), np.bool_),
    )
    if spec.result == "mask":
        return {
            "the true mask": (_SHIP, _SHIP, everything),
            "another mask": (_BUOY, _SHIP, everything),
            "an empty mask": (None, _SHIP, everything),
            "no pixel that counts": (_SHIP, _SHIP, nothing),
        }
    label = Annotation((_SIDE, _SIDE), (_SHIP,), nothing)
    found = FoundObject(_SHIP, 0.9, _SHIP.pixel_xy(0))
    return {
        "found objects": ([ImageMatches.of([found], label)],),
        "no found object": ([ImageMatches.of([], label)],),
        "no image": ([],),
    }
