"""Options of a sensor: what its files hold and how they are read, where the files do not say it themselves.

An option is said by `--modality-option`, a config file or Python; else by `[modality_options]` of the data card; else
the file itself decides. Where two of them contradict each other, the data are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from simmat.documents import Document, allowed_values, parse
from simmat.errors import ConfigError, did_you_mean


class ModalityOptions(Document):
    """The base of a sensor's options: a subclass has a field, with default and description, for each.

    A default must be what a file without any statement is read as; None leaves it to the file.
    """


OptionsT = TypeVar("OptionsT", bound=ModalityOptions)


def parse_options(model: type[OptionsT], values: Mapping[str, Any], sensor: str) -> OptionsT:
    """Return the options of a sensor.

    Args:
        model: the sensor's `Options`.
        values: option -> value; an option that is not named keeps its default.
        sensor: its name, for messages.

    Raises:
        ConfigError: an option is unknown, or its value is not allowed; all problems at once.
    """
    return parse(model, dict(values), f"options of modality {sensor!r}")


def options_by_sensor(options: Mapping[str, Any], sensors: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return sensor -> option -> value.

    Args:
        options: the same, or option -> value where there is one sensor; also SENSOR.OPTION -> value.
        sensors: names of the sensors that a modality consists of.

    Raises:
        ConfigError: an option does not say which of several sensors it is of, or is given twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, value in options.items():
        sensor, dot, option = key.rpartition(".")
        if isinstance(value, Mapping):
            items = [(key, str(name), item) for name, item in value.items()]
        elif dot:
            items = [(sensor, option, value)]
        elif len(sensors) == 1:
            items = [(sensors[0], key, value)]
        else:
            raise ConfigError(
                f"modality option {key!r} does not say which sensor of {'+'.join(sensors)} it is of; write for example "
                f"{sensors[-1]}.{key}={value}"
            )
        for name, own, item in items:
            if own in found.setdefault(name, {}):
                raise ConfigError(f"modality option {own!r} of {name!r} is given twice; give it once")
            found[name][own] = item
    return found


def check_sensors(options: Iterable[str], sensors: Sequence[str]) -> None:
    """Refuse options of a sensor that a modality does not have.

    Raises:
        ConfigError: it names the sensors there are.
    """
    for name in options:
        if name not in sensors:
            hint = did_you_mean(name, sensors, otherwise="")
            raise ConfigError(f"modality option of {name!r}: the sensors are {', '.join(sensors)}{hint}")


def describe_options(model: type[ModalityOptions]) -> tuple[tuple[str, str, str, str], ...]:
    """Return (name, allowed values, default, description) of each option."""
    return tuple(
        (name, allowed_values(model, name).replace("'", ""), _in_words(field.default), field.description or "")
        for name, field in model.model_fields.items()
    )


def option_words(options: Mapping[str, Any]) -> str:
    """Return options as `--modality-option` takes them: "unit=cK, filter=lee"."""
    return ", ".join(f"{name}={_in_words(value)}" for name, value in options.items())


def _in_words(value: Any) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
