"""`Predictor.follow` is a door: what follows objects comes from a plugin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import simmat
from simmat.cli import run
from simmat.errors import ConfigError
from simmat.plugin_specs import FunctionSpec
from simmat.plugins.registry import Registry
from simmat.predictor import FollowedFrame, following


@pytest.mark.plugins
def test_without_a_follower_the_error_says_where_one_is(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who installed the core alone must not search for a method that the documentation shows."""
    model = simmat.load(bundle)
    with pytest.raises(
        ConfigError, match=r"follows objects through frames.*(README|SIMMAT_PLUGINS)"
    ):
        model.follow([np.zeros((1, 32, 32), np.float32)], {})
    assert run(["follow", "--help"]) == 2
    assert "no command 'follow'" in capsys.readouterr().err


def test_the_follower_of_a_plugin_gets_what_the_caller_gave(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another method, such as a network with a memory, can take the place of ours."""
    spec = FunctionSpec("still", "keeps masks where they are", f"{__name__}:still")
    monkeypatch.setattr(
        following, "installed", lambda: Registry([], [("follower", spec, "test")])
    )
    monkeypatch.setattr(
        following, "import_from_string", {spec.function: still}.__getitem__
    )
    frames = [np.zeros((1, 32, 32), np.float32)] * 3
    given = {4: np.ones((32, 32), np.bool_)}
    found = list(simmat.load(bundle).follow(frames, {1: given}, tile=64))
    assert [one.index for one in found] == [0, 1, 2]
    assert found[0].masks == given
    assert found[0].scores == {64: 0.5}


def still(predictor, frames, masks, *, tile, progress):  # type: ignore[no-untyped-def]
    """Return the given masks in every frame, and the side of windows that was asked for."""
    (masks,) = masks.values()
    return (FollowedFrame(index, masks, {tile: 0.5}) for index in range(len(frames)))
