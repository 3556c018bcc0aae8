"""Which files are written: result formats by name, and those that suit an image."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from simmat.errors import ConfigError, DataError
from simmat.plugin_specs import ResultFormat, ResultKind
from simmat.plugins.registry import import_from_string

if TYPE_CHECKING:
    from simmat.plugins.registry import Registry
    from simmat.types import ImageReader

AUTO = "auto"
"""Stands for the formats that suit an image."""
UNCERTAINTY = "uncertainty"
"""The format for which the uncertainty of masks is computed."""
TABLE = "csv"
"""The format of the table of measured objects."""


def kinds_of_prompts(
    names: Collection[str] | None, registry: Registry
) -> tuple[ResultKind, ...]:
    """Return what formats hold of prompted objects: each object separately, or all objects of an image.

    Args:
        names: what `--format` lists; None writes the files of each object.
        registry: has the formats.
    """
    if names is None:
        return ("prompts",)
    for one in registry.all("result format"):
        if one.name in names and "prompts" in one.kinds and "objects" not in one.kinds:
            return ("prompts",)
    return ("objects",)


def choose_formats(
    names: Collection[str],
    kinds: Collection[ResultKind],
    registry: Registry,
    *,
    of_prompts: bool = False,
) -> tuple[tuple[ResultFormat, ...], tuple[ResultFormat, ...]]:
    """Find formats by name; "auto" stands for those that suit each image.

    Args:
        names: what `--format` lists.
        kinds: what is looked for in the images.
        registry: has the formats.
        of_prompts: "auto" stands for formats with the pixels of prompted objects: formats of prompts, and of class
            maps.

    Returns:
        The formats that are named, and those that "auto" may stand for; none if it is not named.

    Raises:
        ConfigError: a format can hold nothing of what is looked for.
        UnknownNameError: no installed package brings a format.
    """
    every: list[ResultFormat] = registry.all("result format")
    named = []
    for name in sorted(set(names) - {AUTO}):
        one: ResultFormat = registry.get("result format", name)
        if not can_hold_kinds(one, kinds):
            others = [other.name for other in every if can_hold_kinds(other, kinds)]
            raise ConfigError(
                f"format {name} holds {' and '.join(one.kinds)}, not {' and '.join(kinds)}; use {', '.join(others)}"
            )
        named.append(one)
    automatic = []
    if AUTO in names:
        for one in every:
            shows_pixels = any(
                place.endswith(("prompts", "classes")) for place in one.auto
            )
            if one.auto and (
                shows_pixels if of_prompts else can_hold_kinds(one, kinds)
            ):
                automatic.append(one)
    return in_order(named), in_order(automatic)


def in_order(formats: Iterable[ResultFormat]) -> tuple[ResultFormat, ...]:
    """Sort by name, formats that need a georeference last: their file replaces one of the same name."""
    return tuple(sorted(formats, key=lambda one: (one.needs_georeference, one.name)))


def can_hold_kinds(one: ResultFormat, kinds: Collection[ResultKind]) -> bool:
    """Return whether a format can hold one of these kinds of results."""
    return not set(kinds).isdisjoint(one.kinds)


def check_image(one: ResultFormat, image: ImageReader) -> None:
    """Raise DataError if a format cannot hold an image."""
    if one.needs_georeference and image.georeference is None:
        raise DataError(
            f"{image.origin}: has no coordinate reference system, which format {one.name} needs; use --format labels, "
            "or give the image a georeference (gdal_edit)"
        )
    if one.check:
        import_from_string(one.check)(image)


def can_hold(one: ResultFormat, image: ImageReader) -> bool:
    """Return whether a format can hold an image of this size and place."""
    try:
        check_image(one, image)
    except DataError:
        return False
    return True
