"""A student learns from pairs without labels; what it cannot learn from is refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from simmat_plugin_distill.command import from_untuned
from simmat_plugin_distill.matching import TeacherEmbeddings, relative_error, saved_loss
from simmat_plugin_distill.pairs import (
    Pairs,
    check_pairs,
    open_pairs,
    report_alignment,
)
from simmat_plugin_distill.teacher import write_masks

import simmat
from simmat.bundle import read_bundle_specs
from simmat.cli import run
from simmat.config import load_config
from simmat.data.instances import FoundObject, Instance
from simmat.errors import ConfigError
from simmat.foundation import ImageEmbedding
from simmat.io.reading import read_log
from simmat.plugins.loader import installed
from simmat.predictor import EverythingSettings, Predictor
from simmat.types import SensorImage, Window

COUNT, SIZE_HW = 5, (48, 64)
TINY = "--foundation tiny --image-size 64 --steps 2 --batch-size 2 --prompts-per-image 2 --device cpu --no-pictures"
TEACHER = "--teacher lite --teacher-image-size 128"


@pytest.fixture(autouse=True)
def _few_clicks_of_the_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the teacher search on a coarse grid; its masks are not looked at."""
    monkeypatch.setattr(
        "simmat_plugin_distill.teacher.SEARCH", EverythingSettings(grid=4)
    )


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Registered pairs of a colour and a grey camera: what is bright in one is dark in the other."""
    root = tmp_path / "pairs"
    for index in range(COUNT):
        rng = np.random.default_rng(index)
        rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
        colour = np.full((*SIZE_HW, 3), 60.0)
        for column in (16, 46):
            disc = (rows - rng.integers(16, 32)) ** 2 + (
                columns - column
            ) ** 2 < rng.integers(7, 11) ** 2
            colour[disc] = rng.integers(120, 255, 3)
        noise = rng.normal(0, 2, SIZE_HW)
        save(root / f"images/rgb/{index}.png", colour + noise[..., None])
        save(root / f"images/gray/{index}.png", 255 - colour.mean(axis=2) + noise)
    return root


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)


def distill(data: Path, out: Path, given: str = f"--modality gray {TEACHER}") -> int:
    return run(
        [*f"distill {given} {TINY}".split(), "--data", str(data), "--out", str(out)]
    )


def test_a_student_learns_from_pairs_without_labels(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its bundle is one like any other, and starts a training; its scores say that nobody checked the masks."""
    assert distill(pairs, tmp_path / "run") == 0
    assert (
        run(
            [
                "eval",
                str(tmp_path / "run"),
                "--data",
                str(tmp_path / "run/teacher"),
                "--split",
                "val",
            ]
        )
        == 0
    )
    assert "not checked by anyone" in capsys.readouterr().err
    bundle = simmat.load(tmp_path / "run")
    assert bundle.spec.modality == "gray"
    teacher = tmp_path / "run/teacher"
    dataset = simmat.open_dataset(teacher, "gray")
    assert len(dataset) == COUNT
    assert all(dataset.may_have_unmarked(sample) for sample in dataset.samples)
    more = [
        "train",
        "--modality",
        "gray",
        "--init",
        str(tmp_path / "run"),
        "--data",
        str(teacher),
        "--steps",
        "1",
    ]
    assert (
        run(
            [*more, "--device", "cpu", "--no-pictures", "--out", str(tmp_path / "more")]
        )
        == 0
    )


def test_a_student_joins_the_sensors_of_a_bundle(pairs: Path, tmp_path: Path) -> None:
    """Whether it holds one, or several by then."""
    assert distill(pairs, tmp_path / "1") == 0
    for number in (2, 3):
        start = f"--init {tmp_path / str(number - 1)} --new-sensor gray{number}"
        assert (
            distill(pairs, tmp_path / str(number), f"--modality gray {TEACHER} {start}")
            == 0
        )
    assert list(read_bundle_specs(tmp_path / "3")) == ["gray", "gray2", "gray3"]


def test_embeddings_of_the_same_model_are_matched(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are kept, no prompt is decoded, and a training is resumed without the teacher, and elsewhere."""
    given = "--foundation lite --image-size 64 --steps 1 --batch-size 2 --device cpu --no-pictures"
    out = tmp_path / "run"
    words = f"distill --modality gray --teacher lite {given} --data {pairs} --out {out}"
    assert run(words.split()) == 0
    assert len(list((out / "teacher/embeddings").iterdir())) == COUNT
    steps = [one for one in read_log(out / "metrics.jsonl") if one["kind"] == "train"]
    assert steps[0]["loss"] == steps[0]["embedding"] > 0
    assert "mask" not in steps[0]
    assert run(words.split()) == 2
    assert f"simmat train --resume {out}" in capsys.readouterr().err
    assert run(["train", "--resume", str(out)]) == 0
    assert run(["distill", "--resume", str(out), "--tolerance", "1"]) == 2
    assert "got --tolerance" in capsys.readouterr().err
    moved = out.rename(tmp_path / "moved")
    assert run(["distill", "--resume", str(moved)]) == 0


SCENE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
"""A level of 16 x 16 positions of stride 4, of which a teacher sees the left three quarters; the rest is padding."""


def compared(own: torch.Tensor, shift: float = 0.0) -> float:
    """Return the loss of a level beside that of the teacher."""
    wanted, content = SCENE.clone(), torch.ones(1, 64, 64, dtype=torch.bool)
    wanted[..., 12:], content[..., 48:] = 0, False
    targets = TeacherEmbeddings(Path(), shift=shift)
    return float(
        targets.of_images(
            ImageEmbedding((own,), (4.0,)), wanted.flatten(1).half(), content
        )
    )


def test_embeddings_are_compared_by_the_teachers_variance() -> None:
    """So every level counts alike, and the padding does not."""
    assert compared(SCENE) == pytest.approx(0, abs=1e-5)
    mean = SCENE[..., :12].mean((2, 3), keepdim=True)
    assert compared(mean.expand_as(SCENE)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("shift", "loss"), [(0.0, 2.0), (4 / 64, 0.0)])
def test_a_shift_of_a_pair_is_tolerated(shift: float, loss: float) -> None:
    """A pair that is a position off is compared where it fits, and not with the teacher's padding."""
    assert compared(SCENE.roll((1, -1), (2, 3)), shift) == pytest.approx(
        loss, abs=0.4 if loss else 1e-5
    )


def test_the_shift_on_a_level_of_few_positions_leaves_some_to_compare() -> None:
    """With none left, the loss would be 0, whatever the student sees."""
    level, inside = SCENE[..., :2, :2], torch.ones(1, 1, 2, 2, dtype=torch.bool)
    assert relative_error(-level, level, inside, reach=1) > 1


def test_what_is_matched_is_known_after_a_stop(tmp_path: Path) -> None:
    """A resumed training has the same loss."""
    kept = TeacherEmbeddings(tmp_path / "embeddings", "bce", 0.25)
    with pytest.raises(ConfigError, match="has no embeddings of a teacher"):
        saved_loss(tmp_path)
    kept.save()
    assert saved_loss(tmp_path) == kept


def test_borders_of_masks_may_be_ignored(pairs: Path, tmp_path: Path) -> None:
    """Where pairs are a pixel off, a student would learn the border at the wrong place."""
    write_masks(
        opened(pairs),
        cast(Predictor, Teacher()),
        tmp_path,
        progress=lambda done: None,
        tolerance=1,
    )
    dataset = simmat.open_dataset(tmp_path, "gray")
    label = dataset.label(dataset.samples[0])
    assert label.ignore[:, 31:33].all()
    assert label.ignore.sum() == 2 * 48 + 12**2 - 8**2
    assert not label.ignore[0, :31].any()
    assert max(region.area for region in label.regions) == 48 * 31 - (12**2 - 8**2)


def test_a_shift_is_tolerated_in_the_smallest_image(
    pairs: Path, tmp_path: Path
) -> None:
    """Where images differ in size, a pixel of that is the largest share."""
    for sensor in ("rgb", "gray"):
        path = pairs / f"images/{sensor}/1.png"
        save(path, np.asarray(Image.open(path)).repeat(2, 0).repeat(2, 1))
    side = write_masks(
        opened(pairs), cast(Predictor, Teacher()), tmp_path, progress=lambda done: None
    )
    assert side == max(SIZE_HW)


class Teacher:
    """Finds half of every image, and a part of it."""

    def __init__(self, digest: str = "of a teacher") -> None:
        self.digest, self.asked, self.pipeline = digest, 0, SimpleNamespace(size=64)

    def open_image(self, seen: Mapping[str, Path] | SensorImage) -> Any:
        self.asked += 1
        if self.digest == "stopped":
            raise KeyboardInterrupt
        if isinstance(seen, SensorImage):
            size_hw = seen.size_hw
        else:
            size_hw = Image.open(seen["rgb"]).size[::-1]
        whole, part = (
            FoundObject(
                Instance(None, window, np.ones(window.size_hw, np.bool_)),
                score,
                (1.0, 1.0),
            )
            for window, score in (
                (Window(0, 0, size_hw[0], 32), 0.9),
                (Window(10, 10, 20, 20), 0.8),
            )
        )
        return SimpleNamespace(
            reader=SimpleNamespace(size_hw=size_hw),
            segment_everything=lambda settings: [whole, part],
        )


def opened(data: Path, modality: str = "gray") -> Pairs:
    registry = installed()
    settings = load_config(
        None, {"modality": modality, "data": data, "out": data.parent / "run"}
    )
    return open_pairs(settings, registry.modality("rgb"), registry)


def taught(pairs: Pairs, out: Path, digest: str = "of a teacher") -> int:
    """Write the masks; return how many images the teacher was asked for."""
    teacher = Teacher(digest)
    write_masks(pairs, cast(Predictor, teacher), out, progress=lambda done: None)
    return teacher.asked


def test_masks_of_a_part_and_its_whole_are_both_kept(
    pairs: Path, tmp_path: Path
) -> None:
    """In a label image, the part would be a hole in the whole."""
    taught(opened(pairs), tmp_path / "teacher")
    dataset = simmat.open_dataset(tmp_path / "teacher", "gray")
    areas = {
        tuple(region.area for region in dataset.label(sample).regions)
        for sample in dataset.samples
    }
    assert areas == {(48 * 32, 100)}


def test_the_teachers_masks_are_made_once(pairs: Path, tmp_path: Path) -> None:
    """They take longer than the training; those of another teacher or of a new image are others, as damaged ones."""
    assert taught(opened(pairs), tmp_path / "teacher") == COUNT
    assert taught(opened(pairs), tmp_path / "teacher") == 0
    os.truncate(tmp_path / "teacher/found/2.json", 100)
    assert taught(opened(pairs), tmp_path / "teacher") == 1
    save(pairs / "images/rgb/1.png", np.zeros((*SIZE_HW, 3)))
    assert taught(opened(pairs), tmp_path / "teacher") == 1
    assert taught(opened(pairs), tmp_path / "teacher", "of another") == COUNT
    with pytest.raises(KeyboardInterrupt):
        taught(opened(pairs), tmp_path / "teacher", "stopped")
    # its embedding may be of the other one
    assert taught(opened(pairs), tmp_path / "teacher", "of another") == 1


def unaligned(pairs: Path, matrix: str = "[[1, 0, -6], [0, 1, -4], [0, 0, 1]]") -> None:
    """Let the grey camera see a part of what the colour camera sees, and state which."""
    for index in range(COUNT):
        file = pairs / f"images/gray/{index}.png"
        save(file, np.asarray(Image.open(file))[4:44, 6:60])
    stated = f"matrix = {matrix}\n" if matrix else ""
    (pairs / "card.toml").write_text(
        f'regions = "instances"\n[alignment.gray]\nreference = "rgb"\n{stated}'
    )


def test_the_teacher_sees_its_image_on_the_grid_of_the_student(
    pairs: Path, tmp_path: Path
) -> None:
    """The cameras of a rig have other positions and resolutions; masks must lie on what the student sees."""
    unaligned(pairs)
    found = opened(pairs)
    check_pairs(found)
    seen = found.teacher_image(found.samples[0])
    colour = np.asarray(Image.open(found.samples[0].files["rgb"]))
    np.testing.assert_array_equal(
        seen.data, colour[4:44, 6:60].transpose(2, 0, 1).astype(np.float32)
    )
    assert [channel.name for channel in seen.channels] == ["red", "green", "blue"]
    assert report_alignment(found).startswith(f"shift of {COUNT} pairs: median 0.0")
    assert taught(found, tmp_path / "teacher") == COUNT
    dataset = simmat.open_dataset(tmp_path / "teacher", "gray")
    assert all(
        dataset.image(sample).size_hw == (40, 54)
        and dataset.label(sample).regions[0].area == 40 * 32
        for sample in dataset.samples
    )
    assert taught(opened(pairs), tmp_path / "teacher") == 0
    card = pairs / "card.toml"
    card.write_text(card.read_text().replace("-6", "-5"))
    assert taught(opened(pairs), tmp_path / "teacher") == COUNT


def test_a_student_of_several_sensors_keeps_its_alignment(
    pairs: Path, tmp_path: Path
) -> None:
    """Its images are aligned when they are loaded, also where each pair has a matrix of its own."""
    unaligned(pairs, matrix="")
    own = [[1, 0, -6], [0, 1, -4], [0, 0, 1]]
    matrices = {f"{index}.png": own for index in range(COUNT)}
    (pairs / "images/gray/alignment.json").write_text(
        json.dumps({"format": 1, "matrices": matrices})
    )
    found = opened(pairs, "gray+rgb")
    taught(found, tmp_path / "teacher")
    dataset = simmat.open_dataset(tmp_path / "teacher", "gray+rgb")
    expected = {one.id: found.teacher_image(one).data for one in found.samples}
    for sample in dataset.samples:
        image = dataset.image(sample)
        np.testing.assert_array_equal(
            image.data[1:], expected[sample.id.rpartition("/")[2]]
        )


def test_teacher_and_student_may_have_one_sensor(pairs: Path) -> None:
    """A large model teaches a small one by photographs alone, in the plain layout."""
    shutil.rmtree(pairs / "images/gray")
    found = opened(pairs, "rgb")
    sample = found.samples[0]
    assert (
        found.teacher_files(sample)
        == found.student_files(sample)
        == {"rgb": pairs / "images/rgb/0.png"}
    )


def test_a_student_may_see_what_the_teacher_sees_and_more(pairs: Path) -> None:
    """A sensor that both have is there once."""
    sample = (found := opened(pairs, "gray+rgb")).samples[0]
    files = {name: pairs / f"images/{name}/0.png" for name in ("gray", "rgb")}
    assert found.student_files(sample) == files
    assert found.teacher_files(sample) == {"rgb": files["rgb"]}


def test_a_manifest_may_name_the_pairs(pairs: Path, tmp_path: Path) -> None:
    """It needs no column of masks, its splits hold, and its ids may be paths."""
    splits = ["train", "train", "val", "test", "test"]
    rows = [
        f"./day 1//{index},{split},images/rgb/{index}.png,images/gray/{index}.png"
        for index, split in enumerate(splits)
    ]
    (pairs / "manifest.csv").write_text("\n".join(["id,split,rgb,gray", *rows]))
    taught(opened(pairs), tmp_path / "teacher")
    dataset = simmat.open_dataset(tmp_path / "teacher", "gray")
    assert sorted(sample.split for sample in dataset.samples) == sorted(splits)
    assert (tmp_path / "teacher/found/day 1/0.json").exists()


def test_registered_pairs_are_not_called_shifted(pairs: Path) -> None:
    """What is bright for one sensor is dark for the other; their edges lie together."""
    assert (
        report_alignment(opened(pairs))
        == f"shift of {COUNT} pairs: median 0.0 px, 90 % within 0.0 px"
    )


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ({"foundation": "lite"}, ("mat-residual", "lora", {"where": "backbone"})),
        ({"foundation": "lite", "tune": "full"}, (None, "full", {})),
        ({"foundation": "tiny"}, (None, None, {})),
    ],
)
def test_a_student_starts_as_the_untuned_model(
    given: dict[str, Any], network: tuple[Any, ...]
) -> None:
    """It must not forget what it knows; one with a random decoder knows nothing."""
    settings = from_untuned(
        load_config(None, {"modality": "gray", "data": "pairs", "out": "run", **given}),
        installed(),
        decoder=True,
    )
    assert (settings.mat, settings.tune, settings.tune_options) == network


def shifted(pairs: Path) -> None:
    """Shift all grey images by 20 pixels."""
    for path in (pairs / "images/gray").iterdir():
        save(path, np.roll(np.asarray(Image.open(path)), (12, 16), axis=(0, 1)))


def shrunk(pairs: Path) -> None:
    """Halve one grey image."""
    path = pairs / "images/gray/3.png"
    save(path, np.asarray(Image.open(path))[::2, ::2])


def blank(pairs: Path) -> None:
    """Leave a grey image without a measurement."""
    save(pairs / "images/gray/3.png", np.zeros(SIZE_HW))
    (pairs / "card.toml").write_text("nodata = { gray = 0 }")


def labelled(pairs: Path) -> None:
    """Write the settings of a training with labels, which the call finds in the working folder."""
    (pairs.parent / "labelled.toml").write_text('regions = "classes"')


def cropped(pairs: Path) -> None:
    """Let the card cut images into windows."""
    (pairs / "card.toml").write_text("crop = 32")


def nothing(pairs: Path) -> None:
    """Leave all as it is."""


@pytest.mark.parametrize(
    ("spoil", "given", "named"),
    [
        (
            lambda pairs: (pairs / "images/gray/2.png").unlink(),
            TEACHER,
            ("'2'", "no file of 'gray'"),
        ),
        (shrunk, TEACHER, ("'3'", "64x48 of rgb", "32x24 of gray", "register")),
        (blank, TEACHER, ("'3'", "no pixel of gray", "remove this pair")),
        (
            partial(unaligned, matrix="[[1, 0, 900], [0, 1, 0], [0, 0, 1]]"),
            TEACHER,
            ("'3'", "alignment", "no pixel of rgb lies on gray"),
        ),
        (
            partial(unaligned, matrix=""),
            TEACHER,
            ("alignment.json", "simmat align"),
        ),
        (
            shifted,
            f"{TEACHER} --check-alignment",
            ("median 20.0 px", "not registered", "Register"),
        ),
        (nothing, "--teacher tiny", ("'tiny'", "random", "train it first")),
        (
            nothing,
            "--teacher lite --teacher-modality rgb+rgb",
            ("different modalities", "rgb+rgb"),
        ),
        (nothing, "--teacher mobilesm", ("no foundation model 'mobilesm'",)),
        (nothing, "", ("--teacher is missing",)),
        (
            nothing,
            f"{TEACHER} --match embeddings",
            ("--match embeddings", "128 px", "64 px", "--match masks"),
        ),
        (
            nothing,
            f"{TEACHER} --match embeddings --from-scratch",
            ("--match embeddings", "train a decoder"),
        ),
        (
            cropped,
            f"{TEACHER} --match embeddings",
            ("--match embeddings", "whole images", "crop would change them"),
        ),
        (
            nothing,
            f"{TEACHER} --resume run",
            ("--resume takes no other option", "--teacher"),
        ),
        (
            labelled,
            f"{TEACHER} --config labelled.toml",
            ("labelled.toml: regions", "leave it out"),
        ),
        (
            lambda pairs: shutil.rmtree(pairs / "images/gray"),
            TEACHER,
            ("no folder images/gray/",),
        ),
    ],
    ids=[
        "unpaired",
        "sizes",
        "no measurement",
        "aligned far away",
        "no matrix of a pair",
        "misaligned",
        "random decoder",
        "one sensor twice",
        "unknown teacher",
        "no teacher",
        "other shape",
        "random student",
        "crops",
        "resumed with options",
        "labels",
        "no sensor",
    ],
)
def test_bad_input_is_refused_by_name(
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    given: str,
    named: tuple[str, ...],
) -> None:
    """Nobody waits for a teacher to learn that the data is wrong."""
    monkeypatch.chdir(pairs.parent)
    spoil(pairs)
    assert distill(pairs, tmp_path / "run", f"--modality gray {given}") == 2
    said = capsys.readouterr().err
    assert all(part in said for part in named), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        (["a\0b", "c"], (r"'a\x00b'", "NUL", "rename it")),
        (["..", "c"], ("'..'", "rename it")),
        (["a/../b", "c"], ("'a/../b'", "rename it")),
        ([".", "c"], ("'.'", "rename it")),
        (["a", "./a"], ("'./a'", "same file as 'a'", "rename one")),
    ],
)
def test_an_id_that_cannot_name_a_file_is_refused(
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ids: list[str],
    named: tuple[str, ...],
) -> None:
    """Masks of two pairs in one file would be those of the second, and a path could lead out of the folder."""
    rows = [
        f"{id},images/rgb/{index}.png,images/gray/{index}.png"
        for index, id in enumerate([*ids, "x", "y", "z"])
    ]
    (pairs / "manifest.csv").write_text("\n".join(["id,rgb,gray", *rows]))
    assert distill(pairs, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert all(part in said for part in (str(pairs), *named)), said
    assert not (tmp_path / "run").exists()
    assert not (pairs / "splits.csv").exists()


def test_an_interrupted_teacher_goes_on_by_the_same_command(
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It takes hours of large models, and --resume is of the training."""

    def stop(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simmat_plugin_distill.teacher.write_masks", stop)
    assert distill(pairs, tmp_path / "run") == 130
    assert "repeat the command" in capsys.readouterr().err


def test_a_run_without_a_teacher_is_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its validation score is no agreement with one."""
    (tmp_path / "config.toml").write_text("")
    assert run(["distill", "--resume", str(tmp_path)]) == 2
    assert f"simmat train --resume {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["run", "pairs/images/run"])
def test_a_run_folder_in_use_is_refused(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """One that holds a run, or lies among the images."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.toml").write_text("")
    assert distill(pairs, tmp_path / place) == 2
    assert str(tmp_path / place) in capsys.readouterr().err
