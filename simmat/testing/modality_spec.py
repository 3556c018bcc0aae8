"""Checks of a sensor as it is declared: its options, units and wavelengths, and that it can be sent to a worker."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, get_args, get_origin

from simmat.errors import ConfigError, SimMATError
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.options import ModalityOptions, format_options, parse_options
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.samples import ModalityCase
from simmat.types import RGB_QUANTITY, Channel

QUANTITY_UNITS: Mapping[str, tuple[str, ...]] = {
    "srgb": ("count",),
    "counts": ("count",),
    "intensity": ("count", "1"),
    "reflectance": ("1",),
    "radiance": ("W/(m2 sr um)", "W/(m2 sr)", "mW/(m2 sr nm)"),
    "irradiance": ("W/m2", "W/(m2 um)", "W/(m2 nm)", "mW/(m2 nm)"),
    "brightness_temperature": ("K",),
    "temperature": ("K",),
    "depth": ("m",),
    "distance": ("m",),
    "range": ("m",),
    "elevation": ("m",),
    "height_above_ground": ("m", "count"),
    "height_above_ground_level": ("m",),
    "disparity": ("px",),
    "horizontal_disparity": ("1/m", "count"),
    "angle_with_gravity": ("deg", "rad", "count"),
    "angle_of_linear_polarization": ("rad", "deg"),
    "angle_of_polarization": ("rad", "deg"),
    "degree_of_linear_polarization": ("1",),
    "degree_of_circular_polarization": ("1",),
    "degree_of_polarization": ("1",),
    "backscatter": ("dB",),
    "target_strength": ("dB",),
    "sound_pressure_level": ("dB",),
    "amplitude": ("count", "1", "V", "Pa"),
    "power": ("1", "W"),
    "phase": ("rad", "deg"),
    "coherence": ("1",),
    "coherency": ("1", "W"),
    "radial_velocity": ("m/s",),
}
"""Quantities that SimMAT and its plugins know, with their units; an author may use other quantities, with any unit."""

_OPTICAL_UM = (0.01, 100.0)
"""From the extreme ultraviolet to the far infrared; a number of nanometres is far above."""
_VISIBLE_UM = (0.36, 0.83)
"""What the CIE calls visible, for RGB channels."""
_ALL_UM = (0.01, 3e7)
"""From the extreme ultraviolet over terahertz and millimetre waves to radio of 10 MHz."""
_OPTICAL_QUANTITIES = (
    *("counts", "reflectance", "radiance", "irradiance", "depth", "disparity", "horizontal_disparity"),
    *("angle_of_linear_polarization", "degree_of_linear_polarization"),
)
"""Quantities of cameras alone; radars, radiometers and terahertz scanners measure the others too."""
_OPTICAL_NAMES = {"red", "green", "blue", "rededge", "nir", "vnir", "swir", "mwir", "lwir", "ir", "infrared", "thermal"}


def with_each_option(adapter: ModalityAdapter) -> tuple[ModalityAdapter, ...]:
    """Return a sensor, and the sensor with every other value of each option that has a fixed set of values.

    One option is changed at a time; a value that needs another option is left out.
    """
    made = [adapter]
    for name, field in adapter.Options.model_fields.items():
        for value in _fixed_values(field.annotation):
            if value == field.default:
                continue
            try:
                made.append(adapter.with_options({adapter.name: {name: value}}))
            except ConfigError:  # it needs another option
                continue
    return tuple(made)


def _fixed_values(annotation: Any) -> tuple[Any, ...]:
    """Return the values of bool and Literal types; none for numbers and texts."""
    if annotation is bool:
        return (True, False)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(value for part in get_args(annotation) for value in _fixed_values(part))


def name_with_options(adapter: ModalityAdapter) -> str:
    """Return a sensor's name with its options, for the id of a test: "depth unit=mm"."""
    return f"{adapter.name} {format_options(adapter.stated_options())}".strip()


def spec_round_trips(case: ModalityCase) -> None:
    """The sensor survives pickle and its channels survive json, as workers and bundles need."""
    adapter = case.declared
    try:
        copy = pickle.loads(pickle.dumps(adapter))
    except Exception as error:
        raise CheckFailed(
            f"{type(adapter).__name__} cannot be pickled: {error}",
            "keep no lambda, open file or lock in the adapter; open what load needs inside load",
        ) from error
    for what in ("name", "description", "sources", "channels"):
        if getattr(copy, what) != getattr(adapter, what):
            raise CheckFailed(
                f"{what} came back from pickle as {getattr(copy, what)!r}, it was {getattr(adapter, what)!r}",
                "set what varies as plain attributes in __init__",
            )
    for channel in _channels_of(case):
        try:
            json.dumps(asdict(channel))
        except (TypeError, ValueError) as error:
            raise CheckFailed(
                f"channel {channel.name!r} does not survive json: {error}", "use plain text and numbers in Channel"
            ) from error


def options_are_described(case: ModalityCase) -> None:
    """Every option has a description and a default that is allowed, and setting one does not change the sensor."""
    adapter, model = case.declared, case.declared.Options
    if not (isinstance(model, type) and issubclass(model, ModalityOptions)):
        raise CheckFailed(f"Options is {model!r}", "make it a subclass of simmat.ModalityOptions")
    if not isinstance(adapter.options, model):
        raise CheckFailed(
            f"options are {type(adapter.options).__name__}, Options is {model.__name__}",
            "call super().__init__(options) in __init__",
        )
    for name, field in model.model_fields.items():
        if field.is_required() or not field.description:
            raise CheckFailed(
                f"option {name!r} has no {'default' if field.is_required() else 'description'}",
                'declare it as  name: TYPE = Field(DEFAULT, description="…")',
            )
    try:
        parse_options(model, model().model_dump(mode="json"), adapter.name)
        json.dumps(model().model_dump(mode="json"), allow_nan=False)
    except (SimMATError, TypeError, ValueError) as error:
        raise CheckFailed(f"the defaults of the options are not allowed values: {error}", "correct them") from error
    before = adapter.options
    for made in with_each_option(adapter)[1:]:
        if type(made.options) is not type(before) or made is adapter or adapter.options != before:
            raise CheckFailed(
                f"setting {format_options(made.stated_options())} changed the sensor itself",
                "let __init__ take the options and set what depends on them; change no class attribute",
            )


def unit_fits_quantity(case: ModalityCase) -> None:
    """The unit of a channel, as declared and as loaded, is one that its quantity is measured in."""
    channels = list(_channels_of(case))
    with contextlib.suppress(CheckSkipped):  # a file may say counts where kelvin is declared
        channels += case.load(case.samples[0].files).channels
    for channel in channels:
        units = QUANTITY_UNITS.get(channel.quantity, (channel.unit,))
        if channel.unit not in units:
            raise CheckFailed(
                f"channel {channel.name!r} is {channel.quantity} in {channel.unit!r}",
                f"{channel.quantity} goes with {' or '.join(map(repr, units))}: convert in load, "
                "or name another quantity",
            )


def wavelengths_plausible(case: ModalityCase) -> None:
    """A wavelength is given in micrometres and is plausible for its quantity."""
    for channel in _channels_of(case):
        wavelength = channel.wavelength_um
        low, high = _plausible_um(channel)
        if wavelength is None or low <= wavelength <= high:
            continue
        advice = "give the centre of the band in micrometres, or None where there is none"
        for unit, factor in (("millimetres", 1e3), ("metres", 1e6), ("nanometres", 1e-3)):
            if low <= wavelength * factor <= high:
                advice = f"this looks like {unit}: write {wavelength * factor:g}"
        raise CheckFailed(
            f"channel {channel.name!r} ({channel.quantity}) has wavelength_um {wavelength:g}; "
            f"plausible are {low:g} to {high:g} um",
            advice,
        )


def _channels_of(case: ModalityCase) -> tuple[Channel, ...]:
    """Return the declared channels; those of a sample where the sensor declares none."""
    return case.declared.channels or case.load(case.samples[0].files).channels


def _plausible_um(channel: Channel) -> tuple[float, float]:
    """Return the plausible (low, high) wavelength of a channel in micrometres, by its quantity and name.

    An infrared camera and a microwave radiometer both measure kelvin, and 10,000 um is 30 GHz, but also a mistake for
    10,000 nm; the name of the channel decides.
    """
    if channel.quantity == RGB_QUANTITY:
        return _VISIBLE_UM
    words = set(re.findall("[a-z]+", channel.name.lower()))
    return _OPTICAL_UM if channel.quantity in _OPTICAL_QUANTITIES or words & _OPTICAL_NAMES else _ALL_UM
