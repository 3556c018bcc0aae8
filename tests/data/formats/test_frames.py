"""Sequences: frames in order, of folders and of files, with the ids of their objects; none is cut by a split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import simmat
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.index import read_index
from simmat.data.samples import SPLITS_FILE, write_splits
from simmat.errors import DataError
from simmat.sensors.builtin import Gray, Raster

TIME = np.arange(12)[:, None, None]
# (T, H, W)
FRAMES = (TIME * 100 + np.arange(16 * 20).reshape(1, 16, 20) % 97).astype(np.uint16)


def masks(ids: tuple[int, ...] = (5, 9)) -> np.ndarray:
    """(T, H, W) two squares that move a column a frame; the second is absent in frame 4."""
    found = np.zeros(FRAMES.shape, np.uint8)
    for time in range(len(found)):
        found[time, 2:6, time : time + 4] = ids[0]
        if time != 4:
            found[time, 9:14, time + 2 : time + 6] = ids[1]
    return found


def save(path: Path, values: np.ndarray) -> None:
    """Write one image or many by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, values, photometric="minisblack")
    else:
        Image.fromarray(values).save(path)


def as_files(folder: Path, values: np.ndarray, name: str = "frame{}.png") -> None:
    """Write each frame to a file of its own."""
    for number, frame in enumerate(values):
        save(folder / name.format(number), frame)


def as_folders(root: Path) -> None:
    """Frames and masks as folders of files, of other names."""
    as_files(root / "frames/walk", FRAMES)
    as_files(root / "masks/walk", masks(), "object_{:03}.png")


def as_tiff(root: Path) -> None:
    """Frames and masks as pages."""
    save(root / "frames/walk.tif", FRAMES)
    save(root / "masks/walk.tif", masks())


def as_npy(root: Path) -> None:
    """Frames (T, C, H, W) and masks (T, H, W)."""
    save(root / "frames/walk.npy", FRAMES[:, None])
    save(root / "masks/walk.npy", masks())


def opened(root: Path, **card: object) -> Dataset:
    """The data set of a grey camera."""
    return open_dataset(root, Gray(), {"regions": "instances", **card})


@pytest.mark.parametrize("layout", [as_folders, as_tiff, as_npy])
def test_frames_are_samples_in_order_with_the_ids_of_their_objects(
    tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    """Whatever reads a data set gets frames as any image, frame10 after frame9, and no object is renumbered."""
    layout(tmp_path)
    dataset = opened(tmp_path)
    frames = dataset.sequences["walk"]
    assert [sample.frame for sample in frames] == list(range(12))
    for number, sample in enumerate(frames):
        np.testing.assert_array_equal(dataset.image(sample).data[0], FRAMES[number])
        assert [region.object_id for region in dataset.label(sample).regions] == (
            [5, 9] if number != 4 else [5]
        )
        np.testing.assert_array_equal(
            dataset[dataset.samples.index(sample)]["objects"], masks()[number]
        )
    assert not read_index(dataset).faults


def test_splits_never_cut_a_sequence(tmp_path: Path) -> None:
    """Neighbouring frames are nearly equal, so scores of a cut sequence would be those of training images."""
    for name in "abcd":
        as_files(tmp_path / "frames" / name, FRAMES)
        as_files(tmp_path / "masks" / name, masks())
    dataset = opened(tmp_path)
    of_sequence = {
        name: {one.split for one in frames}
        for name, frames in dataset.sequences.items()
    }
    assert all(len(splits) == 1 for splits in of_sequence.values())
    assert set.union(*of_sequence.values()) == {"train", "val", "test"}
    write_splits(tmp_path, dataset.new_splits)
    assert {
        line.split(",")[0] for line in (tmp_path / SPLITS_FILE).read_text().split()[1:]
    } == set("abcd")
    again = opened(tmp_path)
    assert [one.split for one in again.samples] == [
        one.split for one in dataset.samples
    ]


def test_folders_name_the_splits_of_sequences(tmp_path: Path) -> None:
    """As of single images; masks lie in the same folders."""
    save(tmp_path / "frames/train/a.tif", FRAMES)
    as_files(tmp_path / "frames/val/a", FRAMES)
    save(tmp_path / "masks/train/a.tif", masks())
    as_files(tmp_path / "masks/val/a", masks())
    dataset = opened(tmp_path)
    assert {name: frames[0].split for name, frames in dataset.sequences.items()} == {
        "train/a": "train",
        "val/a": "val",
    }
    assert len(dataset.samples) == 24


def test_a_sequence_of_a_manifest_is_read_by_its_name(tmp_path: Path) -> None:
    """Where names are no order, the manifest is; it needs no masks for that."""
    for name, frame in (("dusk", 1), ("dawn", 0)):
        save(tmp_path / f"{name}.png", FRAMES[frame])
    rows = "id,image,sequence,frame\nb,dusk.png,day,7\na,dawn.png,day,2\n"
    (tmp_path / "manifest.csv").write_text(rows)
    for path in (tmp_path / "manifest.csv/day", tmp_path / "manifest.csv"):
        frames = simmat.FrameSequence(path, "gray")
        assert frames.names == ("dawn", "dusk")
        np.testing.assert_array_equal([image.data[0] for image in frames], FRAMES[:2])
    (tmp_path / "manifest.csv").write_text(f"{rows}c,dawn.png,night,0\n")
    for path in (tmp_path / "manifest.csv", tmp_path / "manifest.csv/dya"):
        with pytest.raises(DataError, match="day, night"):
            simmat.FrameSequence(path, "gray")


def _rename(folder: str, before: str, after: str) -> Callable[[Path], None]:
    return lambda root: (root / folder / before).rename(root / folder / after)  # type: ignore[return-value]


BAD: dict[
    str, tuple[Callable[[Path], None], Callable[[Path], object], tuple[str, ...]]
] = {
    "two frames with one number": (
        as_folders,
        lambda root: save(root / "frames/walk/frame07.png", FRAMES[7]),
        ("'frame7'", "'frame07'", "same number", "manifest.csv"),
    ),
    "a frame is missing": (
        as_folders,
        lambda root: (root / "frames/walk/frame7.png").unlink(),
        ("'frame6'", "'frame8'", "missing"),
    ),
    "names without an order": (
        as_folders,
        _rename("frames/walk", "frame7.png", "last.png"),
        ("'last'", "not known", "manifest.csv"),
    ),
    "single images": (
        as_folders,
        lambda root: save(root / "frames/one.png", FRAMES[0]),
        ("single images",),
    ),
    "images beside frames": (
        as_folders,
        lambda root: (root / "images").mkdir(),
        ("images/", "frames/"),
    ),
    "annotations of unknown sequences": (
        as_folders,
        lambda root: (
            (root / "masks").rename(root / "old"),
            (root / "annotations.json").write_text("{}"),
        ),
        ("COCO", "sequence"),
    ),
    "a mask without a frame": (
        as_folders,
        lambda root: save(root / "masks/walk/object_012.png", masks()[0]),
        ("object_012.png", "without an image"),
    ),
    "fewer masks than frames": (
        as_tiff,
        lambda root: save(root / "masks/walk.tif", masks()[:9]),
        ("9", "12 frames"),
    ),
    "pages that differ": (
        as_tiff,
        lambda root: _write_pages(
            root / "frames/walk.tif", [FRAMES[0], FRAMES[1, :, :9]]
        ),
        ("walk.tif", "page 0", "page 1", "(16, 9)"),
    ),
    "a file that is cut": (
        as_tiff,
        lambda root: _cut(root / "frames/walk.tif"),
        ("walk.tif", "of the 12 pages", "cut short"),
    ),
    "two axes of pages": (
        as_tiff,
        lambda root: save(root / "frames/walk.tif", FRAMES.reshape(3, 4, 16, 20)),
        ("not known", "TCYX"),
    ),
    "an array of five axes": (
        as_npy,
        lambda root: save(root / "frames/walk.npy", FRAMES[None, None]),
        ("(T, C, H, W)",),
    ),
    "Python objects": (
        as_npy,
        lambda root: np.save(
            root / "frames/walk.npy", np.array([{}]), allow_pickle=True
        ),
        ("walk.npy", "Python objects"),
    ),
    "channels last": (
        as_npy,
        lambda root: save(root / "frames/walk.npy", np.zeros((3, 70, 80, 4), np.uint8)),
        ("looks like", "transpose"),
    ),
    "a video without its plugin": (
        as_folders,
        lambda root: (root / "frames/b.mov.nii").write_bytes(b"?"),
        ("b.mov.nii",),
    ),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _write_pages(path: Path, pages: list[np.ndarray]) -> None:
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, photometric="minisblack", metadata=None)


@pytest.mark.parametrize("case", BAD)
def test_bad_sequences_are_refused_by_name(tmp_path: Path, case: str) -> None:
    """Before anything is read as another frame than the user means."""
    layout, spoil, says = BAD[case]
    layout(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError) as error:
        opened(tmp_path)
    assert all(text in str(error.value) for text in says), str(error.value)
    # and nothing that only follows from it
    assert str(error.value).count("\n  - ") <= 1


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            "id,image,mask,sequence\na,frames/walk.tif/1,masks/walk.tif/1,w",
            "belong together",
        ),
        (
            "id,image,mask,sequence,frame\na,frames/walk.tif/1,masks/walk.tif/1,w,first",
            "line 2: frame 'first'",
        ),
        (
            "id,image,mask,sequence,frame\n"
            + "".join(f"{i},frames/walk.tif/{i},,w,1\n" for i in (1, 2)),
            "is in 2 rows",
        ),
        (
            "id,image,mask,sequence,frame,split\n"
            + "".join(
                f"{i},frames/walk.tif/{i},masks/walk.tif/{i},w,{i},{s}\n"
                for i, s in enumerate(("train", "val"))
            ),
            "sequence w is in train",
        ),
    ],
)
def test_a_manifest_without_a_clear_order_is_refused(
    tmp_path: Path, rows: str, says: str
) -> None:
    """Each fault by its line or sequence."""
    as_tiff(tmp_path)
    (tmp_path / "manifest.csv").write_text(rows)
    with pytest.raises(DataError, match=says):
        opened(tmp_path)


def test_dates_are_an_order_without_gaps(tmp_path: Path) -> None:
    """A time series of a satellite has a picture when there is one."""
    for date in ("2024-01-05", "2024-02-09", "2024-11-30"):
        save(tmp_path / f"{date}.png", FRAMES[0])
    assert simmat.FrameSequence(tmp_path, "gray").names == (
        "2024-01-05",
        "2024-02-09",
        "2024-11-30",
    )


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
@pytest.mark.parametrize("axes", ["TCYX", "CTYX"])
def test_pages_are_planes_of_frames_as_the_axes_say(
    tmp_path: Path, name: str, axes: str
) -> None:
    """Microscopes write all times of a channel, then those of the next; OME-TIFF says so in its own words."""
    frames = np.stack([FRAMES, FRAMES + 1], axis=1)  # (T, 2, H, W)
    stored = frames if axes == "TCYX" else frames.swapaxes(0, 1)
    about = {"axes": axes} | (
        {"PhysicalSizeZ": 3, "PhysicalSizeY": 2, "PhysicalSizeX": 1}
        if "ome" in name
        else {}
    )
    tifffile.imwrite(tmp_path / name, stored, photometric="minisblack", metadata=about)
    read = simmat.FrameSequence(tmp_path / name, "raster")
    np.testing.assert_array_equal([image.data for image in read], frames)
    assert read.spacing == (
        pytest.approx((3e-3, 2e-3, 1e-3)) if "ome" in name else None
    )


def test_a_sequence_reads_a_frame_when_it_is_asked_for(tmp_path: Path) -> None:
    """Two thousand frames must not be in memory for one."""
    read: list[str] = []

    class Counted(Raster):
        def load(self, files: simmat.PathsBySource) -> simmat.SensorImage:
            read.append(files["raster"].name)
            return super().load(files)

    two = np.stack([FRAMES, FRAMES + 1], axis=1)  # (T, 2, H, W)
    tifffile.imwrite(
        tmp_path / "a.tif", two, photometric="minisblack", metadata={"axes": "TCYX"}
    )
    frames = simmat.FrameSequence(tmp_path / "a.tif", Counted)
    assert (len(frames), frames.names[:2], frames.spacing, read) == (
        12,
        ("0000", "0001"),
        None,
        [],
    )
    np.testing.assert_array_equal(frames[-1].data, two[11])
    np.testing.assert_array_equal([image.data for image in frames[2:5]], two[2:5])
    assert read == ["0011", "0002", "0003", "0004"]


def test_a_sequence_refuses_a_frame_of_another_size(tmp_path: Path) -> None:
    """What follows an object over frames relies on one pixel grid."""
    as_files(tmp_path, FRAMES[:3])
    save(tmp_path / "frame3.png", FRAMES[3, 2:])
    with pytest.raises(DataError, match=r"20x14.*20x16"):
        list(simmat.FrameSequence(tmp_path, "gray"))


def test_imagej_states_the_spacing_of_a_stack(tmp_path: Path) -> None:
    """In millimetres, from its micrometres."""
    about = {"axes": "ZYX", "spacing": 5.0, "unit": "um"}
    tifffile.imwrite(
        tmp_path / "a.tif", FRAMES, imagej=True, metadata=about, resolution=(2, 4)
    )
    assert simmat.FrameSequence(tmp_path / "a.tif", "gray").spacing == pytest.approx(
        (0.005, 0.00025, 0.0005)
    )
