"""Objects are followed through frames from the masks of a few of them; what is stopped is resumed."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tifffile
import torch
from bundles import tiny_bundle
from PIL import Image
from runs import die, files_of, registry
from scripted_model import Scripted, one_mask
from simmat_plugin_sequences.frame_grid import FrameGrid
from simmat_plugin_sequences.given_masks import read_given_masks
from simmat_plugin_sequences.job import FollowJob, follow_files
from simmat_plugin_sequences.labels import Labels
from simmat_plugin_sequences.propagation import propagate
from simmat_plugin_sequences.track_prompts import predicted_masks
from simmat_plugin_sequences.tracks import named_formats

from simmat.cli import run
from simmat.data.instances import region_from_mask
from simmat.data.pipeline import Pipeline
from simmat.data.sequence import FrameSequence
from simmat.errors import ConfigError, DataError
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.plugin_specs import ResultFormat
from simmat.predictor import FollowedFrame, Predictor
from simmat.sensors.builtin import Raster
from simmat.types import BoolArray, Channel, SensorImage, Window

CHANNELS = tuple(
    Channel(f"band{number}", "counts", "count", mean=0.0, std=1.0)
    for number in range(3)
)
COUNT, SIZE_HW = 12, (40, 70)
NOTHING = one_mask(np.zeros((32, 32), np.bool_))


def truth() -> np.ndarray:
    """(T, H, W) ids: object 1 goes to the right, 2 leaves over the right border in the frames 4 to 7."""
    found = np.zeros((COUNT, *SIZE_HW), np.uint8)
    for time in range(COUNT):
        found[time, 8:18, 12 + 2 * time : 22 + 2 * time] = 1
        if not 4 <= time < 8:
            found[time, 24:34, 60 + 2 * min(time, 11 - time) :] = 2
    return found


def planes(labels: np.ndarray) -> np.ndarray:
    """(T, C, H, W): background and objects differ in their direction, whatever the noise."""
    noise = np.random.default_rng(0).normal(
        0, 0.05, (len(labels), 3, *labels.shape[1:])
    )
    return (np.eye(3)[labels % 3].transpose(0, 3, 1, 2) + noise).astype(np.float32)


def frames(labels: np.ndarray) -> list[SensorImage]:
    return [SensorImage.from_planes(one, CHANNELS) for one in planes(labels)]


def predictor(model: Scripted | None = None) -> Predictor:
    """The features of the scripted network are the planes; its decoder finds nothing."""
    return Predictor(
        cast(SimMAT, model or Scripted(NOTHING)), Pipeline(Raster(), CHANNELS, 32)
    )


def iou(one: BoolArray, other: BoolArray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def followed(
    labels: np.ndarray, masks: Mapping[int, Any], **options: Any
) -> dict[int, FollowedFrame]:
    return {
        one.index: one for one in predictor().follow(frames(labels), masks, **options)
    }


@pytest.mark.parametrize(("tile", "least"), [(None, 0.8), (70, 0.5)])
def test_objects_keep_their_ids_through_windows_and_return(
    tile: int | None, least: float
) -> None:
    """A user labels one frame of two; ids that are swapped or invented would have to be found by eye."""
    known = truth()
    steps: list[tuple[int, int]] = []
    found = followed(
        known, {2: known[2]}, tile=tile, progress=lambda *step: steps.append(step)
    )
    assert list(found) == [*range(2, COUNT), 1, 0]
    assert steps[-1] == (COUNT, COUNT)
    for index, frame in found.items():
        assert iou(frame.masks[1], known[index] == 1) > least, index
        if (known[index] == 2).any():
            assert iou(frame.masks[2], known[index] == 2) > least, index
        else:
            assert not frame.masks[2].any(), index
            assert frame.scores[2] == 0


def test_a_correction_counts_from_its_frame_on_and_blends_back() -> None:
    """The user paints what was lost in one frame; frames on both sides of it must not be painted again."""
    known = truth()
    known[:, 26:36, 20:30] = 4  # looks as object 1
    first = {0: {1: known[0] == 1, 2: known[0] == 2}}
    found = followed(known, {**first, 6: {1: known[6] == 4}})
    assert iou(found[1].masks[1], known[1] == 1) > 0.8
    for index in range(6, COUNT):
        assert iou(found[index].masks[1], known[index] == 4) > 0.8, index
    # which the correction does not name
    assert iou(found[9].masks[2], known[9] == 2) > 0.8
    # which an image lacks
    assert (
        not followed(known[:3], {**first, 2: known[2] * (known[2] == 1)})[2]
        .masks[2]
        .any()
    )


def test_an_object_that_only_a_later_frame_names_is_in_all_frames() -> None:
    """Each object is clicked where it is seen best, and all of them are looked for in every frame."""
    known = truth()
    known[:, 26:36, 4:14] = 5
    steps: list[tuple[int, int]] = []
    given = {2: {1: known[2] == 1}, 6: {1: known[6] == 1}, 9: {5: known[9] == 5}}
    found = followed(known, given, progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert sorted(found) == [*range(COUNT)]
    for index, frame in found.items():
        assert iou(frame.masks[1], known[index] == 1) > 0.8, index
        assert iou(frame.masks[5], known[index] == 5) > 0.8, index
        assert min(frame.scores.values()) > 0.5, index


def test_frames_without_a_measurement_have_no_masks() -> None:
    """A satellite sees only clouds for weeks; the fields are the same ones afterwards, whatever frame is given."""
    known = truth()
    seen = frames(known)
    for index in (3, 4, 5, 6, 10):
        seen[index].valid[:] = False
    found = {
        one.index: one
        for one in predictor().follow(seen, {0: known[0], 11: {1: known[11] == 1}})
    }
    for index, frame in found.items():
        if seen[index].valid.any():
            assert iou(frame.masks[1], known[index] == 1) > 0.7, index
        else:
            assert not frame.masks[1].any(), index
            assert frame.scores == {1: 0, 2: 0}
    with pytest.raises(DataError, match="no pixel holds a measurement"):
        list(predictor().follow(seen, {3: known[3]}))


def test_the_decoder_refines_what_it_is_trusted_with() -> None:
    """Where the decoder gives the mask that the user drew, its masks are better than propagated ones."""
    known = np.zeros((2, 32, 32), np.uint8)
    known[:, 10:20, 10:20] = 1
    model = Scripted(one_mask(known[0] == 1))
    hidden = frames(known)
    hidden[1].data[:, 10:20, 17:20] = hidden[1].data[:, :10, :3]  # from the features
    found = list(predictor(model).follow(hidden, {0: known[0]}))
    assert iou(found[1].masks[1], known[1] == 1) == 1


class SeesObject(Scripted):
    """Its decoder answers with the pixels of object 1 in the window that was encoded."""

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Find the object, in a window that is smaller than the frame."""
        planes = embedding.levels[0][0]
        seen = planes.argmax(0) == 1
        self.answers = one_mask(seen.numpy()) if seen.float().mean() > 0.3 else NOTHING
        return super().decode(embedding, prompts)


@pytest.mark.parametrize("corner", [0, 21, 43])
def test_a_decoder_that_sees_an_object_larger_draws_its_border(corner: int) -> None:
    """Cells of the features are coarse; at the frame's border, too, the window must be where the object is."""
    known = np.zeros((3, 64, 64), np.uint8)
    for time in range(3):
        known[time, corner : corner + 21, 15 + 2 * time : 36 + 2 * time] = 1
        # narrower than a cell
        known[time, corner + 7 : corner + 8, 15 + 2 * time : 30 + 2 * time] = 0
    coarse, fine = (
        [
            iou(one.masks[1], known[one.index] == 1)
            for one in predictor(model).follow(frames(known), {0: known[0]})
        ][1:]
        for model in (Scripted(NOTHING), SeesObject(NOTHING))
    )
    assert min(fine) > max(coarse)


def test_borders_are_drawn_where_they_cost_no_more_than_the_rest() -> None:
    """A window around each of many objects would make a frame many times as expensive."""
    known = np.zeros((2, 64, 64), np.uint8)
    known[:, 21:42, 5:26] = 1
    known[:, 21:42, 35:56] = 2
    one, both = SeesObject(NOTHING), SeesObject(NOTHING)
    list(predictor(one).follow(frames(known), {0: known[0] * (known[0] == 1)}))
    list(predictor(both).follow(frames(known), {0: known[0]}))
    # around the given mask, and around the one that is found
    assert len(one.encoded) == len(both.encoded) + 2


@pytest.mark.parametrize(
    ("frame_hw", "tile", "padded"),
    [((40, 70), 70, True), ((40, 70), 70, False), ((300, 210), 70, True)],
)
def test_the_label_of_an_object_is_the_share_of_each_cell(
    frame_hw: tuple[int, int], tile: int, padded: bool
) -> None:
    """Only the cells of the object are computed; they must be those of the whole frame, to the last bit."""
    grid = FrameGrid(frame_hw, tile, 32, padded=padded)
    rng = np.random.default_rng(0)
    for _ in range(20):
        y0, x0 = rng.integers(0, (frame_hw[0] - 12, frame_hw[1] - 12))
        mask = np.zeros(frame_hw, np.bool_)
        mask[y0 : y0 + 12, x0 : x0 + 12] = rng.random((12, 12)) < 0.5
        region = region_from_mask(mask, None)
        assert region is not None
        height, width = frame_hw
        if tile < height:  # windows go beyond the frame
            cell = -(-tile // 32)
            height, width = cell * grid.size_hw[0], cell * grid.size_hw[1]
        elif padded:
            height, width = tile, tile
        whole = np.zeros((1, height, width), np.float32)
        whole[0, : frame_hw[0], : frame_hw[1]] = mask
        expected = torch.nn.functional.adaptive_avg_pool2d(
            torch.from_numpy(whole), grid.size_hw
        )[0]
        found = Labels({1: grid.label(region)}).within([1], Window(0, 0, *grid.size_hw))
        assert np.array_equal(found[0], expected.numpy())


def formats(*names: str) -> tuple[ResultFormat, ...]:
    return named_formats(names, registry("simmat-plugin-sequences"))


def job(folder: Path, out: str, masks: Mapping[int, Any], **changes: Any) -> FollowJob:
    """The frames of `truth` as a TIFF."""
    file = folder / "frames.tif"
    if not file.exists():
        tifffile.imwrite(
            file, planes(truth()), metadata={"axes": "TCYX"}, photometric="minisblack"
        )
    values: dict[str, Any] = {
        "tile": None,
        "formats": formats("coco", "mots", "volume"),
        "min_score": 0.5,
        **changes,
    }
    return FollowJob(
        FrameSequence(file, Raster()), read_given_masks(masks), folder / out, **values
    )


def test_the_files_say_the_same(tmp_path: Path) -> None:
    """Whatever reads them, a track is one object, and a person is told where to look."""
    known = truth()
    files = follow_files(predictor(), job(tmp_path, "out", {0: known[0]}))
    out = tmp_path / "out"
    masks = np.stack(
        [
            np.asarray(Image.open(out / f"labels/{index:04}.png"))
            for index in range(COUNT)
        ]
    )
    assert np.array_equal(tifffile.imread(out / "volume.tif"), masks)
    follow_files(
        predictor(),
        job(tmp_path, "out", {0: known[0]}, formats=formats("volume"), smooth=1),
    )
    votes = (masks[4:7] == 1).sum(0) >= 2
    assert np.array_equal(tifffile.imread(out / "volume.tif")[5] == 1, votes)
    mots = np.asarray(Image.open(out / "mots/0003.png"))
    assert np.array_equal(mots, np.where(masks[3], masks[3] + 1000, 0))
    coco = json.loads((out / "coco.json").read_text())
    tracks = {
        (one["image_id"] - 1, one["track_id"]): one["area"]
        for one in coco["annotations"]
    }
    assert tracks == {
        (index, number): int((masks[index] == number).sum())
        for index in range(COUNT)
        for number in (1, 2)
        if (masks[index] == number).any()
    }
    assert 2 in files.unsure[4]  # where it left
    assert 5 not in files.unsure
    back = follow_files(predictor(), job(tmp_path, "back", {9: known[9]}))
    assert 2 in back.unsure[7]  # where it left, as seen from the end
    assert 5 not in back.unsure
    gone = follow_files(predictor(), job(tmp_path, "gone", {0: known[0], 4: known[4]}))
    assert 4 not in gone.unsure  # as a person has said
    lines = (out / "frames.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * COUNT
    assert lines[1 + 2 * 4 + 1] == "4,0004,2,0,0.000,yes"


def test_a_table_has_the_values_of_each_object_in_each_frame(tmp_path: Path) -> None:
    """A temperature over time is why an object is followed; what a person gives is measured as it is."""
    known = truth()
    tracked = job(tmp_path, "out", {0: known[0]}, formats=formats("csv"))
    follow_files(predictor(), tracked)
    with (tmp_path / "out/objects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = set()
    for row in rows:
        labels = np.asarray(Image.open(tmp_path / f"out/labels/{row['image']}.png"))
        is_mine = labels == int(row["label"])
        frame = tracked.frames[tracked.frames.names.index(row["image"])]
        for channel, plane in zip(frame.channels, frame.data, strict=True):
            column = f"intensity_mean-{channel.name} [{channel.unit}]"
            assert float(row[column]) == pytest.approx(plane[is_mine].mean(), rel=1e-5)
        found.add((row["image"], row["label"]))
    assert ("0000", "1") in found
    assert len(found) == len(rows) > COUNT


def test_objects_with_and_without_a_class_stay_apart(tmp_path: Path) -> None:
    """500 is an object without a class, 1500 one of class 1, and 1000 * 1 + 500 would be both."""
    known = truth()[0]
    follow_files(
        predictor(), job(tmp_path, "out", {0: np.array([0, 500, 1500])[known]})
    )
    mots = np.asarray(Image.open(tmp_path / "out/mots/0000.png"))
    assert np.array_equal(mots, np.array([0, 2500, 1500])[known])
    coco = json.loads((tmp_path / "out/coco.json").read_text())
    names = {one["id"]: one["name"] for one in coco["categories"]}
    assert {
        one["track_id"]: names[one["category_id"]] for one in coco["annotations"]
    } == {500: "object", 1500: "1"}


def test_a_mask_that_a_person_has_painted_is_not_replaced(tmp_path: Path) -> None:
    """A correction that the next call forgets would be lost without a word, and be painted again."""
    known = truth()
    follow_files(predictor(), job(tmp_path, "out", {0: known[0]}))
    painted = tmp_path / "out/labels/0005.png"
    Image.fromarray(known[7]).save(painted)
    follow_files(predictor(), job(tmp_path, "out", {0: known[0]}))
    with pytest.raises(ConfigError, match=r"0005\.png: was changed after .*--mask"):
        follow_files(predictor(), job(tmp_path, "out", {0: known[0], 9: known[9]}))
    assert np.array_equal(np.asarray(Image.open(painted)), known[7])
    follow_files(
        predictor(), job(tmp_path, "out", {0: known[0], 5: known[7], 9: known[9]})
    )
    assert np.array_equal(np.asarray(Image.open(painted)), known[7])


def follow_and_die(folder: Path, out: str, masks: Mapping[int, Any], stop: int) -> None:
    """Follow, and die at a step as by a power cut; for a process of its own."""
    torch.set_num_threads(1)
    follow_files(
        predictor(),
        job(folder, out, masks),
        lambda done, total: die() if done == stop else None,
    )


@pytest.mark.parametrize(
    ("names", "stops"),
    [({3: (1, 2), 9: (1,)}, (2, 12)), ({3: (2,), 6: (2,), 9: (1,)}, (7, 16))],
)
def test_a_killed_call_is_resumed_at_any_frame(
    tmp_path: Path, names: dict[int, tuple[int, ...]], stops: tuple[int, ...]
) -> None:
    """Two thousand frames take minutes; what is resumed must be what was never stopped."""
    known = truth()
    masks = {
        key: {number: known[key] == number for number in own}
        for key, own in names.items()
    }
    follow_files(predictor(), job(tmp_path, "whole", masks))
    whole = files_of(tmp_path / "whole")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["simmat_plugin_sequences.job", "simmat.predictor"])
    # forward from a mask, back from the next, after the last
    for stop in stops:
        process = context.Process(
            target=follow_and_die, args=(tmp_path, f"stopped{stop}", masks, stop)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        again = job(tmp_path, f"stopped{stop}", masks)
        follow_files(predictor(), again)
        found = files_of(again.out)
        log = ".follow/log.jsonl"
        assert sorted(found.pop(log).splitlines()) == sorted(whole[log].splitlines())
        assert found == {
            name: content for name, content in whole.items() if name != log
        }, stop
    model = Scripted(NOTHING)
    follow_files(predictor(model), job(tmp_path, "whole", masks))
    assert model.encoded == []  # all is done
    follow_files(predictor(model), job(tmp_path, "whole", {**masks, 11: known[11]}))
    log = (tmp_path / "whole/.follow/log.jsonl").read_text().splitlines()
    assert len(log) == COUNT


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(),
    reason="the memory of a process is read there",
)
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    """A night of a thermal camera has 100,000 frames."""
    count, known = 2000, truth()[:, :, :32]  # object 1 goes out of the picture and back
    there_and_back = np.resize([*range(6), *range(4, 0, -1)], count)
    stored = np.lib.format.open_memmap(
        tmp_path / "a.npy", "w+", np.float32, (count, 3, *known.shape[1:])
    )
    stored[:] = planes(known)[there_and_back]
    del stored
    model, resident = Scripted(NOTHING), {}
    model.encoded = deque(maxlen=1)  # type: ignore[assignment]

    def note(done: int) -> None:
        resident[done] = (
            int(Path("/proc/self/statm").read_text().split()[1])
            * os.sysconf("SC_PAGE_SIZE")
            / 2**20
        )

    frames, masks = (
        FrameSequence(tmp_path / "a.npy", Raster()),
        read_given_masks({0: known[0]}),
    )
    whole = FollowJob(
        frames, masks, tmp_path / "out", None, formats("coco", "volume"), 0.5
    )
    follow_files(predictor(model), whole, lambda done, total: note(done))
    note(count + 1)
    assert resident[count] - resident[200] < 8, "MiB, while frames are followed"
    assert resident[count + 1] - resident[200] < 48, "MiB, with the files of all frames"


@pytest.mark.plugins("sequences")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("sizes --mask right.png@0", "is 56x30 of"),
        ("order --mask right.png@0", "the order of 'early' and 'late' is not known"),
        ("gap --mask right.png@0", "frames are missing between 'frame1' and 'frame3'"),
        ("broken --mask right.png@0", "frame2.png"),
        ("seq --mask small.png@0", "small.png: the mask is 20x20"),
        ("seq --mask frame1.png@2", "named as frame 'frame1'"),
        ("seq --mask right.png@7", "no frame '7'"),
        (f"seq --mask right.png@{'7' * 5000}", "no frame '777"),
        ("seq --mask right.png", "no frame 'right'"),
        ("seq --mask empty.png@0", "no object"),
        ("seq", "--mask IMAGE@FRAME"),
        ("seq --mask right.png@0 --axis x", "--axis x is for a volume"),
        (
            "seq --mask right.png@0 --format video",
            "no sequence format 'video'. Available: coco",
        ),
        ("seq --mask right.png@0 --out full", "did not write"),
        ("seq --prompts same.csv", "'1' and '01' are both number 1"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: str,
    said: str,
) -> None:
    """The mask of another frame would be followed as if it were right."""
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "bundle")
    grey = Image.fromarray(np.full((40, 56), 60, np.uint8))
    for folder in ("seq", "full", "sizes", "order", "gap", "broken"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            grey.save(f"{folder}/frame{number}.png")
    grey.crop((0, 0, 56, 30)).save("sizes/frame2.png")
    for number, name in enumerate(("early", "late", "middle")):
        Path(f"order/frame{number}.png").rename(f"order/{name}.png")
    Path("gap/frame2.png").rename("gap/frame3.png")
    Path("broken/frame2.png").write_bytes(Path("seq/frame2.png").read_bytes()[:60])
    for name, value, size_hw in (
        ("right", 1, (40, 56)),
        ("frame1", 1, (40, 56)),
        ("empty", 0, (40, 56)),
        ("small", 1, (20, 20)),
    ):
        Image.fromarray(np.full(size_hw, value, np.uint8)).save(f"{name}.png")
    Path("same.csv").write_text(
        'file,object,point\nframe0.png,1,"3,4"\nframe0.png,01,"40,20"\n'
    )
    assert (
        run(["follow", "bundle", "--out", "out", "--device", "cpu", *call.split()]) == 2
    )
    assert said in capsys.readouterr().err
    later = call.startswith(("sizes", "broken"))  # seen when the third frame is read
    assert Path("out").exists() == later


def test_the_objects_of_a_prompts_file_have_ids_from_1(tmp_path: Path) -> None:
    """An object of id 0 would be the background of the results."""
    np.save(tmp_path / "a.npy", planes(truth()))
    (tmp_path / "p.csv").write_text(
        'file,object,point\n3,0,"3,4"\n3,cat,"9,9"\n3,1,"20,20"\n3,03,"2,2"\n'
    )
    model = predictor(Scripted(one_mask(np.ones((32, 32), np.bool_))))
    masks = predicted_masks(
        model, tmp_path / "p.csv", FrameSequence(tmp_path / "a.npy", Raster())
    )
    assert list(masks) == [3]
    assert list(masks[3].regions) == [2, 4, 1, 3]


@pytest.mark.plugins("sequences")
@pytest.mark.parametrize("name", ["cat", "1"])
def test_the_command_follows_prompts_into_a_film(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Every frame has a mask, and the film every frame; objects may be named by words or by their ids."""
    (tmp_path / "seq").mkdir()
    for number in range(3):
        Image.fromarray(
            np.random.default_rng(number).integers(0, 99, (40, 56), np.uint8)
        ).save(tmp_path / f"seq/frame{number}.png")
    (tmp_path / "prompts.csv").write_text(
        f'file,object,box\nframe1.png,{name},"5,5,30,30"\n'
    )
    words = [
        "follow",
        str(tiny_bundle(tmp_path / "bundle")),
        str(tmp_path / "seq"),
        "--out",
        str(tmp_path / "out"),
    ]
    words += ["--prompts", str(tmp_path / "prompts.csv"), "--device", "cpu"]
    assert run(words) == 0
    assert "overlay." in capsys.readouterr().out
    assert len(list((tmp_path / "out/labels").glob("*.png"))) == 3


@pytest.mark.parametrize(("y", "x"), [(0, 0), (13, 29), (33, 41)])
def test_a_label_moves_with_its_features_wherever_it_is(y: int, x: int) -> None:
    """Only positions that a label can reach are compared: at borders and between blocks, too."""
    features = torch.nn.functional.normalize(
        torch.randn(32, 40, 48, generator=torch.Generator().manual_seed(0)), dim=0
    )
    label = torch.zeros(1, 40, 48)
    label[:, y : y + 11, x : x + 11] = 1
    moved = propagate(features.roll((3, -4), (1, 2)), [features], [label], 5)
    expected = label.roll((3, -4), (1, 2))
    inside = np.s_[:, 8:-8, 8:-8]  # the roll takes what leaves one border to the other
    torch.testing.assert_close(moved[inside].round(), expected[inside])
    assert not propagate(features, [features], [torch.zeros_like(label)], 5).any()
