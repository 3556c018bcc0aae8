"""The one place that asks a model: an image is encoded once, then asked as often as one likes."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import GRAY, tiny_bundle
from PIL import Image
from runs import registry

import simmat
from simmat.assemble import Parts
from simmat.bundle import load_bundle
from simmat.cli import run
from simmat.errors import BundleError, ConfigError, DataError
from simmat.io.images import write_image
from simmat.model_spec import DenseSpec
from simmat.nn.device import pick_device
from simmat.plugin_specs import FunctionSpec
from simmat.plugins.registry import Registry
from simmat.predictor import FollowedFrame, Predictor, ZeroShotPredictor
from simmat.predictor import predictor as predictor_module
from simmat.predictor.open import ImageLike
from simmat.types import Channel, Prompt, SensorImage

SCENE = np.random.default_rng(0).integers(0, 256, (40, 56)).astype(np.uint8)
IMAGE = np.random.default_rng(0).integers(0, 255, (1, 40, 56)).astype(np.uint8)
CLICK = Prompt.points([(20, 20)])


@pytest.fixture
def predictor(bundle: Path) -> Predictor:
    return Predictor.of_bundle(load_bundle(bundle, registry()))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(SCENE).save(tmp_path / "s.png")
    return tmp_path / "s.png"


def test_a_second_question_does_not_encode_again(
    predictor: Predictor, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder is nearly all of the cost; clicks that repeat it cannot be interactive."""
    calls = []
    encode = predictor.model.encode
    monkeypatch.setattr(
        predictor.model, "encode", lambda *given: calls.append(1) or encode(*given)
    )
    predictor.set_image(picture)
    first = predictor.predict(points=[(20, 20)])
    predictor.predict(points=[(30, 10), (5, 5)], labels=[1, 0])
    # the edges of the image are allowed
    predictor.predict(box=(0, 0, 56, 40), mask=first.low_res_logits)
    assert len(calls) == 1


def test_every_kind_of_image_gives_the_same_mask(
    predictor: Predictor, picture: Path
) -> None:
    """A notebook has arrays, a pipeline images, a folder files."""
    loaded = predictor.set_image(picture)
    expected = predictor.predict(points=[(20, 20)])
    for image in (
        str(picture),
        {"gray": picture},
        loaded,
        SCENE[None].astype(np.float64),
        SCENE[None],
        SCENE,
    ):
        predictor.set_image(image)
        np.testing.assert_array_equal(
            predictor.predict(points=[(20, 20)]).logits, expected.logits
        )
    assert expected.mask.shape == expected.logits.shape == (40, 56)
    assert expected.mask.dtype == np.bool_


@pytest.mark.parametrize("kind", ["file", "array", "image", "large array"])
def test_values_far_from_those_of_training_are_warned_of_once(
    kind: str, predictor: Predictor, tmp_path: Path
) -> None:
    """Raw counts in place of reflectances give masks, too; a script has no page that shows the warning of a file."""
    side = 400 if kind == "large array" else 40
    far = np.random.default_rng(0).integers(200, 256, (side, side)).astype(np.uint8)
    near = far // 4
    images: list[ImageLike] = [far, near]
    if kind == "file":
        for name, pixels in (("far.png", far), ("near.png", near)):
            Image.fromarray(pixels).save(tmp_path / name)
        images = [tmp_path / "far.png", tmp_path / "near.png"]
    elif kind == "image":
        images = [
            SensorImage.from_planes(pixels[None], (GRAY,), origin="array")
            for pixels in (far, near)
        ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predictor.set_image(images[0])
        found = predictor.predict(points=[(20, 20)])
    assert [str(one.message) for one in caught] == [found.warning]
    assert caught[0].filename == __file__
    assert "'gray' are far from the training values (60 ± 20 count)" in found.warning
    assert "bit depth" in found.warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.set_image(images[1])


def test_prompts_of_all_kinds_come_back_in_their_order(
    predictor: Predictor, picture: Path
) -> None:
    """They are decoded in groups of one kind; an answer under another's number would be worse than none."""
    predictor.set_image(picture)
    box = np.asarray([3, 3, 30, 30], np.float32)
    prompts = [Prompt.points([(x, 20)]) for x in range(20)]
    prompts.insert(3, Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), box))
    prompts.insert(9, Prompt.points([(1, 2)], [(30, 30)]))
    together = predictor.predict_prompts(prompts)
    for prompt, found in zip(prompts, together, strict=True):
        alone = predictor.predict_prompts([prompt])[0]
        np.testing.assert_allclose(found.logits, alone.logits, atol=1e-4)
    assert predictor.predict_prompts([]) == []


def test_a_failed_image_leaves_no_image_to_predict_on(
    predictor: Predictor, picture: Path, tmp_path: Path
) -> None:
    """A click answered on the image before would look like an answer on this one."""
    with pytest.raises(ValueError, match="set_image"):
        predictor.predict(points=[(1, 1)])
    predictor.set_image(picture)
    with pytest.raises(DataError, match="no such file"):
        predictor.set_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match="set_image"):
        predictor.predict(points=[(1, 1)])


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (
            np.zeros((2, 8, 8)),
            ValueError,
            r"\(1, H, W\) of gray \[count\]; got shape \(2, 8, 8\)",
        ),
        (
            np.zeros((8, 8, 1)),
            ValueError,
            r"got shape \(8, 8, 1\); put the channels first",
        ),
        (Image.fromarray(SCENE), TypeError, r"got Image.*\(C, H, W\)"),
        (
            np.linspace(-1000, 300, 64).reshape(8, 8),
            DataError,
            r"gray, 0 to 255 count.*-1000 to 300.*file",
        ),
        ({"rgb": "a.png"}, TypeError, "sources gray; got rgb"),
        (np.full((1, 8, 8), np.nan), DataError, "no pixel.*0 to 255 count"),
        (
            SensorImage.from_planes(
                np.ones((1, 8, 8)), (Channel("nir", "counts", "count"),)
            ),
            BundleError,
            r"nir \[count\]",
        ),
    ],
)
def test_an_image_that_does_not_fit_is_refused(
    predictor: Predictor, image: object, error: type[Exception], words: str
) -> None:
    """Planes are never broadcast or guessed."""
    with pytest.raises(error, match=words):
        predictor.set_image(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "point, a box or a mask"),
        ({"points": [(1, 1)], "labels": [1, 0]}, "one for each point"),
        ({"points": [(1, 1)], "labels": [2]}, "0 or 1"),
        ({"box": (30, 3, 3, 30)}, "X0 < X1"),
        ({"points": [(56, 3)]}, "point 56,3 .*0 to 55.*56 wide and 40 high"),
        ({"box": (0, 0, 57, 40)}, "box 0,0,57,40 .*0 to 56"),
        ({"points": "20,20"}, r"points .*\[\(320, 240\)\].*'20,20'"),
        ({"points": [(1, 1)], "mask_selection": "multi"}, "'single', 'best'.*'multi'"),
        ({"mask": SCENE > 99}, "low_res_logits.*bool of .40, 56."),
        (
            {"mask": np.zeros((1, 16, 16), np.float32)},
            "low_res_logits.*float32 of .1, 16, 16.",
        ),
        ({"points": [(1, 1)], "mask": SCENE.astype(float)}, r"16, 16\).*40, 56\)"),
    ],
)
def test_a_prompt_that_means_nothing_is_refused(
    predictor: Predictor, picture: Path, given: dict[str, object], words: str
) -> None:
    """The limits named are those that hold: of points the last pixel, of boxes the outer edge."""
    predictor.set_image(picture)
    with pytest.raises((ConfigError, DataError, TypeError, ValueError), match=words):
        predictor.predict(**given)  # type: ignore[arg-type]


def test_arrays_are_in_the_channels_units(predictor: Predictor) -> None:
    """What lies outside of a channel's range, or is NaN, is no measurement."""
    planes = np.full((1, 8, 8), 60.0)
    planes[0, 0] = (np.nan, -1, 256, 255, 0, 60, 60, 60)
    image = predictor.set_image(planes)
    assert image.channels == (GRAY,)
    assert image.valid[0, 0].tolist() == [
        False,
        False,
        False,
        True,
        True,
        True,
        True,
        True,
    ]


def test_a_point_of_a_larger_picture_is_refused_with_both_sizes(
    predictor: Predictor,
) -> None:
    """Thermal cameras show a picture of 320x240 and store 160x120 temperatures; clicks are read in the picture."""
    image = SensorImage.from_planes(SCENE, (GRAY,), origin="flir.jpg")
    predictor.set_image(replace(image, preview_hw=(80, 112)))
    with pytest.raises(
        ConfigError, match=r"56 wide and 40 high.*112x80.*X .*by 0\.5 and Y by 0\.5"
    ):
        predictor.predict(points=[(100, 70)])


def test_an_answer_that_is_not_a_number_is_refused(
    predictor: Predictor, picture: Path
) -> None:
    """Weights may be finite and still overflow; a score of NaN would be written beside an empty mask."""
    with torch.no_grad():
        for parameter in predictor.model.mat.parameters():
            parameter.fill_(1e38)
    predictor.set_image(picture)
    with pytest.raises(BundleError, match=r"bundle .*s\.png"):
        predictor.predict(points=[(3, 3)])


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    values = (
        np.random.default_rng(0).integers(0, 200, (2, 1, 150, 180)).astype(np.uint8)
    )
    values[1] //= 4
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for path, planes in zip(paths, values, strict=True):
        write_image(path, planes)
    return paths


def test_the_single_mask_comes_first_and_the_alternatives_by_score(
    tmp_path: Path, images: list[Path]
) -> None:
    """A key steps through them; the first is what `predict` gives."""
    predictor = Predictor.of_bundle(
        load_bundle(tiny_bundle(tmp_path / "bundle", image_size=32), registry())
    )
    image = predictor.open_image(images[0])
    single, *others = image.predict_all(CLICK)
    assert single.score == image.predict(CLICK).score
    assert len(others) == 3
    assert [one.score for one in others] == sorted(
        (one.score for one in others), reverse=True
    )
    assert others[0].score == image.predict(CLICK, "best").score


def test_images_looked_at_in_turn_keep_their_own_statistics(images: list[Path]) -> None:
    """An untuned model normalizes by the image; the windows of one must not be normalized by another's values."""
    known = registry()
    parts = Parts(
        known.foundation("tiny"),
        known.transfer_layer("zeroshot"),
        known.tuner("frozen"),
        None,
    )

    def predictor() -> ZeroShotPredictor:
        return ZeroShotPredictor(parts, known.modality("gray"), 32, pick_device("cpu"))

    far = Prompt.points([(150, 120)])
    alone = predictor().open_image(images[0]).predict(far).logits
    both = predictor()
    one, other = both.open_image(images[0]), both.open_image(images[1])
    one.predict(CLICK)
    other.predict(CLICK)
    np.testing.assert_array_equal(one.predict(far).logits, alone)


def test_a_predictor_survives_pickle(tmp_path: Path) -> None:
    """Pools of processes and dask send it so; it comes without its image."""
    model = simmat.load(
        tiny_bundle(tmp_path / "bundle"), registry=registry(), device="cpu"
    )
    model.set_image(IMAGE)
    expected = model.predict(points=[(20, 10)])
    copy = pickle.loads(pickle.dumps(model))
    assert copy.image is None
    copy.set_image(IMAGE)
    np.testing.assert_array_equal(
        copy.predict(points=[(20, 10)]).logits, expected.logits
    )


@pytest.mark.plugins
def test_without_a_follower_the_error_says_where_one_is(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who installed the core alone must not search for a method that the documentation shows."""
    model = simmat.load(bundle)
    with pytest.raises(
        ConfigError, match=r"follows objects through frames.*(README|SIMMAT_PLUGINS)"
    ):
        model.follow([np.zeros((1, 32, 32), np.float32)], {})
    assert run(["follow", "--help"]) == 2
    assert "no command 'follow'" in capsys.readouterr().err


def test_the_follower_of_a_plugin_gets_what_the_caller_gave(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another method, such as a network with a memory, can take the place of ours."""
    spec = FunctionSpec("still", "keeps masks where they are", f"{__name__}:still")
    monkeypatch.setattr(
        predictor_module,
        "installed",
        lambda: Registry([], [("follower", spec, "test")]),
    )
    monkeypatch.setattr(
        predictor_module, "import_from_string", {spec.function: still}.__getitem__
    )
    frames = [np.zeros((1, 32, 32), np.float32)] * 3
    given = {4: np.ones((32, 32), np.bool_)}
    found = list(simmat.load(bundle).follow(frames, {1: given}, tile=64))
    assert [one.index for one in found] == [0, 1, 2]
    assert found[0].masks == given
    assert found[0].scores == {64: 0.5}


def still(predictor, frames, masks, *, tile, progress):  # type: ignore[no-untyped-def]
    """Return the given masks in every frame, and the side of windows that was asked for."""
    (masks,) = masks.values()
    return (FollowedFrame(index, masks, {tile: 0.5}) for index in range(len(frames)))


RNG = np.random.default_rng(0)
# the fourth is cut into windows
SIZES = [(40, 56), (33, 47), (64, 64), (150, 60), (20, 30)]
ARRAYS = [RNG.integers(0, 255, (1, *size_hw)).astype(np.uint8) for size_hw in SIZES]
OPEN_IMAGES_CLICK = simmat.Prompt.points([(10, 12)])


@pytest.fixture
def model(tmp_path: Path) -> Predictor:
    """A model with both heads."""
    dense = DenseSpec(background=True, classes=(1, 2))
    return simmat.load(
        tiny_bundle(tmp_path / "bundle", dense=dense, image_side=64),
        registry=registry(),
        device="cpu",
    )


def test_a_batch_gives_what_its_images_give_one_by_one(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is only faster: files and arrays, of any size, with one pass of the network for all that fit in it."""
    Image.fromarray(ARRAYS[1][0]).save(tmp_path / "b.png")
    images = [ARRAYS[0], tmp_path / "b.png", *ARRAYS[2:]]
    alone = [
        (one.predict(OPEN_IMAGES_CLICK), one.segment_semantic(probabilities=True))
        for one in model.open_images(images)
    ]
    sizes, encode = [], model.model.encode
    monkeypatch.setattr(
        model.model,
        "encode",
        lambda planes, *more: sizes.append(len(planes)) or encode(planes, *more),
    )
    opened = list(model.open_images(iter(images), batch_size=4))
    assert sizes == [3, 1]
    assert [one.reader.size_hw for one in opened] == SIZES
    for one, (found, classes) in zip(opened, alone, strict=True):
        np.testing.assert_allclose(
            one.predict(OPEN_IMAGES_CLICK).logits, found.logits, atol=1e-5
        )
        np.testing.assert_allclose(
            one.segment_semantic(probabilities=True).probabilities,
            classes.probabilities,
            atol=1e-5,
        )
    with pytest.raises(TypeError, match=r"several images.*got 'a.png', see open_image"):
        next(model.open_images("a.png"))
    with pytest.raises(TypeError, match="several images"):
        next(model.open_images(Path("a.png")))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(model.open_images(images, batch_size=0))
