"""Volumes and videos for SimMAT: the slices of NIfTI files and DICOM series, the frames of videos."""

from __future__ import annotations

from collections.abc import Iterable

from simmat import hookimpl
from simmat.io.images.stacks import StackFormat


@hookimpl
def simmat_stack_formats() -> Iterable[StackFormat]:
    """Return `nifti`, `dicom` and `video`."""
    return [
        StackFormat(
            "nifti",
            "slices of a NIfTI volume",
            (".nii", ".nii.gz"),
            "simmat_plugin_volume.nifti:NiftiStack",
            has_axes=True,
            write_labels="simmat_plugin_volume.nifti:write_labels",
        ),
        StackFormat(
            "dicom",
            "slices of a folder of DICOM files",
            (".dcm",),
            "simmat_plugin_volume.dicom:DicomStack",
            has_axes=True,
            is_folder=True,
            write_labels="simmat_plugin_volume.nifti:write_labels",
        ),
        StackFormat(
            "video",
            "frames of a video",
            (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"),
            "simmat_plugin_volume.video:VideoStack",
        ),
    ]
