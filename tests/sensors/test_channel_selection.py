"""`--channels` means bands by name, by index and by wavelength."""

from __future__ import annotations

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


def test_a_wavelength_that_no_band_is_near_is_refused_with_those_there_are() -> None:
    """A thermal band is not what a near-infrared one shows."""
    with pytest.raises(
        ConfigError, match=r"5 % of 1\.6 um.*blue 0\.49 um, red 0\.665 um"
    ):
        pick_channels(CHANNELS, ["1.6um"])


def test_a_wavelength_needs_bands_that_state_theirs() -> None:
    """Nothing is guessed from the order of planes."""
    with pytest.raises(ConfigError, match=r"wavelength.*\['quality'\]"):
        pick_channels(CHANNELS[4:], ["665nm"])


def test_a_band_named_twice_in_different_ways_is_refused() -> None:
    """It would count double."""
    with pytest.raises(ConfigError, match="twice"):
        pick_channels(CHANNELS, ["red", "665nm"])


@pytest.mark.parametrize("text", ["²", "--1", "-", "9" * 5000])
def test_what_is_not_an_index_is_an_unknown_name(text: str) -> None:
    """A slip of the keyboard is not a crash."""
    with pytest.raises(ConfigError, match="no channel '"):
        pick_channels(CHANNELS, [text])


def test_an_index_that_is_not_there_is_refused_with_those_there_are() -> None:
    """From the end, as Python counts, would pick another band without a word."""
    with pytest.raises(ConfigError, match=r"-1; channels: 0 blue, 1 .*, 4 quality"):
        pick_channels(CHANNELS, [-1])


@pytest.mark.parametrize("text", ["7" * 5000, f"0-{'7' * 5000}", f"{'7' * 5000}-9"])
def test_a_number_without_end_is_no_channel(text: str) -> None:
    """Python reads no number of more than 4300 digits, and that is no bug of ours."""
    with pytest.raises(ConfigError, match="777"):
        pick_channels(CHANNELS, parse_channels(text))
