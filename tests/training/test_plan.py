"""What a run finds out before its first step."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import config, gray_set, registry
from simmat_testing.tiny import TINY

from simmat import training
from simmat.config import load_config
from simmat.errors import ConfigError, DataError
from simmat.plugins.registry import Registry
from simmat.training import start
from simmat.training.network import with_recommended
from simmat.training.plan import open_data, plan_run


def test_fp16_is_refused_where_it_is_not_supported(tmp_path: Path) -> None:
    """The run would be called one of fp16 and have been computed in fp32."""
    settings = config(gray_set(tmp_path / "data"), tmp_path / "run", precision="fp16")
    with pytest.raises(ConfigError, match=r"--precision fp16 .*fp32 or bf16"):
        training.train(settings, registry())
    assert not (tmp_path / "run").exists()


def test_a_run_that_would_train_nothing_is_refused(tmp_path: Path) -> None:
    """Neither a layer without parameters nor a frozen model moves."""
    settings = config(
        gray_set(tmp_path / "data"), tmp_path / "run", mat="zeroshot", tune="frozen"
    )
    with pytest.raises(ConfigError, match="another --mat"):
        training.train(settings, registry())
    assert not (tmp_path / "run").exists()


def test_images_without_a_mask_are_left_out_and_counted(tmp_path: Path) -> None:
    """Labelling begins with some of the images, and training can begin with those."""
    data = gray_set(tmp_path / "data", train=6)
    (data / "manifest.csv").unlink()
    (data / "masks/s3.png").unlink()
    setup = plan_run(config(data, tmp_path / "run"), registry())
    assert "s3" not in {sample.id for sample in (*setup.train, *setup.val)}
    assert any("Skipped 1 image without a mask" in note for note in setup.notes)


def test_images_are_called_too_much_shrunk_where_an_object_gets_small(
    tmp_path: Path,
) -> None:
    """Of the usual 640x480 every run would be told to take another size, also where nothing is lost."""
    data = gray_set(tmp_path / "data", size_hw=(140, 180))
    settings = config(data, tmp_path / "run", crop=0)
    assert "in 5 of 5 training images" in "\n".join(
        plan_run(settings, registry()).notes
    )
    large = np.zeros((140, 180), dtype=np.uint8)
    large[20:100, 40:140] = 1
    for number in range(5):
        Image.fromarray(large).save(data / "masks" / f"s{number}.png")
    assert "shrunk" not in "\n".join(plan_run(settings, registry()).notes)


def test_windows_are_chosen_by_the_sizes_of_objects_and_images(tmp_path: Path) -> None:
    """Objects that whole images make too small are not learned."""
    data = gray_set(tmp_path / "data", size_hw=(140, 180))
    plan = plan_run(config(data, tmp_path / "run"), registry())
    assert plan.config.crop == plan.spec.card.crop == plan.spec.image_side == 64
    assert "windows of 64 px" in plan.notes[0]
    assert "Warning" not in "\n".join(plan.notes)
    assert {one.id for one in plan.epoch_samples} == {one.id for one in plan.train}
    assert len(plan.epoch_samples) > len(plan.train)
    assert plan.items()[0].planes.shape[-2:] == (64, 64)
    assert all(sample.window is None for sample in plan.val)


def test_what_validation_cannot_read_is_found_before_the_first_step(
    tmp_path: Path,
) -> None:
    """The same --out must work once it is mended."""
    data = gray_set(tmp_path / "data")
    broken = next(
        line
        for line in (data / "manifest.csv").read_text().splitlines()
        if ",val," in line
    ).split(",")[3]
    (data / broken).write_bytes(b"no mask")
    with pytest.raises(DataError, match=re.escape(broken)):
        training.train(config(data, tmp_path / "run"), registry())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["images", "masks"])
def test_a_run_among_the_images_is_refused(tmp_path: Path, place: str) -> None:
    """The next reader of the data set would find its pictures there."""
    data = gray_set(tmp_path / "data")
    with pytest.raises(ConfigError, match=f"{place}/"):
        training.train(config(data, data / place / "run"), registry())
    assert not (data / place / "run").exists()
    training.train(config(data, data / "run", steps=1), registry())


def test_a_plan_is_made_without_writing(tmp_path: Path) -> None:
    """Who reads it learns what a training will do; nothing has begun."""
    data = gray_set(tmp_path / "data", train=6, val=2)
    settings = config(
        data, tmp_path / "run", epochs=2, steps=None, heads="auto", tune=None, mat=None
    )
    known = registry()
    whole = open_data(settings, known)
    samples = [sample for sample in whole.samples if sample.id != "s0"]
    before = sorted(data.rglob("*"))
    plan = plan_run(settings, known, dataset=replace(whole, samples=tuple(samples)))
    assert [sample.id for sample in plan.train] == ["s1", "s2", "s3", "s4", "s5"]
    assert [sample.id for sample in plan.val] == ["s6", "s7"]
    assert plan.steps == -(-2 * 5 // settings.batch_size)
    assert plan.warmup == plan.steps // 20
    assert (plan.config.heads, plan.config.mat, plan.config.tune) == (
        "prompt,dense",
        "mat-residual",
        "lora",
    )
    assert plan.spec.seed == settings.seed
    assert plan.peak_rate == (settings.lr or plan.parts.learning_rate)
    assert settings.heads == "auto"
    assert not (tmp_path / "run").exists()
    assert [
        path for path in sorted(data.rglob("*")) if ".simmat" not in path.parts
    ] == before
    with pytest.raises(FrozenInstanceError):
        plan.steps = 3  # type: ignore[misc]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gray_set(tmp_path_factory.mktemp("data") / "set", train=20)


def drawn(data: Path, **changes: Any) -> list[str]:
    """Ids of the samples a run trains on."""
    setup = plan_run(config(data, data.parent / "run", **changes), registry())
    return [sample.id for sample in setup.train]


def test_a_smaller_part_lies_within_a_larger_one(data: Path) -> None:
    """A learning curve over images compares parts of one draw, not draws."""
    parts = [set(drawn(data, train_share=share)) for share in (0.05, 0.1, 0.25, 1.0)]
    assert [len(part) for part in parts] == [1, 2, 5, 20]
    assert parts[0] < parts[1] < parts[2] < parts[3]
    assert set(drawn(data, train_images=5)) == parts[2]


def test_the_seed_draws_and_the_network_does_not(data: Path) -> None:
    """Arms are compared on the same images; other seeds see others."""
    assert drawn(data, train_images=5, mat="mat", tune="full") == drawn(
        data, train_images=5
    )
    assert drawn(data, train_images=5, seed=1) != drawn(data, train_images=5)


def test_more_images_than_there_are_is_refused(data: Path) -> None:
    """A run on fewer images than it says would be reported wrongly."""
    with pytest.raises(ConfigError, match=r"--train-images 21 .* 20 "):
        drawn(data, train_images=21)


def test_validation_images_are_drawn_once_and_one_can_be_scored(tmp_path: Path) -> None:
    """Scores of two steps are compared, and a resumed run compares its own with those from before."""
    data = gray_set(tmp_path / "set", val=9)
    for number in range(5, 13):  # of s5 to s13 only the last has an object
        Image.fromarray(np.zeros((40, 56), np.uint8)).save(
            data / f"masks/s{number}.png"
        )

    def val(**changes: Any) -> list[str]:
        setup = plan_run(config(data, tmp_path / "run", **changes), registry())
        return [sample.id for sample in setup.val]

    assert val(val_images=1) == ["s13"]
    assert val(val_images=4, steps=3) == val(val_images=4, steps=900, val_every=None)
    assert set(val(val_images=4)) < set(val(val_images=5)) < set(val())
    with pytest.raises(ConfigError, match=r"--val-images 10 .* 9 "):
        val(val_images=10)


RECOMMENDS = replace(
    TINY,
    name="wise",
    image_size=64,
    tune="lora",
    training={"batch_size": 1, "prompts_per_image": 3, "precision": "bf16"},
)


def known(spec: object = RECOMMENDS) -> Registry:
    """What is installed, with a model that recommends settings."""
    loaded = registry()
    items = []
    for kind in ("transfer layer", "tuner", "modality", "loss", "metric"):
        for item in loaded.all(kind):
            items.append((kind, item, "simmat"))
    return Registry([], [*items, ("foundation model", spec, "wise 1.0")])


def settings(data: Path, out: Path, **given: object) -> dict[str, object]:
    """The settings of a user who names little."""
    return {
        "modality": "gray",
        "data": data,
        "out": out,
        "foundation": "wise",
        "heads": "prompt",
        "steps": 2,
        "device": "cpu",
        "pictures": False,
        **given,
    }


def test_a_model_recommends_and_the_user_decides(tmp_path: Path) -> None:
    """Settings that were measured for a model lived in a footnote, and nobody typed them."""
    data = gray_set(tmp_path / "data")
    config = load_config(
        None, settings(data, tmp_path / "run", precision="fp32", batch_size=2)
    )
    plans: list[training.RunInfo] = []

    class Listener(training.Callback):
        def started(self, run: training.RunInfo) -> None:
            plans.append(run)

    training.train(config, known(), Listener())
    (run,) = plans
    assert run.config.prompts_per_image == 3
    assert (run.config.precision, run.config.batch_size) == ("fp32", 2)
    (note,) = [note for note in run.notes if "Defaults of 'wise'" in note]
    assert "prompts_per_image = 3" in note.partition("Changed by you")[0]
    assert "image_size = 64" in note.partition("Changed by you")[0]
    assert "precision = fp32 (default: bf16)" in note
    assert "batch_size = 2 (default: 1)" in note
    # the settings of the run are those that it had
    written = load_config(tmp_path / "run/config.toml")
    assert written.prompts_per_image == 3
    assert with_recommended(written, known()) == written


def test_a_run_keeps_the_precision_that_was_measured_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run would otherwise change its results with the load of the machine."""
    data = gray_set(tmp_path / "data")
    spec = replace(RECOMMENDS, training={"precision": "auto"})
    monkeypatch.setattr(start, "faster_precision", lambda device: "bf16")
    config = load_config(None, settings(data, tmp_path / "run"))
    notes: list[str] = []

    class Listener(training.Callback):
        def started(self, run: training.RunInfo) -> None:
            notes.extend(run.notes)

    training.train(config, known(spec), Listener())
    (note,) = [note for note in notes if "Defaults of 'wise'" in note]
    assert "precision = bf16" in note
    assert "Changed by you" not in note
    monkeypatch.setattr(start, "faster_precision", lambda device: "fp32")
    file = tmp_path / "run/config.toml"
    assert load_config(file).precision == "bf16"
    training.resume(tmp_path / "run", known(spec))
    assert load_config(file).precision == "bf16"
