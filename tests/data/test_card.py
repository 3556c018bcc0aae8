"""The data card: what is said about a data set, and that nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmat.data.card import DataCard, load_card, make_card, write_card
from simmat.errors import ConfigError


def test_a_missing_region_rule_is_refused_with_the_rules_there_are(
    tmp_path: Path,
) -> None:
    """A guessed rule would train on the wrong objects without a word."""
    with pytest.raises(ConfigError, match="--regions") as caught:
        load_card(tmp_path, {"regions": None})
    for rule in ("instances", "classes", "components", "panoptic", "card.toml"):
        assert rule in str(caught.value)


def test_command_line_overrides_the_file_and_none_means_not_given(
    tmp_path: Path,
) -> None:
    """The card in the folder serves by default, a flag has the last word."""
    (tmp_path / "card.toml").write_text('regions = "classes"\nmin_region = 9\n')
    card = load_card(tmp_path, {"regions": "components", "min_region": None})
    assert (card.regions, card.min_region) == ("components", 9)


def test_a_size_given_again_replaces_the_whole_rule(tmp_path: Path) -> None:
    """A share in the card would make --min-region 10 do nothing."""
    (tmp_path / "card.toml").write_text(
        'regions = "classes"\nmin_region_share = 0.01\n'
    )
    card = load_card(
        tmp_path, {"min_region": 10}, defaults={"min_region": 500, "ignore": 9}
    )
    assert (card.smallest_px((480, 640)), card.ignore) == (10, 9)
    assert (
        load_card(tmp_path, {}, defaults={"min_region": 5000}).smallest_px((480, 640))
        == 3072
    )


def test_written_card_reads_back_equal(tmp_path: Path) -> None:
    """A card that loses a field changes what is trained."""
    card = DataCard(
        regions="components",
        min_region=30,
        nodata={"depth": 0, "thermal": -9999.5},
        ignore=255,
        zero_means="unlabelled",
        class_names={1: "boat", 12: 'a "big" plane\n'},
        intrinsics={"fx": 525.0, "fy": 524.5, "cx": 319.5, "cy": 239.5},
        notes="täst \\ \x7f",
    )
    write_card(tmp_path, card)
    assert load_card(tmp_path, {}) == card


def test_written_card_holds_only_what_was_set(tmp_path: Path) -> None:
    """A file people read and edit; a default written down would be frozen."""
    assert (
        write_card(tmp_path, DataCard(regions="classes")).read_text()
        == 'format = 1\nregions = "classes"\n'
    )


def test_all_wrong_fields_are_reported_at_once_with_the_nearest_name(
    tmp_path: Path,
) -> None:
    """A user fixes a file once, not once a field."""
    with pytest.raises(ConfigError) as caught:
        make_card(
            {"regions": "instance", "min_regoin": 3, "nodata": float("nan")},
            where="here",
        )
    message = str(caught.value)
    assert "'min_region'" in message
    assert "'instances', 'classes', 'components' or 'panoptic'" in message
    assert "nodata" in message


@pytest.mark.parametrize(
    ("intrinsics", "said"),
    [
        ({"fx": 525.0}, "fy is missing"),
        ({"fx": 525.0, "fy": 0.0, "cx": 1.0, "cy": 1.0}, "greater than 0"),
        ({"fx": 525.0, "fy": 525.0, "cx": float("nan"), "cy": 1.0}, "finite"),
    ],
)
def test_incomplete_intrinsics_are_refused(
    intrinsics: dict[str, float], said: str
) -> None:
    """A sensor that needs the camera must not find out in the middle of training."""
    with pytest.raises(ConfigError, match=said):
        make_card({"regions": "classes", "intrinsics": intrinsics}, where="here")
