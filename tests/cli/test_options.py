"""Options made from the fields of the training config."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from simmat.cli.options import (
    config_options,
)
from simmat.config import TrainConfig, load_config


def parse(decorator: Any, *args: str) -> dict[str, Any]:
    """Return what a command with these options is called with; a usage error is raised."""
    seen: dict[str, Any] = {}

    @click.command()
    @decorator
    def command(**options: Any) -> None:
        seen.update(options)

    command.main(list(args), standalone_mode=False)
    return seen


def test_every_field_has_an_option_that_the_config_takes() -> None:
    """A field that only a file can set would be found by nobody."""
    line = (
        "--modality rgb --data d --out o --channels 0-2 --steps 3 --lr 0.1 --nodata -1 --no-augment "
        "--mat-option width=8 --mat-option kind=fast --tune-option rank=4 --precision bf16"
    )
    given = parse(config_options(), *line.split())
    assert set(given) == set(TrainConfig.model_fields)
    config = load_config(None, given)
    assert (
        config.channels,
        config.steps,
        config.lr,
        config.nodata,
        config.augment,
    ) == ((0, 1, 2), 3, 0.1, -1.0, False)
    assert config.mat_options == {"width": 8, "kind": "fast"}
    assert config.tune_options == {"rank": 4}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--out=", "path is empty"),
        ("--channels 3-1", "backwards"),
        ("--min-region 0", "x>=1"),
        ("--regions thing", "'instances', 'classes', 'components', 'panoptic'"),
        ("--nodata none", "SOURCE=NUMBER"),
        ("--nodata depth=0,depth=1", "depth"),
        ("--mat-option width", "KEY=VALUE"),
        ("--mat-option a=1 --mat-option a=2", "more than once"),
    ],
)
def test_a_wrong_value_names_the_option_and_what_is_allowed(
    args: str, said: str
) -> None:
    """The same words from every command that has the option."""
    with pytest.raises(click.UsageError) as caught:
        parse(config_options(), *args.split())
    assert said in caught.value.format_message()
    assert args.split()[0].rstrip("=") in caught.value.format_message()


def test_help_shows_defaults_and_bounds() -> None:
    """Nobody reads the source to learn what 4 means."""

    @click.command()
    @config_options("batch_size", "box_fraction", "aspect", "lr")
    def command(**options: Any) -> None:
        pass

    said = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    bounds = ("[default: 4] [1<=x<=65536]", "[0<=x<=1]")
    for part in ("--batch-size INT", *bounds, "--aspect [pad|stretch]", "--lr NUMBER"):
        assert part in said
