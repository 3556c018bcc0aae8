"""Slices of NIfTI files and DICOM series have the values, the order and the spacing that the files state."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image
from simmat_plugin_sequences.nifti import write_labels

import simmat
from simmat.cli import run
from simmat.data.dataset import open_dataset
from simmat.errors import DataError
from simmat.io.frames import open_stack
from simmat.io.limits import LIMIT_VARIABLE
from simmat.sensors.builtin import Gray

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

# (X, Y, Z)
VOLUME = np.random.default_rng(0).integers(-1000, 1000, (9, 10, 7)).astype(np.int16)
SPACING = (0.8, 0.9, 3.0)


def save_nifti(
    path: Path, values: np.ndarray, spacing: tuple[float, ...] = SPACING
) -> None:
    """Write a volume (X, Y, Z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*spacing, 1.0])), path)


def save_dicom(
    folder: Path, *, places: list[float] | None = None, **tags: object
) -> None:
    """Write the slices of `VOLUME`, stored with an intercept of -1024, in files whose names are not in their order."""
    folder.mkdir(parents=True)
    series = pydicom.uid.generate_uid()
    for number, place in enumerate(
        places or [SPACING[2] * index for index in range(VOLUME.shape[2])]
    ):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID = (
            pydicom.uid.CTImageStorage,
            pydicom.uid.generate_uid(),
        )
        one.SeriesInstanceUID, one.Modality = series, "CT"
        plane = (VOLUME[:, :, number].T + 1024).astype(np.uint16)
        one.Rows, one.Columns = plane.shape
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = (
            16,
            16,
            15,
            0,
        )
        one.PixelSpacing, one.ImageOrientationPatient = (
            [SPACING[1], SPACING[0]],
            [1, 0, 0, 0, 1, 0],
        )
        one.ImagePositionPatient = [0, 0, place]
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        for name, value in tags.items():
            setattr(one, name, value)
        one.PixelData = plane.tobytes()
        one.save_as(folder / f"{(7 * number) % 10}.dcm", enforce_file_format=True)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "series"])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_slices_along_any_axis(tmp_path: Path, name: str, axis: str) -> None:
    """Rows and columns are the other two axes, the later one down; so for an image and for its mask."""
    save_dicom(tmp_path / name) if name == "series" else save_nifti(
        tmp_path / name, VOLUME
    )
    slices = simmat.FrameSequence(tmp_path / name, "gray", axis=axis)
    along = "xyz".index(axis)
    expected = [np.take(VOLUME, index, along).T for index in range(VOLUME.shape[along])]
    np.testing.assert_array_equal([image.data[0] for image in slices], expected)
    np.testing.assert_array_equal(slices[2].data[0], expected[2])  # back from the end
    across = [SPACING[number] for number in (2, 1, 0) if number != along]
    assert slices.spacing == pytest.approx((SPACING[along], *across))


@pytest.mark.parametrize("name", ["a.nii.gz", "series"])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_labels_of_slices_are_written_on_the_grid_of_the_volume(
    tmp_path: Path, name: str, axis: str
) -> None:
    """A viewer of CT lays them over the volume by the affine; turned or shifted ones would look like a bad model."""
    save_dicom(tmp_path / name) if name == "series" else save_nifti(
        tmp_path / name, VOLUME
    )
    labels = (VOLUME > 0).astype(np.uint16)
    stack = open_stack(tmp_path / name, axis)
    along = "xyz".index(axis)
    planes = (np.take(labels, index, along).T for index in range(labels.shape[along]))
    write_labels(tmp_path / "labels.nii.gz", planes, stack, axis)
    found = nibabel.load(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), labels)
    np.testing.assert_allclose(found.affine, stack.affine)
    assert found.get_data_dtype() == np.uint16


def test_values_are_scaled_as_the_header_says(tmp_path: Path) -> None:
    """Stored integers of a CT are Hounsfield units only then."""
    image = nibabel.Nifti1Image(VOLUME, np.eye(4))
    image.header.set_slope_inter(2, -10)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(
        simmat.FrameSequence(tmp_path / "a.nii", "gray")[3].data[0],
        2.0 * VOLUME[:, :, 3].T - 10,
    )


def test_padding_of_dicom_is_no_measurement(tmp_path: Path) -> None:
    """Each slice has its own scale, as in PET, and the padding of signed pixels may be written unsigned."""
    stored = VOLUME.astype(np.float64) + 1024
    padding = int(stored[1, 1, 1])
    save_dicom(tmp_path / "a", PixelPaddingValue=padding, RescaleSlope=0.1)
    first = tmp_path / "a/0.dcm"
    one = pydicom.dcmread(first)
    one.RescaleSlope, one.PixelRepresentation = 0.2, 1
    one.PixelData = np.full(VOLUME.shape[1::-1], -2000, np.int16).tobytes()
    one.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    one.save_as(first)
    expected = np.where(stored == padding, np.nan, stored * 0.1 - 1024).astype(
        np.float32
    )
    expected[:, :, 0] = np.nan
    for axis, cut in (("z", expected[:, :, 1]), ("x", expected[1])):
        image = simmat.FrameSequence(tmp_path / "a", "gray", axis=axis)[1]
        np.testing.assert_array_equal(
            np.where(image.valid, image.data, np.nan)[0], cut.T
        )


def test_a_tilted_series_has_an_oblique_affine(tmp_path: Path) -> None:
    """Slices of a tilted gantry are shifted along their rows, as in the NIfTI file that is made of them."""
    save_dicom(tmp_path / "a")
    for file in (tmp_path / "a").iterdir():
        one = pydicom.dcmread(file)
        one.ImagePositionPatient = [
            0,
            one.ImagePositionPatient[2] / 3,
            one.ImagePositionPatient[2],
        ]
        one.save_as(file)
    stack = open_stack(tmp_path / "a", "z")
    assert stack.spacing_mm == pytest.approx((3, 0.9, 0.8))
    np.testing.assert_allclose(stack.affine[:3, 2], [0, -1, 3])


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_slice_that_was_rewritten_in_place_is_read_again(
    tmp_path: Path, axis: str
) -> None:
    """The time of the folder stays; an annotator that runs for days would go on with the old pixels."""
    save_dicom(tmp_path / "a")
    before = simmat.FrameSequence(tmp_path / "a", "gray", axis=axis)[1]
    for file in (tmp_path / "a").iterdir():
        one = pydicom.dcmread(file)
        one.PixelData = (one.pixel_array + 1).tobytes()
        one.save_as(file)
    after = simmat.FrameSequence(tmp_path / "a", "gray", axis=axis)[1]
    assert (after.data[after.valid] != before.data[after.valid]).all()


def test_a_slice_by_itself_is_no_series(tmp_path: Path) -> None:
    """Its folder is."""
    save_dicom(tmp_path / "a")
    with pytest.raises(DataError, match="give their folder"):
        simmat.FrameSequence(tmp_path / "a/0.dcm", "gray")


def test_a_volume_is_a_sequence_of_a_data_set(tmp_path: Path) -> None:
    """With its mask as a volume, along the axis of the card; a split never cuts it."""
    labels = (VOLUME > 0).astype(np.uint8) * 3
    for name in "abc":
        save_nifti(tmp_path / f"frames/{name}.nii.gz", VOLUME)
        save_nifti(tmp_path / f"masks/{name}.nii.gz", labels)
    dataset = open_dataset(tmp_path, Gray(), {"regions": "classes", "stack_axis": "y"})
    assert {
        name: len(frames) for name, frames in dataset.sequences.items()
    } == dict.fromkeys("abc", 10)
    item = dataset[2]
    assert item["id"] == "a/0002"
    np.testing.assert_array_equal(item["image"][0], VOLUME[:, 2].T)
    np.testing.assert_array_equal(item["objects"], labels[:, 2].T)
    assert len({sample.split for sample in dataset.sequences["a"]}) == 1


def test_a_mask_of_other_voxels_is_refused(tmp_path: Path) -> None:
    """One that another program has turned has the same size, and other objects at each pixel."""
    save_nifti(tmp_path / "frames/a.nii", VOLUME)
    save_nifti(tmp_path / "masks/a.nii", np.abs(VOLUME), (-0.8, 0.9, 3.0))
    with pytest.raises(DataError, match=r"masks/a\.nii.*affines differ"):
        open_dataset(tmp_path, Gray(), {"regions": "classes"})


def test_a_dicom_series_and_a_nifti_mask_share_a_grid(tmp_path: Path) -> None:
    """DICOM counts towards the left and back, NIfTI towards the right and front."""
    save_dicom(tmp_path / "frames/a")
    save_nifti(tmp_path / "masks/a.nii", np.abs(VOLUME), (-0.8, -0.9, 3.0))
    dataset = open_dataset(tmp_path, Gray(), {"regions": "classes"})
    np.testing.assert_array_equal(
        dataset.image(dataset.samples[1]).data[0], VOLUME[:, :, 1].T
    )


@pytest.mark.parametrize(
    ("places", "tags", "says"),
    [
        ([0, 3, 6, 12, 15, 18, 21], {}, "6 mm apart, other slices 3 mm"),
        ([0, 3, 6, 6, 9, 12, 15], {}, "0 mm apart"),
        (None, {"ImagePositionPatient": None}, "order of its slices is not known"),
        (None, {"NumberOfFrames": 2}, "one slice of one plane"),
        (
            None,
            {"PhotometricInterpretation": "PALETTE COLOR"},
            "one slice of one plane",
        ),
    ],
)
def test_a_series_without_an_even_order_is_refused(
    tmp_path: Path, places: list[float] | None, tags: dict[str, object], says: str
) -> None:
    """A missing slice, two of one place, no place at all, several slices a file."""
    save_dicom(tmp_path / "a", places=places, **tags)
    with pytest.raises(DataError, match=says):
        simmat.FrameSequence(tmp_path / "a", "gray")


def test_two_series_in_one_folder_are_refused(tmp_path: Path) -> None:
    """Their slices would be mixed by their places."""
    save_dicom(tmp_path / "a")
    save_dicom(tmp_path / "b")
    (tmp_path / "b/1.dcm").rename(tmp_path / "a/9.dcm")
    with pytest.raises(DataError, match="one series"):
        simmat.FrameSequence(tmp_path / "a", "gray")


def test_a_time_series_of_volumes_is_refused(tmp_path: Path) -> None:
    """Which of its two orders is meant is not known."""
    save_nifti(tmp_path / "a.nii", np.zeros((4, 4, 4, 2), np.int16))
    with pytest.raises(DataError, match=r"\(X, Y, Z\).*\(4, 4, 4, 2\)"):
        simmat.FrameSequence(tmp_path / "a.nii", "gray")


def test_a_slice_that_was_rewritten_is_followed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder stays as it is when one of its files is; nobody would see that the masks are of the former slice."""
    series = tmp_path / "series"
    save_dicom(series)
    Image.fromarray((VOLUME[:, :, 0].T > 0).astype(np.uint8)).save(tmp_path / "m.png")
    words = ["follow", str(tiny_bundle(tmp_path / "bundle")), str(series)]
    words += ["--mask", f"{tmp_path / 'm.png'}@0", "--device", "cpu"]
    words += ["--out", str(tmp_path / "out")]

    def request() -> str:
        capsys.readouterr()
        assert run(words) == 0, capsys.readouterr().err
        record = json.loads(
            (tmp_path / "out/.follow/log.jsonl").read_text().split("\n")[0]
        )
        return str(record["request"])

    before = request()
    assert request() == before
    one = pydicom.dcmread(series / "4.dcm")
    one.PixelData = bytes(len(one.PixelData))
    folder = series.stat()
    one.save_as(series / "4.dcm")
    assert series.stat().st_mtime_ns == folder.st_mtime_ns
    assert request() != before


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("ImagePositionPatient", "DS", None),
        ("ImagePositionPatient", "DS", ["0", "nan", "3"]),
        ("ImagePositionPatient", "DS", ["0", "0"]),
        ("ImageOrientationPatient", "DS", ["1", "0", "0", "0", "1"]),
        ("PixelSpacing", "DS", ["0.9"]),
        ("PixelSpacing", "DS", ["0.9", "inf"]),
        ("Rows", "US", [9, 10]),
        ("Columns", "US", 0),
        ("NumberOfFrames", "IS", "2"),
        ("SamplesPerPixel", "US", 3),
    ],
)
def test_a_file_of_a_series_with_a_wrong_head_is_named(
    tmp_path: Path, name: str, kind: str, value: object
) -> None:
    """A series has hundreds."""
    save_dicom(tmp_path / "a")
    one = pydicom.dcmread(tmp_path / "a/4.dcm")
    one.add_new(name, kind, value)
    one.save_as(tmp_path / "a/4.dcm")
    with pytest.raises(DataError, match=r"a/4\.dcm: "):
        simmat.FrameSequence(tmp_path / "a", "gray")


def test_more_pixels_than_a_slice_has_are_refused(tmp_path: Path) -> None:
    """They could be of any number of frames."""
    save_dicom(tmp_path / "a")
    one = pydicom.dcmread(tmp_path / "a/0.dcm")
    one.PixelData = one.PixelData * 3
    one.save_as(tmp_path / "a/0.dcm")
    with pytest.raises(DataError, match=r"a/0\.dcm: damaged: its pixels are"):
        simmat.FrameSequence(tmp_path / "a", "gray")[0]


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("sform_code", np.nan),
        ("sform_code", np.inf),
        ("sform_code", 0.0),
        ("qform_code", np.nan),
        ("qform_code", np.inf),
    ],
)
def test_an_affine_that_is_no_place_is_refused_at_opening(
    tmp_path: Path, code: str, number: float
) -> None:
    """The masks of all slices could not be written, after hours."""
    image = nibabel.Nifti1Image(VOLUME, np.eye(4))
    header = image.header
    header["vox_offset"] = header.single_vox_offset
    header["sform_code"] = header["qform_code"] = 0
    header[code] = 1
    header["srow_x"] = number
    header["pixdim"][1] = number
    content = header.binaryblock + bytes(4) + VOLUME.tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.nii: .*(affine|spacing)"):
        simmat.FrameSequence(tmp_path / "a.nii", "gray")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("offset", [0, 100, -16, 352.5, 1e30, np.nan, np.inf])
def test_voxels_that_begin_in_the_header_are_refused(
    tmp_path: Path, name: str, offset: float
) -> None:
    """The header would be taken for voxels."""
    save_nifti(tmp_path / name, VOLUME)
    content = (tmp_path / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    content = content[:108] + struct.pack("<f", offset) + content[112:]
    if name.endswith(".gz"):
        content = gzip.compress(content)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*\(vox_offset\).*from 352"):
        open_stack(tmp_path / name, "z")


def test_voxels_beyond_the_end_of_the_file_are_refused_at_opening(
    tmp_path: Path,
) -> None:
    """The last slices would be missed after hours."""
    save_nifti(tmp_path / "a.nii", VOLUME)
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"a\.nii: .*cut short.*copy or save it again"):
        open_stack(tmp_path / "a.nii", "z")


@pytest.mark.parametrize("spacing", [[0, 0], [0, 1], [1e300, 1], [-1, 1]])
def test_a_series_without_a_pixel_size_is_refused_at_opening(
    tmp_path: Path, spacing: list[float]
) -> None:
    """Volumes in cm³ would be 0 or infinite, and masks could not be written."""
    save_dicom(tmp_path / "a", PixelSpacing=spacing)
    with pytest.raises(DataError, match=r"affine|mm from frame to frame"):
        simmat.FrameSequence(tmp_path / "a", "gray")


def test_a_deflated_series_is_read_within_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 4 MB may inflate to 4 GB, whatever its rows and columns are."""
    save_dicom(tmp_path / "a")
    for file in (tmp_path / "a").iterdir():
        one = pydicom.dcmread(file)
        one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        if file.name == "4.dcm":
            one.add_new(0x00091010, "OB", bytes(2**24))
        one.save_as(file)
    assert simmat.FrameSequence(tmp_path / "a", "gray")[2].data.any()
    (tmp_path / "a").rename(tmp_path / "b")  # the open series is kept
    monkeypatch.setenv(LIMIT_VARIABLE, str(1 / 1024))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"b/4\.dcm: is larger than .* one slice"):
        simmat.FrameSequence(tmp_path / "b", "gray")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_plane_larger_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axis: str
) -> None:
    """Whatever the size of the cuts that are made of such planes."""
    save_nifti(tmp_path / "a.nii", np.zeros((600, 600, 1), np.int16))
    monkeypatch.setenv(LIMIT_VARIABLE, str(1 / 1024))
    with pytest.raises(DataError, match="more than the limit"):
        simmat.FrameSequence(tmp_path / "a.nii", "gray", axis=axis)[0]


@pytest.mark.parametrize(
    ("axis", "shape"), [("x", (8, 2**14, 8)), ("y", (2**14, 8, 8))]
)
def test_few_large_cuts_are_in_memory_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    axis: str,
    shape: tuple[int, int, int],
) -> None:
    """Eight of the largest slices that are allowed would take eight times the memory."""
    values = np.arange(2**20, dtype=np.int32).reshape(shape)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(0.5, 0)
    nibabel.save(image, tmp_path / "a.nii")
    monkeypatch.setenv(LIMIT_VARIABLE, str(2 / 1024))
    stack = open_stack(tmp_path / "a.nii", axis)
    tracemalloc.start()
    stack.read(0, False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 2**20  # a cut is 1 MiB
    for index in range(8):
        expected = np.take(values, index, "xyz".index(axis)).T * 0.5
        np.testing.assert_array_equal(stack.read(index, False).planes[0], expected)


def test_a_volume_of_one_time_is_read(tmp_path: Path) -> None:
    """Some programs write a fourth axis of length one."""
    save_nifti(tmp_path / "a.nii", VOLUME[..., None])
    np.testing.assert_array_equal(
        simmat.FrameSequence(tmp_path / "a.nii", "gray")[2].data[0], VOLUME[:, :, 2].T
    )
