"""Follow objects through the frames of a sequence, and write what was found; a stopped call is resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from simmat.data.sequence import FrameSequence
from simmat.errors import ConfigError, DataError, OutputError, few_of
from simmat.inference import check_written, files_key, request_digest
from simmat.io.files import (
    atomic_write_bytes,
    atomic_write_text,
    locked,
    output_errors,
    remove_folder,
    remove_temporary,
    require_inside,
)
from simmat.io.images import write_image
from simmat.io.reading import read_log
from simmat.io.states import files_of
from simmat.io.weights import sha256_of
from simmat.plugin_specs import ResultFormat
from simmat.plugins.registry import import_from_string
from simmat.predictor import Predictor
from simmat_plugin_sequences.follower import FoundFrame, open_follower
from simmat_plugin_sequences.given_masks import GivenFrame, Regions, sorted_masks
from simmat_plugin_sequences.tracks import (
    Plane,
    TrackRow,
    Tracks,
    mask_file,
    write_table,
)

STATE = ".follow"
"""Folder in that of the results: what is done, and the labels that the next frames need."""
_STATE_FORMAT = 2
"""Number of the format of the labels in that folder: those of another one are not read."""
MAX_ID = 65535
"""Largest id of an object: masks of all frames are stored with 16 bits."""


@dataclass(frozen=True)
class FollowJob:
    """What to follow and where to write it.

    Attributes:
        frames: the sequence.
        masks: number of the frame -> its masks, see `Predictor.follow`.
        out: folder of the results.
        tile: side of windows in pixels; None as `Predictor.follow`.
        formats: of the files to write besides the masks and the table.
        min_score: objects below it are listed for a person.
        smooth: slices on each side that a slice of the volume is smoothed by.
    """

    frames: FrameSequence
    masks: Mapping[int, GivenFrame]
    out: Path
    tile: int | None
    formats: Sequence[ResultFormat]
    min_score: float
    smooth: int = 0

    @property
    def labels(self) -> Path:
        """Folder of the masks."""
        return self.out / "labels"

    @property
    def state(self) -> Path:
        """Folder of what a call that was stopped is resumed from."""
        return self.out / STATE

    @property
    def log(self) -> Path:
        """What is done, a line of json for each frame."""
        return self.state / "log.jsonl"


@dataclass(frozen=True)
class FollowedFiles:
    """What a call has written.

    Attributes:
        tracks: the objects in every frame.
        written: files and folders.
        unsure: frame -> the objects to look at there.
    """

    tracks: Tracks
    written: Sequence[Path]
    unsure: Mapping[int, Sequence[int]]


def follow_files(
    predictor: Predictor,
    job: FollowJob,
    progress: Callable[[int, int], None] | None = None,
) -> FollowedFiles:
    """Follow objects, write the mask of each frame when it is found, and the other files at the end.

    Frames that an earlier call with the same masks around them has done are skipped.

    Raises:
        SimMATError: masks or frames are wrong, or the folder holds other files or cannot be written.
    """
    _check(job)
    with locked(job.out) as free:
        if not free:
            raise OutputError(
                f"cannot write {job.out}: another process is writing it; wait for it to end"
            )
        requests = _requests(predictor, job)
        folder = job.state / request_digest(*requests)[:16]
        done = _done(job, requests)
        follower: Iterable[FoundFrame] = ()
        # checks masks and the first frame, before a folder is made
        if len(done) < len(job.frames):
            follower = open_follower(
                predictor,
                job.frames,
                job.masks,
                tile=job.tile,
                done=done.keys(),
                stored=StoredLabels(folder),
                progress=progress,
            )
        _prepare(job, folder)
        records = _write_masks(job, follower, requests, list(done.values()))
        tracks = Tracks(
            job.frames,
            job.labels,
            _rows(records),
            {frame: one.regions for frame, one in job.masks.items()},
            predictor.class_names,
            job.smooth,
        )
        files = _write_files(job, tracks)
        remove_folder(folder)
    return files


def _check(job: FollowJob) -> None:
    """Raise an error for ids, names of frames, and a folder that cannot be used."""
    for masks in job.masks.values():
        for number in masks.regions:
            if not 0 < number <= MAX_ID:
                raise ConfigError(
                    f"the id of an object is from 1 to {MAX_ID}, got {number}; renumber the masks"
                )
    for name, count in Counter(job.frames.names).items():
        if count > 1:
            raise DataError(
                f"several frames are named {name!r}, and their masks would be one file; rename the others"
            )
    out = job.out
    if out.is_dir() and not job.state.is_dir() and any(out.iterdir()):
        raise ConfigError(
            f"--out {out}: contains files that simmat follow did not write; choose another folder"
        )
    if out.is_dir():
        require_inside(out, *(path for path in out.iterdir() if path.is_dir()))
    require_inside(out, job.labels, job.state)


def _prepare(job: FollowJob, folder: Path) -> None:
    """Make the folders, and remove what calls that were stopped have left."""
    require_inside(job.out, folder)
    with output_errors(job.out):
        job.labels.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        for old in job.state.iterdir():
            if old.is_dir() and old != folder:
                remove_folder(old)
        for place in (job.out, job.labels, job.state, folder):
            remove_temporary(place, older_than_s=0)


def _write_masks(
    job: FollowJob,
    follower: Iterable[FoundFrame],
    requests: Sequence[str],
    done: Sequence[Mapping[str, Any]],
) -> list[Mapping[str, Any]]:
    """Write the mask of each frame when it is found, and its record to the log; return the records of all frames."""
    records = list(done)
    atomic_write_text(job.log, "".join(json.dumps(record) + "\n" for record in done))
    with output_errors(job.log), job.log.open("a", encoding="utf-8") as stream:
        for found in follower:
            file = mask_file(job.labels, job.frames, found.index)
            write_image(file, _plane(found)[None])
            record = {
                "step": found.index,
                "request": requests[found.index],
                "mask": sha256_of(file),
                "scores": {
                    str(number): round(score, 4)
                    for number, score in found.scores.items()
                },
                "areas": {
                    str(number): 0 if region is None else region.area
                    for number, region in found.regions.items()
                },
            }
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            records.append(record)
    return records


def _plane(found: FoundFrame) -> Plane:
    """Return (H, W) ids; where two objects overlap, that of the higher score."""
    plane = np.zeros(found.size_hw, np.uint16)
    for number in sorted(found.regions, key=lambda number: found.scores[number]):
        region = found.regions[number]
        if region is not None:
            plane[region.window.slices][region.crop] = number
    return plane


def _rows(records: Sequence[Mapping[str, Any]]) -> list[TrackRow]:
    """Return the objects of each frame from its record, sorted by frame."""
    rows = []
    for record in sorted(records, key=lambda record: record["step"]):
        for number, score in record["scores"].items():
            rows.append(
                TrackRow(record["step"], int(number), record["areas"][number], score)
            )
    return rows


def _write_files(job: FollowJob, tracks: Tracks) -> FollowedFiles:
    """Write the table and the files of the formats."""
    unsure = tracks.unsure(job.min_score)
    table = job.out / "frames.csv"
    write_table(table, tracks, unsure)
    written = [job.labels, table]
    for one in job.formats:
        write = import_from_string(one.write)
        name = write(tracks, job.out)
        check_written(one.name, name, job.out)
        written.append(job.out / name)
    return FollowedFiles(tracks, written, unsure)


def _done(job: FollowJob, requests: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Return the records of the frames that an earlier call has written for the same requests.

    Raises:
        ConfigError: of other requests, a mask was changed since it was written, and is not given.
    """
    done: dict[int, dict[str, Any]] = {}
    painted = []
    for frame, record in {
        record["step"]: record for record in read_log(job.log)
    }.items():
        if frame >= len(job.frames):
            continue
        file = mask_file(job.labels, job.frames, frame)
        if not file.is_file():
            continue
        if record.get("request") == requests[frame]:
            done[frame] = record
        elif frame not in job.masks and record.get("mask") not in (
            None,
            sha256_of(file),
        ):
            painted.append(str(file))
    if painted:
        raise ConfigError(
            f"{few_of(painted)}: was changed after simmat follow wrote it, and this command would replace it; "
            "pass it with --mask, too, or delete it"
        )
    return done


def _requests(predictor: Predictor, job: FollowJob) -> list[str]:
    """Return a digest of all that the result of each frame depends on: the model, files, settings and masks.

    A frame depends on the masks of frames up to the next one with masks, and on those that name an object first.
    """
    given = sorted_masks(job.masks)
    base = request_digest(
        _STATE_FORMAT,
        predictor.digest,
        *_files(job.frames),
        job.tile,
        given.ids,
    )
    marks = [[frame, _digest(regions)] for frame, regions in given.regions.items()]
    named = 1  # frames with masks that frames before them depend on, too
    for number in given.ids:
        named = max(named, given.frames.index(given.first_frame(number)) + 1)
    count = len(job.frames)
    found = [request_digest(base, marks[:named])] * count
    for place, frame in enumerate(given.frames):
        following = given.frames[place + 1] if place + 1 < len(given.frames) else count
        own = request_digest(base, marks[: max(place + 2, named)])
        found[frame:following] = [own] * (following - frame)
    return found


def _files(frames: FrameSequence) -> tuple[Any, Any]:
    """Return source -> path of each frame, and what identifies the content of the files of all frames."""
    names = []
    paths: set[Path] = set()
    for own in frames.files:
        names.append({source: str(file) for source, file in own.items()})
        for file in own.values():
            paths.update(files_of(str(file)))
    return names, files_key({str(path): path for path in sorted(paths)})


def _digest(regions: Regions) -> str:
    """Return a digest of the masks of a frame."""
    digest = sha256()
    for number, region in sorted(regions.items()):
        if region is None:
            digest.update(f"{number} ".encode())
        else:
            digest.update(f"{number} {tuple(region.window)} ".encode())
            digest.update(np.packbits(region.crop).tobytes())
    return digest.hexdigest()


class StoredLabels(MutableMapping[str, bytes]):
    """Bytes by name in a folder, so that the memory of a long sequence is on the disk and survives a kill."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> bytes:
        """Read one; KeyError without it."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: bytes) -> None:
        """Write one, whole or not at all."""
        atomic_write_bytes(self._folder / name, value)

    def __delitem__(self, name: str) -> None:
        """Remove one."""
        (self._folder / name).unlink()

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return (
            file.name
            for file in self._folder.iterdir()
            if not file.name.startswith(".")
        )

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in self)
