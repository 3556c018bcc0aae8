"""Files of many frames of a few pixels: TIFF, npy, DICOM series, NIfTI volumes, videos."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

SHAPE_XYZ = (5, 6, 4)
_SPACING = (0.8, 0.9, 3.0)
_RNG = np.random.default_rng(1)
_VOXELS = _RNG.integers(0, 2000, SHAPE_XYZ).astype(np.int16)
_COUNT = 12
"""Frames of a video."""
_GREY = _RNG.integers(0, 65_535, (_COUNT, 24, 32), dtype=np.uint16)
_COLOURS = np.stack([_GREY >> 8, _GREY >> 7, _GREY], axis=-1).astype(np.uint8)


def make_stacks(folder: Path) -> None:
    """TIFFs of many pages, as plain ones, as ImageJ and as OME-TIFF write them, and arrays."""
    gray: dict[str, Any] = {"photometric": "minisblack"}
    pages = _GREY[:, :8, :9]  # (T, H, W)
    tifffile.imwrite(folder / "plain.tif", pages, metadata=None, **gray)
    notes = {"axes": "ZYX", "spacing": 3.0, "unit": "mm"}
    imagej = {"imagej": True, "resolution": (1.25, 1.1)}
    tifffile.imwrite(folder / "imagej.tif", pages, metadata=notes, **imagej, **gray)
    planes = pages.reshape(4, 3, 8, 9)  # (T, C, H, W)
    tifffile.imwrite(folder / "planes.tif", planes, metadata={"axes": "TCYX"}, **gray)
    sizes = {f"PhysicalSize{name}": 0.5 for name in "XYZ"}
    ome = {"axes": "ZYX", **sizes}
    tifffile.imwrite(folder / "ome.ome.tif", pages, metadata=ome, **gray)
    np.save(folder / "planes.npy", planes)


def make_dicom(folder: Path) -> None:
    """Series of slices in every transfer syntax that is read without more libraries, one scaled, one of floats.

    `frames` is a file of many frames, `single` a file of one slice.
    """
    from pydicom import uid

    plain = uid.ExplicitVRLittleEndian
    _save_series(folder / "explicit", plain)
    _save_series(folder / "implicit", uid.ImplicitVRLittleEndian)
    _save_series(folder / "big_endian", uid.ExplicitVRBigEndian)
    _save_series(folder / "deflated", uid.DeflatedExplicitVRLittleEndian)
    _save_series(folder / "rle", uid.RLELossless)
    _save_series(folder / "jpeg", uid.JPEGBaseline8Bit)
    _save_series(folder / "single", plain, count=1)
    scale = {"RescaleSlope": "0.5", "RescaleIntercept": "-1024"}
    padding = {"PixelPaddingValue": 3, "PixelPaddingRangeLimit": 9}
    _save_series(folder / "scaled", plain, **scale, **padding)
    _save_series(folder / "frames", plain, count=1, frames=SHAPE_XYZ[2])


def _save_series(
    folder: Path,
    syntax: Any,
    *,
    count: int = SHAPE_XYZ[2],
    frames: int = 1,
    **tags: Any,
) -> None:
    """Write the slices of a series."""
    import pydicom
    from pydicom.encaps import encapsulate

    folder.mkdir()
    for number in range(count):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = syntax
        one.SOPClassUID = pydicom.uid.CTImageStorage
        one.SOPInstanceUID = f"1.2.3.{number + 1}"
        one.SeriesInstanceUID = "1.2.3"
        one.Modality = "CT"
        plane = _VOXELS[:, :, number].T.astype(np.uint16)
        is_jpeg = syntax == pydicom.uid.JPEGBaseline8Bit
        if is_jpeg:
            plane = (plane // 8).astype(np.uint8)
        bits = 8 * plane.itemsize
        one.Rows, one.Columns = plane.shape
        one.SamplesPerPixel = 1
        one.PhotometricInterpretation = "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = bits
        one.HighBit = bits - 1
        one.PixelRepresentation = 0
        one.PixelSpacing = [_SPACING[1], _SPACING[0]]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.ImagePositionPatient = [0, 0, _SPACING[2] * number]
        if frames > 1:
            one.NumberOfFrames = frames
        for name, value in tags.items():
            setattr(one, name, value)
        is_big = syntax == pydicom.uid.ExplicitVRBigEndian
        stored = plane.astype(">u2") if is_big else plane
        one.PixelData = stored.tobytes() * frames
        if is_jpeg:
            stream = io.BytesIO()
            Image.fromarray(plane).save(stream, "JPEG")
            one.PixelData = encapsulate([stream.getvalue()])
            one["PixelData"].is_undefined_length = True
        elif syntax == pydicom.uid.RLELossless:
            one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            one.compress(syntax, generate_instance_uid=False)
        one.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def make_nifti(folder: Path) -> None:
    """Volumes of both versions, plain and packed, of integers, floats, and with a scale, an extension or no place."""
    import nibabel

    place = np.diag([*_SPACING, 1.0])
    for ending in (".nii", ".nii.gz"):
        one = nibabel.Nifti1Image(_VOXELS, place)
        nibabel.save(one, folder / f"plain{ending}")
        one.header.set_slope_inter(2, -10)
        one.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, b"a text"))
        nibabel.save(one, folder / f"scaled{ending}")
        nibabel.save(nibabel.Nifti2Image(_VOXELS, place), folder / f"second{ending}")
        floats = _VOXELS.astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(floats, None), folder / f"floats{ending}")
    longer = nibabel.Nifti1Image(_VOXELS[..., None], place)
    nibabel.save(longer, folder / "longer.nii")
    big = nibabel.Nifti1Image(_VOXELS, place).header.as_byteswapped(">")
    content = big.binaryblock + bytes(4) + _VOXELS.astype(">i2").tobytes(order="F")
    (folder / "big_endian.nii").write_bytes(content)


def make_videos(folder: Path) -> None:
    """Videos of every container, with the heads before or behind the frames, of colours and of grey in 16 bits."""
    _save_video(folder / "a.mp4", _COLOURS, "yuv420p", "mpeg4")
    _save_video(folder / "b.mp4", _COLOURS, "yuv420p", "libx264", movflags="faststart")
    parts = "frag_keyframe+empty_moov"
    _save_video(folder / "c.mp4", _COLOURS, "yuv420p", "mpeg4", movflags=parts)
    _save_video(folder / "d.mov", _COLOURS, "rgb24", "png")
    _save_video(folder / "e.mkv", _GREY, "gray16le", "ffv1")
    _save_video(folder / "f.mkv", _COLOURS, "yuv420p", "libx264")
    _save_video(folder / "g.webm", _COLOURS, "yuv420p", "libvpx")
    _save_video(folder / "h.avi", _COLOURS, "yuvj420p", "mjpeg")
    _save_video(folder / "i.avi", _GREY, "gray16le", "ffv1")
    _save_video(folder / "j.avi", _COLOURS, "yuv420p", "mpeg4")


def _save_video(path: Path, frames: Any, form: str, codec: str, **options: str) -> None:
    """Write a video; `form` is the layout of the stored pixels."""
    import av

    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = form
        stream.gop_size = 5
        for frame in frames:
            is_colour = frame.ndim == 3
            made = av.VideoFrame.from_ndarray(
                frame, format="rgb24" if is_colour else form
            )
            file.mux(stream.encode(made))
        file.mux(stream.encode())


def _packed(header: Any, zeros: bytes) -> bytes:
    return gzip.compress(header.binaryblock + zeros, 1)
