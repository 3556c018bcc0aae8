"""Sensors: their names, channels, sources and options."""

from __future__ import annotations

import json
import math
import pickle
import re
from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args, get_origin

from simmat.documents import Document, of_dataclass, validate
from simmat.errors import ConfigError, SimMATError
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.options import ModalityOptions, option_words, parse_options
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.modality_saving import QUANTITY_UNITS, plausible_um
from simmat.testing.samples import ModalityCase
from simmat.types import Channel


def with_each_option(adapter: ModalityAdapter) -> tuple[ModalityAdapter, ...]:
    """Return a sensor, and it again for every value of its options that is not the default.

    Only options with a fixed set of values count, true and false among them; one option is changed at a time, and a
    value that needs another option is left out.
    """
    made = [adapter]
    for name, field in adapter.Options.model_fields.items():
        for value in _values(field.annotation):
            if value == field.default:
                continue
            try:
                made.append(adapter.with_options({adapter.name: {name: value}}))
            except ConfigError:  # it needs another option
                continue
    return tuple(made)


def name_with_options(adapter: ModalityAdapter) -> str:
    """Return a sensor's name with its options, as the id of a test: "depth unit=mm"."""
    return f"{adapter.name} {option_words(adapter.stated_options())}".strip()


def options_are_described(case: ModalityCase) -> None:
    """Every option has a description and a default that is allowed, and setting one leaves the sensor itself alone."""
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
                f"with {option_words(made.stated_options())} the sensor itself was changed",
                "let __init__ take the options and set what depends on them; change no class attribute",
            )


def _values(annotation: Any) -> tuple[Any, ...]:
    """Return the values of a fixed set; none for numbers and texts."""
    if annotation is bool:
        return (True, False)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(value for part in get_args(annotation) for value in _values(part))


_MOST_SLIPS = 2  # of the pen, in a quantity that is taken for a known one misspelt


class _Kept(Document):
    """A channel as a bundle keeps it."""

    channel: Annotated[Channel, of_dataclass(Channel)]


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
                "let __init__ and pickle give the same adapter: set what varies as plain attributes",
            )
    for channel in channels_of(case):
        try:
            back = validate(_Kept, json.loads(json.dumps({"channel": asdict(channel)}))).channel
        except (TypeError, ValueError, SimMATError) as error:
            raise CheckFailed(f"channel {channel.name!r} cannot go through json: {error}", _PLAIN) from error
        if back != channel:
            raise CheckFailed(f"channel {channel.name!r} came back from json as {back}, it was {channel}", _PLAIN)


def names_unique(case: ModalityCase) -> None:
    """Every channel has a name of its own, and every source too."""
    sources = [source.name for source in case.declared.sources]
    for kind, names in (("source", sources), ("channel", [c.name for c in case.declared.channels])):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise CheckFailed(f"{kind} names {twice} stand more than once in {names}", f"give each {kind} its own name")


def std_positive(case: ModalityCase) -> None:
    """A default std is finite and greater than 0, a default mean is finite and lies in the valid range."""
    for channel in channels_of(case):
        if channel.std is not None and not (math.isfinite(channel.std) and channel.std > 0):
            raise CheckFailed(
                f"channel {channel.name!r} has std {channel.std}", "state the std of real images, or leave it None"
            )
        if channel.mean is None:
            continue
        low, high = channel.valid_range or (-math.inf, math.inf)
        if not math.isfinite(channel.mean) or not low <= channel.mean <= high:
            raise CheckFailed(
                f"channel {channel.name!r} has mean {channel.mean:g} {channel.unit}, valid are {low:g} to {high:g}",
                "state mean and valid_range in the channel's unit",
            )


def unit_fits_quantity(case: ModalityCase) -> None:
    """The unit of a channel, as declared and as loaded, is one that its quantity is measured in."""
    for channel in (*channels_of(case), *_loaded_channels(case)):
        units = QUANTITY_UNITS.get(channel.quantity)
        if units is None:
            _refuse_misspelt(channel)
        elif channel.unit not in units:
            raise CheckFailed(
                f"channel {channel.name!r} is {channel.quantity} in {channel.unit!r}",
                f"{channel.quantity} goes with {' or '.join(map(repr, units))}: convert in load, "
                "or name another quantity",
            )


def wavelengths_plausible(case: ModalityCase) -> None:
    """A wavelength is given in micrometres and is one that its quantity is measured at."""
    for channel in channels_of(case):
        wavelength = channel.wavelength_um
        low, high = plausible_um(channel)
        if wavelength is None or low <= wavelength <= high:
            continue
        raise CheckFailed(
            f"channel {channel.name!r} ({channel.quantity}) has wavelength_um {wavelength:g}; "
            f"plausible are {low:g} to {high:g} um",
            _wavelength_advice(wavelength, low, high),
        )


def channels_of(case: ModalityCase) -> tuple[Channel, ...]:
    """Return the declared channels; of a sensor that leaves them to the file, those of a sample."""
    return case.declared.channels or case.load(case.samples[0].files).channels


def _loaded_channels(case: ModalityCase) -> tuple[Channel, ...]:
    """Return what a file makes of the channels: counts where it does not say kelvin. None where there is no file."""
    try:
        return case.load(case.samples[0].files).channels
    except CheckSkipped:
        return ()


_PLAIN = "use plain text and numbers in Channel"


def _refuse_misspelt(channel: Channel) -> None:
    for known in QUANTITY_UNITS:
        if _is_typo(channel.quantity, known):
            raise CheckFailed(
                f"channel {channel.name!r} has quantity {channel.quantity!r}, which nobody knows",
                f"did you mean {known!r}?",
            )


def _is_typo(written: str, meant: str) -> bool:
    """Whether as many words were written, none more than one slip from what was meant; or only their joints differ."""
    one, other = (re.split(r"[^a-z0-9]+", text.lower()) for text in (written, meant))
    if "".join(one) == "".join(other):
        return True
    if len(one) != len(other):
        return False  # a word more or less is another quantity: degree_of_polarization
    slips = [_slips(a, b) for a, b in zip(one, other, strict=True)]
    return max(slips) <= 1 and sum(slips) <= _MOST_SLIPS


def _slips(one: str, other: str) -> int:
    """Return how many letters are added, lost, changed or swapped with the next (Damerau's distance, aligned)."""
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and (a, one[i - 2]) == (other[j - 2], b):
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


def _wavelength_advice(wavelength: float, low: float, high: float) -> str:
    for unit, factor in (("nanometres", 1e-3), ("metres", 1e6), ("millimetres", 1e3)):
        if low <= wavelength * factor <= high:
            return f"this looks like {unit}: write {wavelength * factor:g}"
    return "give the centre of the band in micrometres, or None where there is none"
