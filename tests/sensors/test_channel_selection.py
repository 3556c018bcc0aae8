"""`--channels` means bands by name, by index and by wavelength."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from simmat.errors import ConfigError
from simmat.sensors.channel_selection import parse_channels, pick_channels
from simmat.types import Channel

CHANNELS = tuple(
    Channel(name, "reflectance", "1", wavelength_um=centre)
    for name, centre in (
        ("blue", 0.49),
        ("red", 0.665),
        ("nir", 0.842),
        ("nir08", 0.865),
        ("quality", None),
    )
)


def test_names_indices_and_wavelengths_can_be_mixed() -> None:
    """People know a band by its name, a program by its place, a spectroscopist by its wavelength."""
    assert pick_channels(CHANNELS, ["nir", 0, "665nm"]) == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "index"), [("0.86um", 3), ("0.86 µm", 3), ("845nm", 2), ("500nm", 0)]
)
def test_a_wavelength_means_the_nearest_band(text: str, index: int) -> None:
    """Cameras of one kind differ by some nanometres."""
    assert pick_channels(CHANNELS, [text]) == [index]


@pytest.mark.parametrize(
    ("selected", "said"),
    [
        # a thermal band is not what a near-infrared one shows
        (["1.6um"], r"5 % of 1\.6 um.*blue 0\.49 um, red 0\.665 um"),
        (["red", "665nm"], "twice"),
        # from the end, as Python counts, would pick another band without a word
        ([-1], r"-1; channels: 0 blue, 1 .*, 4 quality"),
        (["²"], "no channel '"),
        (["--1"], "no channel '"),
        (["9" * 5000], "no channel '"),
        # Python reads no number of more than 4300 digits
        (parse_channels("7" * 5000), "777"),
        (parse_channels(f"0-{'7' * 5000}"), "777"),
    ],
    ids=range(8),
)
def test_what_is_no_channel_is_refused_with_those_there_are(
    selected: Sequence[str | int], said: str
) -> None:
    """A slip of the keyboard picks nothing."""
    with pytest.raises(ConfigError, match=said):
        pick_channels(CHANNELS, selected)


def test_a_wavelength_needs_bands_that_state_theirs() -> None:
    """Nothing is guessed from the order of planes."""
    with pytest.raises(ConfigError, match=r"wavelength.*\['quality'\]"):
        pick_channels(CHANNELS[4:], ["665nm"])
