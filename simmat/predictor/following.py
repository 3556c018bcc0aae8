"""Follow objects through frames: the plugin behind `Predictor.follow`, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from simmat.errors import ConfigError
from simmat.plugins.loader import installed
from simmat.plugins.registry import import_from_string
from simmat.types import BoolArray


@dataclass(frozen=True)
class FollowedFrame:
    """The objects of a frame.

    Attributes:
        index: number of the frame.
        masks: object id -> (H, W) bool; False everywhere where the object is not found.
        scores: object id -> 0 to 1, how certain it is that its mask is the same object: the mean propagated label
            inside of it; 1 where it is given, 0 where nothing is found.
    """

    index: int
    masks: dict[int, BoolArray]
    scores: dict[int, float]


def installed_follow() -> Callable[..., Iterator[FollowedFrame]]:
    """Return the function of the first follower by name; ConfigError if no plugin brings one."""
    registry = installed()
    followers = registry.all("follower")
    if not followers:
        hint = registry.hint("follower", "follow", ())
        raise ConfigError(f"no loaded plugin follows objects through frames. {hint}")
    follow: Callable[..., Iterator[FollowedFrame]] = import_from_string(
        followers[0].function
    )
    return follow
