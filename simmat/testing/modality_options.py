"""The options of a modality: what each may be, and the sensor with each of its values."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

from simmat.errors import ConfigError, SimMATError
from simmat.modality import ModalityAdapter
from simmat.modality_options import ModalityOptions, option_words, parse_options
from simmat.testing.checks import CheckFailed
from simmat.testing.samples import ModalityCase


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
