"""`import simmat`: what a notebook has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from installed import need_plugins
from runs import gray_set, registry

import simmat
from simmat.errors import (
    BundleError,
    ConfigError,
    DataError,
)
from simmat.evaluation.report import ScoreReport
from simmat.foundation import MaskPrediction
from simmat.nn.dense_head import upsample_logits
from simmat.nn.losses import Batch, Loss, LossWeights, Outputs, PromptLoss
from simmat.training import Callback, resume

SETTINGS = {
    "foundation": "tiny",
    "image_size": 64,
    "batch_size": 2,
    "prompts_per_image": 1,
    "device": "cpu",
}


def test_train_load_predict_and_evaluate(tmp_path: Path) -> None:
    """Ten lines of a notebook."""
    data = gray_set(tmp_path / "data", train=2, val=1, test=1)
    run = simmat.train(
        modality="gray",
        data=data,
        out=tmp_path / "run",
        steps=1,
        progress=False,
        registry=registry(),
        **SETTINGS,
    )
    model = simmat.load(str(run), device="cpu", registry=registry())
    model.set_image(data / "images/s0.png")
    found = model.predict(points=[(14, 20)])
    assert found.mask.shape == (40, 56)
    scores = simmat.evaluate(model, data, registry=registry())
    assert scores["tuned"]["objects"] == len(scores.objects) == 2
    assert scores["zero_shot"] is None
    assert {row["model"] for row in rows_of(scores)} == {"tuned"}


def rows_of(scores: ScoreReport) -> list[dict[str, Any]]:
    """Return the rows of the table of objects, with pandas or without."""
    table = scores.objects
    return table if isinstance(table, list) else table.to_dict("records")


def test_an_untuned_model_is_scored_alone(tmp_path: Path) -> None:
    """How far a foundation model comes on a sensor is known before anything is trained."""
    need_plugins("lite")
    data = gray_set(tmp_path / "data", train=2, val=1, test=1)
    known = registry("lite")
    model = simmat.load(
        foundation="lite", modality="gray", image_size=64, device="cpu", registry=known
    )
    scores = simmat.evaluate(model, data, registry=known)
    assert scores["tuned"] is None
    assert scores["bundle"] is None
    assert (scores["foundation"], scores["zero_shot"]["objects"]) == ("lite", 2)
    first = rows_of(scores)[0]
    assert first["model"] == "zero_shot"
    assert 0 <= first["iou"] <= 1


class Watch(Callback):
    """Remembers the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        self.losses.append(losses["loss"])


def squared_error(
    prediction: MaskPrediction, targets: torch.Tensor, ignore: torch.Tensor
) -> torch.Tensor:
    """Return the mean squared error of the single mask's probability, a number a prompt."""
    found = upsample_logits(prediction.logits[:, :1], tuple(targets.shape[-2:]))[
        :, 0
    ].sigmoid()
    return ((found - targets.float()).square() * ~ignore).mean((1, 2))


def test_a_loss_and_callbacks_of_ones_own(tmp_path: Path) -> None:
    """A researcher changes the loss and follows the run without a plugin."""
    data, watch = gray_set(tmp_path / "data", train=2, val=1), Watch()
    given = {
        "modality": "gray",
        "data": data,
        "progress": False,
        "registry": registry(),
        "heads": "prompt",
        **SETTINGS,
    }
    run = simmat.train(
        out=tmp_path / "run", steps=2, loss=squared_error, callbacks=[watch], **given
    )
    assert len(watch.losses) == 2
    assert all(0 < loss < 1 for loss in watch.losses)
    with pytest.raises(
        ConfigError, match=r"'custom'.*stands for a function.*resume\(loss"
    ):
        resume(run, registry())
    with pytest.raises(
        ConfigError, match=r"must return a tensor \(2,\), one number a prompt, got \(\)"
    ):
        simmat.train(
            out=tmp_path / "two",
            steps=1,
            loss=lambda *given: squared_error(*given).mean(),
            **given,
        )
    assert simmat.train(out=tmp_path / "three", steps=1, loss="bce", **given).is_dir()
    with pytest.raises(
        ConfigError, match=r"started with the loss 'bce'.*leave loss=… out"
    ) as caught:
        resume(tmp_path / "three", registry(), loss=squared_error)
    assert "custom" not in str(caught.value)


class Detached(Loss):
    """Computes something that nothing can learn from."""

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": outputs.embedding.levels[0].detach().mean()}


def test_a_loss_without_gradient_is_refused(tmp_path: Path) -> None:
    """A training by it would end well, with the network that it started from."""
    data = gray_set(tmp_path / "data", train=2, val=1)
    given = {
        "modality": "gray",
        "data": data,
        "progress": False,
        "registry": registry(),
        **SETTINGS,
    }
    with pytest.raises(ConfigError, match="without gradient"):
        simmat.train(out=tmp_path / "run", steps=1, loss=Detached(), **given)


def detached_error(
    prediction: MaskPrediction, targets: torch.Tensor, ignore: torch.Tensor
) -> torch.Tensor:
    """Return an error that nothing can learn from."""
    return squared_error(prediction, targets, ignore).detach()


def detached_pixels(error: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    """Return wrong pixels, counted: a step has no gradient."""
    return (wrong > 0.5).float()


@pytest.mark.parametrize("heads", ["prompt", "auto", "prompt,dense"])
@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (detached_error, "the loss 'detached_error' returned"),
        (PromptLoss(detached_error), "the loss 'detached_error' returned"),
        (PromptLoss(LossWeights(pixel=detached_pixels)), "the loss of pixels returned"),
    ],
)
def test_masks_without_gradient_are_refused_beside_a_dense_head(
    tmp_path: Path, heads: str, loss: Any, named: str
) -> None:
    """The dense head has a gradient, so that the training would end well with masks that learned nothing."""
    with pytest.raises(ConfigError, match=f"{named} a tensor without gradient"):
        simmat.train(
            modality="gray",
            data=gray_set(tmp_path / "data", train=2, val=1),
            progress=False,
            registry=registry(),
            heads=heads,
            out=tmp_path / "run",
            steps=1,
            loss=loss,
            **SETTINGS,
        )


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, ConfigError, "source.*--foundation.*--modality"),
        ({"foundation": "tiny"}, ConfigError, "--foundation.*--modality"),
        ({"source": "none"}, BundleError, "none"),
        ({"foundation": "tiny", "modality": "gray"}, ConfigError, "untuned.*random"),
    ],
)
def test_what_cannot_be_loaded_is_refused(
    given: dict[str, str], error: type[Exception], words: str
) -> None:
    """With what to give instead."""
    with pytest.raises(error, match=words):
        simmat.load(**given, registry=registry())  # type: ignore[arg-type]


def test_an_unknown_setting_is_a_type_error(tmp_path: Path) -> None:
    """A keyword that is passed over would be a run with other settings than one thinks."""
    with pytest.raises(TypeError, match=r"'step'.*'steps'"):
        simmat.train(modality="gray", data=tmp_path, out=tmp_path / "run", step=1)


def test_arrays_in_place_of_a_data_set_are_told_how_to_become_one(
    tmp_path: Path,
) -> None:
    """A pair of images and masks is what other libraries take."""
    with pytest.raises(
        TypeError, match=r"tuple.*Dataset\.from_arrays\(images, masks\)"
    ):
        simmat.train(
            modality="gray", data=([], []), out=tmp_path / "run", registry=registry()
        )  # type: ignore[arg-type]


def test_what_an_open_data_set_says_of_its_labels_holds(tmp_path: Path) -> None:
    """Else a data set opened with other labels is trained and scored as its folder says, unseen."""
    gray_set(tmp_path / "data", train=3, val=1, test=1)
    (tmp_path / "data" / "card.toml").unlink()
    labels: dict[str, Any] = {"regions": "instances", "min_region": 2, "ignore": 200}
    opened = simmat.open_dataset(
        tmp_path / "data", "gray", registry=registry(), **labels
    )
    run = simmat.train(
        modality="gray",
        data=opened,
        out=tmp_path / "run",
        steps=1,
        progress=False,
        registry=registry(),
        **SETTINGS,
    )
    loaded = simmat.load(run, registry=registry(), device="cpu")
    card = loaded.spec.card
    assert (card.min_region, card.ignore) == (2, opened.card.ignore)
    opened = simmat.open_dataset(
        tmp_path / "data", "gray", registry=registry(), **labels | {"min_region": 10**6}
    )
    with pytest.raises(DataError, match="none of the 1 test samples has a region"):
        simmat.evaluate(run, opened, registry=registry(), device="cpu")
    with pytest.raises(ConfigError, match="val split"):
        simmat.evaluate(run, opened.subset("val"), registry=registry())
    with pytest.raises(ConfigError, match="leave device out"):
        simmat.predict(loaded, [], out=tmp_path / "out", points=[(1, 1)], device="cpu")


@pytest.mark.parametrize(
    ("images", "masks", "split", "words"),
    [
        ([], [], None, "at least one image"),
        ([np.zeros((8, 8))] * 3, [np.zeros((8, 8), int)] * 2, None, "got 2 and 3"),
        (
            [np.zeros((8, 8))] * 3,
            [np.zeros((8, 9), int)] * 3,
            None,
            r"\(8, 8\) and \(8, 9\)",
        ),
        (
            [np.zeros((8, 8))] * 3,
            [np.zeros((8, 8))] * 3,
            None,
            "whole numbers, got float64",
        ),
        (
            [np.zeros((8, 8))] * 3,
            [np.zeros((8, 8), int)] * 3,
            ["train", "val"],
            "2 images",
        ),
        (
            [np.zeros((8, 8))] * 3,
            [np.zeros((8, 8), int)] * 3,
            {"training": 3},
            "'training'",
        ),
    ],
)
def test_arrays_that_do_not_match_are_refused(
    images: list[np.ndarray], masks: list[np.ndarray], split: object, words: str
) -> None:
    """With the number of the array."""
    with pytest.raises((ValueError, ConfigError), match=words):
        simmat.Dataset.from_arrays(images, masks, split=split)  # type: ignore[arg-type]
