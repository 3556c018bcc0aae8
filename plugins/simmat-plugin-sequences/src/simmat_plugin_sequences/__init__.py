"""Sequences for SimMAT: `simmat follow`, the slices of NIfTI files and DICOM series, the frames of videos."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat import hookimpl
from simmat.io.frames import StackFormat
from simmat.plugin_specs import FollowerSpec
from simmat_plugin_sequences import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `follow`."""
    return [command.follow]


@hookimpl
def simmat_followers() -> Iterable[FollowerSpec]:
    """Return `propagation`."""
    return [
        FollowerSpec(
            "propagation",
            "propagates masks by the similarity of the network's features, without training",
            "simmat_plugin_sequences.follower:follow",
        )
    ]


@hookimpl
def simmat_stack_formats() -> Iterable[StackFormat]:
    """Return `nifti`, `dicom` and `video`."""
    return [
        StackFormat(
            "nifti",
            "slices of a NIfTI volume",
            (".nii", ".nii.gz"),
            "simmat_plugin_sequences.nifti:NiftiStack",
            has_axes=True,
            write_labels="simmat_plugin_sequences.nifti:write_labels",
        ),
        StackFormat(
            "dicom",
            "slices of a folder of DICOM files",
            (".dcm",),
            "simmat_plugin_sequences.dicom:DicomStack",
            has_axes=True,
            is_folder=True,
            write_labels="simmat_plugin_sequences.nifti:write_labels",
        ),
        StackFormat(
            "video",
            "frames of a video",
            (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"),
            "simmat_plugin_sequences.video:VideoStack",
        ),
    ]
