"""Follow the objects of a frame through the next ones: each frame is on disk as soon as it is found."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import simmat
from simmat.data.instances import region_from_mask
from simmat.errors import DataError
from simmat.types import BoolArray
from simmat_plugin_annotate.folder import LabelFolder
from simmat_plugin_annotate.labels import LabelledImage
from simmat_plugin_annotate.masks import Followed
from simmat_plugin_annotate.models import (
    BusyError,
    CancelledError,
    ModelService,
    state_after,
)

if TYPE_CHECKING:
    from simmat.predictor import FollowedFrame

MIN_SCORE = 0.8
"""Score below which a followed object is to be looked at, as of `simmat follow`."""
_log = logging.getLogger(__name__)


@dataclass
class Plan:
    """The objects to follow, and their frames.

    Attributes:
        keys: the frames whose masks are known from before, the one to start from, then those to fill.
        first: position in `keys` of the first one to fill.
        masks: position in `keys` -> object id -> (H, W) bool, as `Predictor.follow` takes them.
        classes: object id -> class.
    """

    keys: list[str]
    first: int
    masks: dict[int, dict[int, BoolArray]] = field(default_factory=dict)
    classes: dict[int, int | None] = field(default_factory=dict)


class FollowService:
    """Follows objects in the thread for slow requests of a `ModelService`, one run at a time.

    Attributes:
        document: the state for the page.
    """

    def __init__(
        self,
        folder: LabelFolder,
        service: ModelService,
        frame_changed: Callable[[str], None],
        tell: Callable[[], None],
    ) -> None:
        """Prepare to follow.

        Args:
            frame_changed: called on the event loop with the key of each frame that was filled.
            tell: called on the event loop when `document` has changed.
        """
        self._folder, self._service, self._frame_changed, self._tell = (
            folder,
            service,
            frame_changed,
            tell,
        )
        self._stop = threading.Event()
        self._run: asyncio.Task[None] | None = None
        self.document: dict[str, Any] = {
            "state": "idle",
            "key": None,
            "done": 0,
            "frames": 0,
            "message": "",
        }

    def _set(self, **changes: Any) -> None:
        self.document = self.document | changes
        self._tell()

    def start(self, plan: Plan) -> None:
        """Start to fill the frames of a plan; BusyError while others are being filled."""
        if self._run is not None and not self._run.done():
            raise BusyError("objects are being followed already; stop that first")
        self._stop.clear()
        self._set(
            state="running",
            key=None,
            done=0,
            frames=len(plan.keys) - plan.first,
            message="",
        )
        self._run = asyncio.create_task(self._follow(plan))

    def stop(self) -> None:
        """Stop after the present frame."""
        self._stop.set()

    async def _follow(self, plan: Plan) -> None:
        loop = asyncio.get_running_loop()
        work = self._service.run(
            lambda: self._fill(
                plan, lambda key: loop.call_soon_threadsafe(self._filled, key)
            ),
            slow=True,
        )
        self._set(**await state_after(work, "following"))

    def _filled(self, key: str) -> None:
        self._frame_changed(key)
        self._set(key=key, done=self.document["done"] + 1)

    def _fill(self, plan: Plan, filled: Callable[[str], object]) -> None:
        """Find the objects in frame after frame, and put them into its labels."""

        def check(done: int, total: int) -> None:
            if self._stop.is_set() or self._service.closing.is_set():
                raise CancelledError

        check(0, 0)
        before = {
            number for number, mask in plan.masks[plan.first - 1].items() if mask.any()
        }
        for found in self._found(plan, check):
            if found.index >= plan.first:
                key = plan.keys[found.index]
                objects: dict[int, Followed | None] = dict.fromkeys(found.masks)
                for number, mask in found.masks.items():
                    if (
                        region := region_from_mask(mask, plan.classes.get(number))
                    ) is not None:
                        place = region.class_id, region.window, region.crop
                        objects[number] = Followed(*place, score=found.scores[number])
                there = {
                    number for number, region in objects.items() if region is not None
                }
                self._folder.labels(key).follow(objects, before - there)
                before = there
                filled(key)

    def _found(
        self, plan: Plan, progress: Callable[[int, int], None]
    ) -> Iterable[FollowedFrame]:
        if any(mask.any() for masks in plan.masks.values() for mask in masks.values()):
            frames = simmat.FrameSequence.of_frames(
                self._folder.adapter,
                [self._folder.find(key).files for key in plan.keys],
            )
            return self._service.model.predictor.follow(
                frames, plan.masks, progress=progress
            )
        from simmat.predictor import FollowedFrame

        # all that is to be done is to remove them from the next frames
        absent = plan.masks[plan.first - 1]
        return [
            FollowedFrame(index, absent, {})
            for index in range(plan.first, len(plan.keys))
        ]

    def plan(self, key: str, count: int, chosen: Collection[int] = ()) -> Plan:
        """Plan which objects to follow from a frame, and to which frames.

        Objects that were seen before the frame, and were neither found in it nor removed, are looked for, too.

        Args:
            key: the frame.
            count: number of frames to fill after it, or if negative before it.
            chosen: ids of the objects; empty for all.

        Raises:
            DataError: it is no frame, there is none to fill, or no object to follow.
        """
        folder, frames = self._folder, self._folder.frames.of(key)
        if not frames:
            raise DataError(
                "this image is not a frame of a sequence; put the frames into frames/SEQUENCE"
            )
        frames = frames if count > 0 else frames[::-1]
        at = frames.index(key)
        fill = frames[at + 1 : at + 1 + abs(count)]
        if not fill:
            raise DataError(
                "there is no frame to fill: this is the last one"
                + " in this direction" * (count < 0)
            )
        folder.write_card()
        here = folder.labels(key)
        wanted = here.objects.keys() | here.absent
        wanted = wanted & set(chosen) if chosen else wanted
        earlier = {} if chosen or here.done else self._lost_before(frames[:at], wanted)
        ids = wanted.union(*earlier.values())
        if not ids:
            raise DataError(
                "there is no object in this frame to follow; label one first"
            )
        plan = Plan([*earlier, key, *fill], len(earlier) + 1)
        for place, one in enumerate(plan.keys):
            if (
                place < plan.first
                or folder.is_labelled(one)
                or folder.last_step(one) is not None
            ):
                labels = folder.labels(one)
                if masks := _given(
                    labels, earlier.get(one, ids), followed=place < plan.first
                ):
                    plan.masks[place] = masks
                for number in masks.keys() & labels.objects.keys():
                    plan.classes[number] = labels.class_of(labels.objects[number])
        plan.masks.setdefault(plan.first - 1, {})
        return plan

    def _lost_before(
        self, frames: list[str], known: Iterable[int]
    ) -> dict[str, set[int]]:
        """Return the frames in which other objects were seen last, in order, and which objects these are."""
        seen, found = set(known), dict[str, set[int]]()
        for key in reversed(frames):
            step = self._folder.last_step(key)
            if step is not None:
                if new := {number for number, _ in step.ids or ()} - seen:
                    found[key] = new
                seen |= new | set(step.absent)
                if step.done:
                    break
        return dict(reversed(found.items()))


def _given(
    labels: LabelledImage, ids: Iterable[int], *, followed: bool
) -> dict[int, BoolArray]:
    """Return the masks of objects in a frame as the user has drawn them: empty if the user has removed them.

    Args:
        followed: True if objects that were followed there count, too.
    """
    with labels.lock:
        given = {}
        for number in ids:
            region = labels.objects.get(number)
            if region is not None and (
                followed or labels.done or not isinstance(region, Followed)
            ):
                given[number] = region.mask(labels.size_hw)
            elif number in labels.absent or (labels.done and region is None):
                given[number] = np.zeros(labels.size_hw, np.bool_)
        return given
