"""The file formats of results, which plugins bring: choose those of a call, and write an image's results in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.errors import ConfigError, DataError
from simmat.inference.result import ImageResult
from simmat.io.files import output_errors
from simmat.plugin_specs import ResultFormat, ResultKind, resolve
from simmat.plugins.registry import Registry

if TYPE_CHECKING:
    from simmat.types import ImageReader

AUTO = "auto"
"""Stands for the formats that suit an image."""


@dataclass(frozen=True)
class ChosenFormats:
    """The formats of a call.

    Attributes:
        named: those the user named.
        automatic: those that "auto" may stand for; empty if the user did not write it.
    """

    named: tuple[ResultFormat, ...]
    automatic: tuple[ResultFormat, ...] = ()

    def endings(self, kinds: Iterable[ResultKind]) -> tuple[str, ...]:
        """Return what the names of an image's files may end with."""
        found = [
            ending.format(kind=kind)
            for kind in kinds
            for one in (*self.named, *self.automatic)
            if kind in one.kinds and not one.one_file
            for ending in one.endings
        ]
        return tuple(dict.fromkeys(found))

    def for_call(self, kinds: Collection[ResultKind]) -> tuple[ResultFormat, ...]:
        """Return the formats that are one file for all images."""
        formats = dict.fromkeys((*self.named, *self.automatic))
        return tuple(one for one in formats if one.one_file and not set(kinds).isdisjoint(one.kinds))

    def for_image(self, kind: ResultKind, image: ImageReader) -> tuple[ResultFormat, ...]:
        """Return the formats of an image's files in the order in which they are written.

        Raises:
            DataError: a format that the user named cannot hold an image of this size or place.
        """
        chosen = [one for one in self.named if kind in one.kinds]
        for one in chosen:
            _check_image(one, image)
        wanted = {kind} if image.georeference is None else {kind, f"georeferenced {kind}"}
        automatic = [one for one in self.automatic if not wanted.isdisjoint(one.auto) and _can_hold(one, image)]
        replaced = {one.replaces for one in automatic}
        chosen += [one for one in automatic if one.name not in replaced and one not in chosen]
        return tuple(one for one in _in_order(chosen) if not one.one_file)


def choose_formats(names: Sequence[str], kinds: Collection[ResultKind], registry: Registry) -> ChosenFormats:
    """Find formats by name; "auto" stands for those that suit each image.

    Args:
        names: what `--format` lists.
        kinds: what is looked for in the images.

    Raises:
        ConfigError: a format can hold nothing of what is looked for.
        UnknownNameError: no installed package brings a format.
    """
    known = registry.names("result format")
    named = _in_order({registry.result_format(name) for name in names if name != AUTO})
    for one in named:
        if set(kinds).isdisjoint(one.kinds):
            others = [name for name in known if not set(kinds).isdisjoint(registry.result_format(name).kinds)]
            raise ConfigError(
                f"format {one.name} holds {' and '.join(one.kinds)}, not {' and '.join(kinds)}; use {', '.join(others)}"
            )
    every = map(registry.result_format, known) if AUTO in names else ()
    automatic = [one for one in every if one.auto and not set(kinds).isdisjoint(one.kinds)]
    return ChosenFormats(named, _in_order(automatic))


def write_result(result: ImageResult, formats: Iterable[ResultFormat], folder: Path) -> list[str]:
    """Write what was found in an image; return the names of the files.

    `folder` exists, such as one of `staged_files`, from which files are moved when all are whole.
    """
    with output_errors(folder):
        return list(dict.fromkeys(resolve(one.write)(result, folder) for one in formats))


def write_for_call(
    one: ResultFormat, images: Iterable[tuple[str, Mapping[str, Any]]], class_names: Mapping[int, str], folder: Path
) -> str:
    """Write the file that holds the results of all images, given by name and json; return a line to print."""
    file = folder / one.endings[0]
    written: int = resolve(one.write)(images, class_names, file)
    return f"{file}  {written} image{'' if written == 1 else 's'}"


def _check_image(one: ResultFormat, image: ImageReader) -> None:
    """Raise DataError if a format cannot hold an image."""
    if one.needs_georeference and image.georeference is None:
        raise DataError(
            f"{image.origin}: has no coordinate reference system, which format {one.name} needs; use --format labels, "
            "or give the image a georeference (gdal_edit)"
        )
    if one.check:
        resolve(one.check)(image)


def _can_hold(one: ResultFormat, image: ImageReader) -> bool:
    try:
        _check_image(one, image)
    except DataError:
        return False
    return True


def _in_order(formats: Iterable[ResultFormat]) -> tuple[ResultFormat, ...]:
    """Sort by name, formats that need a georeference last: their file replaces one of the same name."""
    return tuple(sorted(formats, key=lambda one: (one.needs_georeference, one.name)))
