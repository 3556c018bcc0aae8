"""Files, options and calls that use a former name go on working."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from bundles import BUNDLE_SPEC, SPEC, tiny_bundle
from click.testing import CliRunner
from runs import registry

from simmat.api import load
from simmat.cli import run
from simmat.cli.options import config_options
from simmat.config import TrainConfig, load_config
from simmat.documents import former_keywords, parse
from simmat.errors import ConfigError
from simmat.inference.options import PredictOptions
from simmat.model_spec import ModelSpec
from simmat.predictor import EverythingSettings


def with_former_keys(document: dict[str, Any]) -> dict[str, Any]:
    """Return a spec as a bundle of version 0.1 has it."""
    document["picks"] = document.pop("selected_channels")
    document["described"] = document.pop("sensor_definitions")
    document["aspect"] = {"pad": "keep", "stretch": "squash"}[document["aspect"]]
    return document


@pytest.mark.parametrize("spec", [SPEC, BUNDLE_SPEC], ids=["state of a run", "bundle"])
@pytest.mark.parametrize("aspect", ["pad", "stretch"])
def test_the_spec_of_an_older_file_is_read(spec: ModelSpec, aspect: str) -> None:
    """Bundles and states of runs of version 0.1 hold the former keys; what is written has the new ones."""
    known = spec.model_copy(update={"selected_channels": (0, "gray"), "aspect": aspect})
    former = with_former_keys(known.model_dump(mode="json"))
    found = parse(type(spec), former, "an older file")
    assert found == known
    assert {"selected_channels", "sensor_definitions"} <= found.model_dump().keys()


def test_a_config_file_with_a_former_key_is_read(tmp_path: Path) -> None:
    """Config files of users, and config.toml of older runs, which resume reads."""
    file = tmp_path / "config.toml"
    file.write_text(
        'modality = "gray"\ndata = "d"\nout = "o"\ncorrections = 0\naspect = "squash"\n',
        encoding="utf-8",
    )
    found = load_config(file)
    assert (found.correction_clicks, found.aspect) == (0, "stretch")
    # the command line counts
    assert load_config(file, {"correction_clicks": 3}).correction_clicks == 3
    # so does simmat.train(corrections=2)
    assert load_config(file, {"corrections": 2}).correction_clicks == 2


def test_a_key_with_both_names_is_refused() -> None:
    """One of two values would be dropped without a word."""
    with pytest.raises(ConfigError, match="corrections"):
        TrainConfig.model_validate(
            {
                "modality": "gray",
                "data": "d",
                "out": "o",
                "corrections": 0,
                "correction_clicks": 1,
            }
        )


def test_options_of_the_command_line_keep_their_former_names() -> None:
    """Scripts of users go on working."""

    @click.command()
    @config_options("aspect", "correction_clicks")
    def show(**given: Any) -> None:
        click.echo(sorted(given.items()))

    former, current = (
        CliRunner().invoke(show, words)
        for words in (["--aspect", "squash", "--corrections", "2"], ["--help"])
    )
    assert former.output == "[('aspect', 'squash'), ('correction_clicks', 2)]\n"
    assert "--aspect [pad|stretch]" in current.output
    assert (
        parse(
            PredictOptions,
            {"everything": True, "min_score": "auto", "max_wrong": 0.2},
            "x",
        ).max_error_rate
        == 0.2
    )


def test_arguments_of_a_predictor_keep_their_former_names(tmp_path: Path) -> None:
    """`choice` and `like` stand in notebooks."""
    model = load(tiny_bundle(tmp_path / "bundle"), registry=registry())
    model.set_image(np.full((40, 56), 9, np.uint8))
    with pytest.raises(ValueError, match="mask_selection must be"):
        model.predict(points=[(3, 4)], choice="other")
    assert model.segment_everything(like=None) == model.segment_everything(
        reference=None
    )


def test_settings_take_a_former_name() -> None:
    """Scripts that find every object state them."""
    former: Any = {"reach": 3}
    assert EverythingSettings(**former) == EverythingSettings(max_growth_px=3)
    assert replace(EverythingSettings(), max_growth_px=3).max_growth_px == 3


def test_a_former_keyword_is_handed_on() -> None:
    """The decorator behind it."""

    @former_keywords(old="new")
    def function(first: int, *, new: int = 0) -> tuple[int, int]:
        return first, new

    assert function(1, old=2) == function(1, new=2) == (1, 2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("command", "former"),
    [("train", "--corrections"), ("predict", "--max-wrong"), ("eval", "--draws")],
)
def test_commands_take_former_options(
    capsys: pytest.CaptureFixture[str], command: str, former: str
) -> None:
    """Each of them stands in published command lines."""
    assert run([command, "--help"]) == 0
    assert former in capsys.readouterr().out
