"""Compares labels with trainings that did not learn from their image, in the background."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from simmat.bundle import BundleSpec, read_bundle_spec
from simmat.data.dataset import Dataset, Sample, open_dataset
from simmat.errors import DataError, SimMATError
from simmat.io.files import atomic_write_json, require_inside
from simmat_plugin_annotate.folder import LabelFolder
from simmat_plugin_annotate.masks import is_known
from simmat_plugin_annotate.models import (
    BusyError,
    CancelledError,
    ModelService,
    ServedModel,
    state_after,
)
from simmat_plugin_annotate.planes import UnknownError
from simmat_plugin_annotate.state import RUNS, SUSPECTS_FILE
from simmat_plugin_annotate.suspects import (
    LastCheck,
    Suspect,
    claim_of,
    region_of,
    standing,
    suspect_of,
)
from simmat_plugin_annotate.training import runs_with_bundles

if TYPE_CHECKING:
    from simmat_plugin_report.planted_errors import LabelCheck, Ranked
    from simmat_plugin_report.second_opinion import Opinion

    from simmat.data.instances import Annotation
    from simmat.types import SensorImage

MOST = 200
"""Most suspects that are kept and shown."""
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is compared with which training.

    Attributes:
        judged: each training with the images that it judges.
        unchecked: number of images that every training learned from.
        left_out: why trainings are not used.
    """

    dataset: Dataset
    judged: Sequence[tuple[Path, Sequence[Sample]]]
    unchecked: int
    left_out: Sequence[str]


class SuspectService:
    """Compares labels with trainings, image by image in the thread for slow requests of a `ModelService`.

    Attributes:
        document: the state of the check, for the page.
    """

    def __init__(
        self,
        folder: LabelFolder,
        service: ModelService,
        load: Callable[[Path], ServedModel],
        on_files: Callable[[Callable[[], Any]], Awaitable[Any]],
        tell: Callable[[], None],
    ) -> None:
        """Prepare to check.

        Args:
            load: loads the bundle of a training.
            on_files: runs work that reads or writes files.
            tell: called on the event loop when `document` has changed.
        """
        self._folder, self._service, self._load = folder, service, load
        self._on_files, self._tell = on_files, tell
        self._path = folder.home / SUSPECTS_FILE
        self._lock = threading.RLock()
        self._last: LastCheck | None = None
        self._standing: dict[str, tuple[int, dict[str, int | None]]] = {}
        """Key of an image -> version of its labels, and `standing` of its suspects."""
        self._run: asyncio.Task[None] | None = None
        self._stopped = False
        self.document: dict[str, Any] = {
            "state": "idle",
            "done": 0,
            "images": 0,
            "message": "",
        }

    def _set(self, **changes: Any) -> None:
        self.document = self.document | changes
        self._tell()

    def start(self) -> None:
        """Start a check; BusyError while one runs."""
        if self._run is not None and not self._run.done():
            raise BusyError("the labels are being checked already; stop that first")
        self._stopped = False
        self._set(state="running", done=0, images=0, message="")
        self._run = asyncio.create_task(self._check())

    def stop(self) -> None:
        """Stop the check after the present image; what the last one found stays."""
        self._stopped = True

    async def _check(self) -> None:
        self._set(**await state_after(self._compare(), "the check of the labels"))

    def _plan(self) -> Plan:
        """Choose for each labelled image the newest training that did not learn from it."""
        from simmat_plugin_report.second_opinion import unseen_by

        folder = self._folder
        runs, left_out = self._judges()
        if not runs:
            reasons = "".join(f"\n- {reason}" for reason in left_out)
            raise DataError(
                "no training here can judge the labels; train first, on images in which every object is marked"
                + reasons
            )
        folder.flush()
        folder.write_card()
        dataset = open_dataset(folder.root, folder.adapter)
        judges = unseen_by([spec for _, spec in runs], dataset, dataset.samples)
        judged = []
        for number, (run, _) in enumerate(runs):
            own = []
            for sample, judge in zip(dataset.samples, judges, strict=True):
                if judge == number:
                    own.append(sample)
            if own:
                judged.append((run, own))
        if not judged:
            raise DataError(
                f"every training learned from all {len(judges)} labelled images, so none can judge them; label more "
                "images, or train on parts of them with simmat train --folds 5"
            )
        return Plan(dataset, judged, judges.count(None), left_out)

    def _judges(self) -> tuple[list[tuple[Path, BundleSpec]], list[str]]:
        """Return the trainings that can judge labels, newest first, and why others cannot."""
        from simmat_plugin_report.second_opinion import judge_problem

        root, sensor = self._folder.root, self._folder.adapter.name
        runs = []
        left_out = []
        for run in runs_with_bundles(root):
            name = run.relative_to(root / RUNS).as_posix()
            try:
                require_inside(root, run, error=DataError)
                spec = read_bundle_spec(run)
            except SimMATError as error:
                left_out.append(str(error).removeprefix(f"{root}{os.sep}"))
                continue
            problem = judge_problem(spec)
            if spec.modality != sensor:
                problem = f"is of {spec.modality}, and these images are of {sensor}"
            if problem:
                left_out.append(f"{name} {problem}")
            else:
                runs.append((run, spec))
        return runs, left_out

    async def _compare(self) -> None:
        """Ask each training what it sees in its images, and store which labels contradict it."""
        from simmat_plugin_report.planted_errors import LabelCheck
        from simmat_plugin_report.second_opinion import opinions

        plan: Plan = await self._on_files(self._plan)
        self._set(images=sum(len(samples) for _, samples in plan.judged))
        check = LabelCheck(np.random.default_rng(0))
        compared: list[Sample] = []
        labels = 0
        for run, samples in plan.judged:
            model = await self._slow(partial(self._load, run))
            every = [0] * len(samples)
            seen = opinions([model.predictor], plan.dataset, samples, every)
            for sample in samples:
                labels += await self._slow(partial(_add_next, check, seen))
                compared.append(sample)
                self._set(done=len(compared))
        ranked = await self._slow(check.ranked)
        found = LastCheck(
            format=1,
            images=len(compared),
            labels=labels,
            unchecked=plan.unchecked,
            left_out=tuple(plan.left_out),
        )
        await self._on_files(partial(self._keep, found, compared, ranked))

    async def _slow(self, work: Callable[[], Result]) -> Result:
        """Run work in the thread for slow requests, unless the check or the server stops."""
        if self._stopped or self._service.closing.is_set():
            raise CancelledError
        return await self._service.run(work, slow=True)

    def _keep(
        self, found: LastCheck, samples: Sequence[Sample], ranked: Sequence[Ranked]
    ) -> None:
        """Store what a check found, but for what is right as the user said before.

        Args:
            samples: the compared images.
        """
        keys = {sample.id: key for key, sample in self._folder.images.items()}
        with self._lock:
            right = self._read().right
            suspects: list[Suspect] = []
            for one in ranked:
                sample = samples[one.image]
                key = keys.get(sample.image_id)
                if key is None or len(suspects) == MOST:
                    continue
                suspect = suspect_of(one, sample, key)
                if not self._is_among(suspect, right):
                    suspects.append(suspect)
            update = {"suspects": tuple(suspects), "right": right}
            self._write(found.model_copy(update=update))
            self._standing.clear()

    def listed(self) -> dict[str, Any]:
        """Return the last check as a document for the page, with those suspects whose labels have not changed since.

        `keys` are those of all images that have one, though its label has changed.

        Raises:
            DataError: the file of the last check is damaged.
        """
        last = self._read()
        of_image: dict[str, list[Suspect]] = {}
        for one in last.suspects:
            of_image.setdefault(one.key, []).append(one)
        standing: dict[str, int | None] = {}
        for key, suspects in of_image.items():
            standing |= self._still_standing(key, suspects)
        documents = []
        for one in last.suspects:
            if one.id in standing:
                document = one.model_dump(mode="json")
                document["object"] = standing[one.id]
                document["right"] = self._is_among(one, last.right)
                documents.append(document)
        counts = last.model_dump(mode="json", exclude={"format", "suspects", "right"})
        return {**counts, "keys": list(of_image), "suspects": documents}

    def _still_standing(
        self, key: str, suspects: Sequence[Suspect]
    ) -> dict[str, int | None]:
        """Return `standing` of an image; nothing if it is gone or cannot be read."""
        step = self._folder.last_step(key) if key in self._folder.images else None
        known = self._standing.get(key)
        if known is not None and step is not None and known[0] == step.version:
            return known[1]
        try:
            labels = self._folder.labels(key)
        except (SimMATError, UnknownError):
            return {}
        with labels.lock:
            found = standing(suspects, labels)
            self._standing[key] = labels.version, found
        return found

    def mark(self, id: str, *, right: bool) -> None:
        """Remember that the label of a suspect is right, or forget that.

        Raises:
            UnknownError: the last check has no such suspect.
            OutputError: the file cannot be written.
        """
        with self._lock:
            last = self._read()
            chosen = next((one for one in last.suspects if one.id == id), None)
            if chosen is None:
                raise UnknownError(
                    "the last check has no such suspect; look at its list again"
                )
            others = tuple(
                one for one in last.right if not self._is_among(one, [chosen])
            )
            if right:
                others = (*others, chosen)
            self._write(last.model_copy(update={"right": others}))

    def _is_among(self, suspect: Suspect, others: Sequence[Suspect]) -> bool:
        """Return whether others say the same of mostly the same pixels."""
        same = []
        for other in others:
            if claim_of(other) == claim_of(suspect):
                same.append(region_of(other))
        return is_known(region_of(suspect), same)

    def _read(self) -> LastCheck:
        with self._lock:
            if self._last is None:
                self._last = LastCheck.read(self._path)
            return self._last

    def _write(self, last: LastCheck) -> None:
        atomic_write_json(self._path, last.model_dump(mode="json"))
        self._last = last


def _add_next(
    check: LabelCheck,
    seen: Iterator[tuple[Sample, SensorImage, Annotation, Opinion]],
) -> int:
    """Compare the labels of the next image; return their number."""
    _, _, label, opinion = next(seen)
    check.add(label, opinion)
    return len(label.regions)
