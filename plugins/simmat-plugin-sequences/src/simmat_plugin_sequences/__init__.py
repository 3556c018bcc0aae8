"""Sequences for SimMAT: `simmat follow`, the slices of NIfTI files and DICOM series, the frames of videos."""

from __future__ import annotations

from collections.abc import Iterable

import click

from simmat import hookimpl
from simmat.io.frames import StackFormat
from simmat.plugin_specs import FunctionSpec, ResultFormat
from simmat_plugin_sequences import command


@hookimpl
def simmat_commands() -> Iterable[click.Command]:
    """Return `follow`."""
    return [command.follow]


@hookimpl
def simmat_followers() -> Iterable[FunctionSpec]:
    """Return `propagation`."""
    return [
        FunctionSpec(
            "propagation",
            "propagates masks by the similarity of the network's features, without training",
            "simmat_plugin_sequences.follower:follow",
        )
    ]


@hookimpl
def simmat_sequence_formats() -> Iterable[ResultFormat]:
    """Return `coco`, `csv`, `mots`, `overlay` and `volume`."""
    return [
        ResultFormat(
            "coco",
            "the objects of all frames as one COCO json, with track_id",
            "simmat_plugin_sequences.track_formats:write_coco",
            ("coco.json",),
            kinds=("sequences",),
            auto=("sequences",),
        ),
        ResultFormat(
            "csv",
            "a table of measurements of each object in each frame",
            "simmat_plugin_sequences.track_formats:write_csv",
            ("objects.csv",),
            kinds=("sequences",),
        ),
        ResultFormat(
            "mots",
            "a PNG of class * 1000 + id for each frame",
            "simmat_plugin_sequences.track_formats:write_mots",
            ("mots",),
            kinds=("sequences",),
        ),
        ResultFormat(
            "overlay",
            "a film to look at",
            "simmat_plugin_sequences.track_formats:write_overlay",
            ("overlay.mp4", "overlay.gif"),
            kinds=("sequences",),
            auto=("sequences",),
        ),
        ResultFormat(
            "volume",
            "the masks of all slices as one file, on the grid of a volume",
            "simmat_plugin_sequences.track_formats:write_volume",
            ("volume.nii.gz", "volume.tif"),
            kinds=("sequences",),
            auto=("stacks",),
        ),
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
