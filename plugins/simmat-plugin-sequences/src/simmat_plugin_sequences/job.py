"""Follow objects through the frames of a sequence, and write what was found; a stopped call is resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from simmat.data.sequence import FrameSequence
from simmat.errors import ConfigError, DataError, OutputError, few_of
from simmat.inference.request import files_key, request_digest
from simmat.io.files import (
    atomic_write_bytes,
    atomic_write_text,
    locked,
    output_errors,
    remove_folder,
    remove_temporary,
)
from simmat.io.images import frame_of, write_image
from simmat.io.reading import read_log
from simmat.io.weights import sha256_of
from simmat.predictor import FollowedFrame, Predictor
from simmat.types import BoolArray
from simmat_plugin_sequences.follower import open_follower
from simmat_plugin_sequences.given_masks import Masks
from simmat_plugin_sequences.tracks import Plane, Row, TrackFiles

STATE = ".follow"
"""Folder in that of the results: what is done, and the labels that the next frames need."""
MAX_ID = 65535
"""Largest id of an object: masks of all frames are stored with 16 bits."""


@dataclass(frozen=True)
class FollowJob:
    """What to follow and where to write it.

    Attributes:
        frames: the sequence.
        masks: frame number -> object id -> (H, W) bool, see `Predictor.follow`.
        out: folder of the results.
        tile: side of windows in pixels; None as `Predictor.follow`.
        formats: names of the files to write besides the masks: coco, mots, overlay, volume.
        min_score: objects below it are listed for a person.
        smooth: slices on each side that a slice of the volume is smoothed by.
    """

    frames: FrameSequence
    masks: Mapping[int, Masks]
    out: Path
    tile: int | None
    formats: Sequence[str]
    min_score: float
    smooth: int = 0


def follow_files(
    predictor: Predictor, job: FollowJob, progress: Callable[[int, int], None] | None = None
) -> TrackFiles:
    """Follow objects, write the mask of each frame when it is found, and the other files at the end.

    Frames that an earlier call with the same masks around them has done are skipped.

    Raises:
        SimMATError: masks or frames are wrong, or the folder holds other files or cannot be written.
    """
    out, state = job.out, job.out / STATE
    if wrong := [number for masks in job.masks.values() for number in masks if not 0 < number <= MAX_ID]:
        raise ConfigError(f"the id of an object is from 1 to {MAX_ID}, got {wrong[0]}; renumber the masks")
    if twice := [name for name, count in Counter(job.frames.names).items() if count > 1]:
        raise DataError(f"several frames are named {twice[0]!r}, and their masks would be one file; rename the others")
    if out.is_dir() and not state.is_dir() and any(out.iterdir()):
        raise ConfigError(f"--out {out}: holds files that simmat follow did not write; choose another folder")
    with locked(out) as free:
        if not free:
            raise OutputError(f"cannot write {out}: another process is writing it; wait for it to end")
        files = TrackFiles(job.frames, out, job.min_score, predictor.class_names)
        requests, whole = _requests(predictor, job)
        log, labels = state / "log.jsonl", files.labels
        done = _done(log, requests, files, job.masks)
        stored = StoredLabels(state / whole)
        follower: Iterable[FollowedFrame] = ()
        if len(done) < len(requests):  # checks masks and the first frame, before a folder is made
            follower = open_follower(
                predictor, job.frames, job.masks, tile=job.tile, done=done.keys(), stored=stored, progress=progress
            )
        with output_errors(out):
            labels.mkdir(parents=True, exist_ok=True)
            (state / whole).mkdir(parents=True, exist_ok=True)
            for old in state.iterdir():
                if old.is_dir() and old.name != whole:
                    remove_folder(old)
            remove_temporary(labels)
            remove_temporary(state / whole)
        atomic_write_text(log, "".join(json.dumps(record) + "\n" for record in done.values()))
        with output_errors(log), log.open("a", encoding="utf-8") as stream:
            for found in follower:
                file = files.mask_file(found.index)
                write_image(file, _plane(found)[None])
                done[found.index] = _record(found, requests[found.index], file)
                stream.write(json.dumps(done[found.index]) + "\n")
                stream.flush()
        rows = [
            Row(index, int(number), done[index]["areas"][number], done[index]["scores"][number])
            for index in sorted(done)
            for number in done[index]["scores"]
        ]
        files.write(rows, job.formats, smooth=job.smooth, given=job.masks)
        remove_folder(state / whole)
    return files


def _plane(found: FollowedFrame) -> Plane:
    """Return (H, W) ids; where two objects overlap, that of the higher score."""
    ids = sorted(found.masks, key=lambda number: found.scores[number])
    plane = np.zeros(found.masks[ids[0]].shape, np.uint16)
    for number in ids:
        plane[found.masks[number]] = number
    return plane


def _record(found: FollowedFrame, request: str, file: Path) -> dict[str, Any]:
    return {
        "step": found.index,
        "request": request,
        "mask": sha256_of(file),
        "scores": {str(number): round(score, 4) for number, score in found.scores.items()},
        "areas": {str(number): int(mask.sum()) for number, mask in found.masks.items()},
    }


def _done(log: Path, requests: Sequence[str], files: TrackFiles, given: Container[int]) -> dict[int, dict[str, Any]]:
    """Return the records of the frames that an earlier call has written for the same requests.

    Raises:
        ConfigError: of other requests, a mask was changed since it was written, and is not `given`.
    """
    found = {record["step"]: record for record in read_log(log)}
    there = {index: file for index in found if index < len(requests) and (file := files.mask_file(index)).is_file()}
    done = {index: found[index] for index in there if found[index].get("request") == requests[index]}
    old = {index: file for index, file in there.items() if index not in done and index not in given}
    if painted := [str(file) for index, file in old.items() if found[index].get("mask") not in (None, sha256_of(file))]:
        raise ConfigError(
            f"{few_of(painted)}: changed since simmat follow wrote it, and this call would replace it; give it with "
            "--mask, too, or delete it"
        )
    return done


def _requests(predictor: Predictor, job: FollowJob) -> tuple[list[str], str]:
    """Return a digest of all that the result of each frame depends on, and one of the whole call."""
    paths = {frame.file if (frame := frame_of(file)) else file for own in job.frames.files for file in own.values()}
    ids = sorted({number for masks in job.masks.values() for number in masks})
    names = [{source: str(file) for source, file in own.items()} for own in job.frames.files]
    files = files_key({str(path): path for path in sorted(paths)})
    base = request_digest(predictor.digest, names, files, job.tile, ids)
    keys, marks = sorted(job.masks), {key: _digest(masks) for key, masks in job.masks.items()}
    named = [next(place for place, key in enumerate(keys) if number in job.masks[key]) for number in ids]
    back = max(named, default=0) + 1  # frames with masks that frames before them depend on, too
    found = [request_digest(base, [[one, marks[one]] for one in keys[:back]])] * len(job.frames)
    for place, key in enumerate(keys):
        after = keys[place + 1] if place + 1 < len(keys) else len(found)
        own = request_digest(base, [[one, marks[one]] for one in keys[: max(place + 2, back)]])
        found[key:after] = [own] * (after - key)
    return found, request_digest(*found)[:16]


def _digest(masks: Mapping[int, BoolArray]) -> str:
    digest = sha256()
    for number, mask in sorted(masks.items()):
        digest.update(f"{number} {mask.shape} ".encode() + np.packbits(mask).tobytes())
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
        return (file.name for file in self._folder.iterdir() if not file.name.startswith("."))

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in self)
