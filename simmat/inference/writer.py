"""Write what was found: the files of each image when it is added, and those of all images at the end.

The json of an image states what was asked, so that a later call skips the image, and lists its files, so that a later
call may replace them.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simmat.errors import ConfigError, PluginError, SimMATError, few_of
from simmat.inference.coco import object_records
from simmat.inference.formats import (
    BAND_ROWS,
    ImageResult,
    PromptResult,
    Result,
    label_bands,
)
from simmat.inference.options import prompt_values
from simmat.inference.outcome import ImageOutcome
from simmat.inference.request import RECORD_FORMAT, Request
from simmat.inference.table import is_own_table
from simmat.io.files import atomic_write_json, output_errors, staged_files
from simmat.io.paths import shown_url
from simmat.io.reading import read_json
from simmat.plugin_specs import ResultFormat
from simmat.plugins.registry import import_from_string
from simmat.types import short_names

if TYPE_CHECKING:
    from simmat.inference.images import ImageTask
    from simmat.predictor import Predictor
    from simmat.types import ImageReader

_SHARE_ROWS = 64
"""Rows of a class map that are measured at once: a pixel of a map in degrees has another size in each row."""
_NAMED = 5
"""Classes that are named in a summary."""
_OWN_MARK = b"simmat predict"
"""What a file for all images holds in its first 1000 bytes, so that a later call may replace it."""


@dataclass(frozen=True)
class Found:
    """What was found in one image.

    Attributes:
        task: the image.
        reader: the same, opened.
        results: what to write; those with the same name follow each other and share one json.
        names: names of the results.
        about: what their json contains besides.
        warnings: why the results may be wrong; empty texts are left out.
        note: what to append to the line about the image.
    """

    task: ImageTask
    reader: ImageReader
    results: Iterable[Result]
    names: tuple[str, ...]
    about: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    note: str = ""


class Writer:
    """Writes the results of a call to a folder.

    Attributes:
        out: the folder.
    """

    def __init__(self, out: Path, request: Request, predictor: Predictor) -> None:
        self.out = out
        self._request = request
        self._predictor = predictor
        self._records: dict[str, Mapping[str, Any]] = {}
        """Name of an image -> its json, where a file for all images needs it."""

    def check(self, tasks: Sequence[ImageTask]) -> None:
        """Raise ConfigError if files would have the same name, or would replace those of another program."""
        for_call = [one.endings[0] for one in self._request.formats_for_call()]
        outputs: list[str] = []
        for task in tasks:
            outputs += self._outputs(task)
        _check_unique(outputs)
        _check_unique(
            [*(task.name for task in tasks), *(Path(file).stem for file in for_call)]
        )
        endings = self._request.endings()
        for name in outputs:
            _check_own(
                self.out,
                {f"{name}{ending}" for ending in endings} - self._earlier_files([name]),
            )
        for file in for_call:
            if not _is_own_for_call(self.out / file):
                _check_own(self.out, [file])

    def replaced_tables(self, tasks: Iterable[ImageTask]) -> str:
        """Return which files for all images will not hold all results in the folder any more; "" if none."""
        tables = []
        for one in self._request.formats_for_call():
            if (self.out / one.endings[0]).exists():
                tables.append(one.endings[0])
        if not tables:
            return ""
        own: set[str] = set()
        for task in tasks:
            own.update(self._outputs(task))
        others = []
        for file in sorted(self.out.glob("*.json")):
            if file.stem not in own and _is_record(file):
                others.append(file.stem)
        if not others:
            return ""
        return (
            f"{self.out} has results of earlier commands ({few_of(others)}), which {' and '.join(tables)} will not "
            "hold any more; for one table, give all images in one command, which skips finished ones, or choose "
            "another --out"
        )

    def earlier_outcome(self, task: ImageTask) -> ImageOutcome | None:
        """Return the outcome of an earlier call that did the same; None if one of its files is missing."""
        outputs = self._outputs(task)
        found = self._earlier_outcome(task, outputs)
        # prompts of a large image are written together
        if found is None and outputs != (task.name,):
            found = self._earlier_outcome(task, (task.name,))
        return found

    def _earlier_outcome(
        self, task: ImageTask, names: tuple[str, ...]
    ) -> ImageOutcome | None:
        """Return the outcome of an earlier call that wrote these names; None if one is missing."""
        request = self._digest(task)
        written: list[Path] = []
        objects = None
        for name in names:
            record = read_record(self.out / f"{name}.json")
            files = [self.out / file for file in sorted(written_files(record, name))]
            if (
                record.get("request") != request
                or not files
                or not all(file.is_file() for file in files)
            ):
                return None
            written += files
            objects = _object_count(record)
        return ImageOutcome(
            task.name, tuple(written), names, skipped=True, objects=objects
        )

    def add(self, found: Found) -> ImageOutcome:
        """Write the files of an image and the json that names them, all or none.

        Raises:
            ConfigError: a file of another program would be replaced.
            OutputError: a file cannot be written.
        """
        written: list[str] = []
        lines: list[str] = []
        warning = ""
        record: dict[str, Any] = {}
        earlier = self._earlier_files(found.names)
        with staged_files(self.out, replaced=earlier, tidy=False) as staging:
            for name, group in groupby(found.results, key=lambda result: result.name):
                results = list(group)
                record = self._write(name, results, found, staging)
                written += record["written"]
                lines += self._lines(name, results, record, found.note)
                for one in results:
                    if isinstance(one, PromptResult):
                        warning = warning or one.warning
            # another call may have written some meanwhile
            own = earlier | self._earlier_files(found.names)
            _check_own(self.out, set(written) - own)
        warnings = tuple(text for text in (warning, *found.warnings) if text)
        paths = tuple(self.out / file for file in written)
        return ImageOutcome(
            found.task.name,
            paths,
            found.names,
            tuple(lines),
            warnings,
            objects=_object_count(record),
        )

    def _write(
        self, name: str, results: Sequence[Result], found: Found, folder: Path
    ) -> dict[str, Any]:
        """Write the files of the results of one name to a folder, and the json that names them; return the json."""
        record = self._head(found)
        files: list[str] = []
        for result in results:
            formats = self._request.formats_for_image(result.kind, found.reader)
            files += write_result(result, formats, folder)
            record |= _record(result)
        # one file may hold several results
        files = list(dict.fromkeys([*files, f"{name}.json"]))
        if results[0].kind == "prompts":
            files.sort(
                key=lambda file: (
                    not file.endswith(".png"),
                    not file.endswith(".json"),
                    file,
                )
            )
        record["written"] = files
        warnings = [found.task.warning, *found.warnings]
        for result in results:
            if isinstance(result, PromptResult):
                warnings.append(result.warning)
        warnings = [text for text in dict.fromkeys(warnings) if text]
        if warnings:
            record["warnings"] = warnings
        atomic_write_json(folder / f"{name}.json", record)
        if self._request.formats_for_call():
            self._records[name] = record
        return record

    def _lines(
        self, name: str, results: Sequence[Result], record: Mapping[str, Any], note: str
    ) -> list[str]:
        """Return what to print about the results of one name."""
        file = self.out / name
        texts: list[str] = []
        for result in results:
            if isinstance(result, PromptResult):
                return _prompt_lines(result, file)
            texts.append(summarize(result, record[result.kind]))
        return [f"{file}.json  {', '.join(texts)}{note}"]

    def finish(self, outcomes: Iterable[ImageOutcome]) -> list[str]:
        """Write the files for all images; return a line to print for each.

        Args:
            outcomes: those of the images that this call or an earlier one has done.
        """
        names: list[str] = []
        for outcome in outcomes:
            names += outcome.names
        lines: list[str] = []
        if names:
            for one in self._request.formats_for_call():
                file = self.out / one.endings[0]
                write = import_from_string(one.write)
                count: int = write(
                    self._records_of(names), self._predictor.class_names, file
                )
                check_written(one.name, file.name, self.out)
                lines.append(f"{file}  {count} image{'' if count == 1 else 's'}")
        return lines

    def _outputs(self, task: ImageTask) -> tuple[str, ...]:
        """Return what the names of the files of an image begin with."""
        if self._request.kinds == ("prompts",) and task.prompts is not None:
            return tuple(task.prompts)
        return (task.name,)

    def _digest(self, task: ImageTask) -> str:
        return self._request.digest(
            task.files, task.prompts or {}, self._predictor.digest
        )

    def _earlier_files(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names of files that earlier calls wrote under these names."""
        files: set[str] = set()
        for name in names:
            files |= written_files(read_record(self.out / f"{name}.json"), name)
        return frozenset(files)

    def _records_of(
        self, names: Iterable[str]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the json of images; what another process or an earlier call wrote is read."""
        for name in names:
            record = self._records.get(name)
            if record is None:
                record = read_record(self.out / f"{name}.json")
            yield name, record

    def _head(self, found: Found) -> dict[str, Any]:
        """Return the values with which the json of an image begins."""
        predictor = self._predictor
        foundation = None
        with suppress(ValueError):  # of a network alone
            foundation = predictor.spec.foundation
        return {
            "format": RECORD_FORMAT,
            "request": self._digest(found.task),
            "files": {
                source: shown_url(file) for source, file in found.task.files.items()
            },
            "missing": sorted(self._request.missing),
            "bundle": str(predictor.bundle.path) if predictor.bundle else None,
            "foundation": foundation,
            "size_hw": list(found.reader.size_hw),
            **found.about,
        }


def write_result(
    result: Result, formats: Iterable[ResultFormat], folder: Path
) -> list[str]:
    """Write what was found in an image, or for a prompt; return the names of the files.

    `folder` exists, such as one of `staged_files`, from which files are moved when all are whole.

    Raises:
        PluginError: a format returned the name of a file that it did not write, or that its endings do not declare.
    """
    written: list[str] = []
    with output_errors(folder):
        for one in formats:
            name = import_from_string(one.write)(result, folder)
            check_written(one.name, name, folder)
            declared = [
                result.name + ending.format(kind=result.kind) for ending in one.endings
            ]
            if name not in declared:
                raise PluginError(
                    f"the result format {one.name!r} returned the file {name!r}, but its endings declare "
                    f"{' or '.join(declared)}; return that name, or add the ending"
                )
            written.append(name)
    return list(dict.fromkeys(written))  # a GeoPackage holds both objects and classes


def check_written(result_format: str, name: object, folder: Path) -> None:
    """Raise PluginError if a format did not write what it returned: the name of a file in the folder."""
    if not isinstance(name, str):
        raise PluginError(
            f"the result format {result_format!r} must return the name of the file that it wrote, got {name!r}"
        )
    if name != Path(name).name or not (folder / name).exists():
        raise PluginError(
            f"the result format {result_format!r} returned the file {name!r}, which it did not write; it must return "
            "the name of the file that it wrote to the folder"
        )


def _prompt_lines(result: PromptResult, file: Path) -> list[str]:
    """Return what to print about the object of a prompt, whose files begin with `file`."""
    of_class = ""
    if result.class_id is not None:
        of_class = f"  {result.class_name} ({result.class_probability:.0%})"
    channels = short_names(result.channels)
    lines = [
        f"{file}_mask.png  score {result.score:.3f}  {result.area} px  of {channels}{of_class}"
    ]
    if result.uncertainty is not None:
        lines.append(
            f"{file}_uncertainty.tif  probability over flips and shifts: mean, std"
        )
    return lines


def _record(result: Result) -> dict[str, Any]:
    """Return what the json of an image says of a result."""
    if isinstance(result, PromptResult):
        return {**result.record(), **prompt_values(result.prompt)}
    values = (
        object_records(result) if result.kind == "objects" else class_shares(result)
    )
    return {result.kind: values}


def class_shares(result: ImageResult) -> list[dict[str, Any]]:
    """Return label value, name, pixels and m² of each class in a class map."""
    counts: Counter[int] = Counter()
    areas: defaultdict[int, float] = defaultdict(float)
    rows = BAND_ROWS if result.georeference is None else _SHARE_ROWS
    for y0, band in label_bands(result, rows):
        height, width = band.shape
        pixel_m2 = math.nan
        if result.pixel_areas is not None:
            middle = np.array([[width / 2, y0 + height / 2]])
            pixel_m2 = float(result.pixel_areas(middle)[0])
        values, pixels = np.unique(band, return_counts=True)
        for value, count in zip(values.tolist(), pixels.tolist(), strict=True):
            counts[value] += count
            areas[value] += count * pixel_m2
    names = {result.background: "background", result.nodata: "no measurement"}
    shares = []
    for value, count in sorted(counts.items()):
        area_m2 = float(f"{areas[value]:.9g}") if math.isfinite(areas[value]) else None
        name = names.get(value) or result.class_name(value)
        shares.append(
            {"class": value, "class_name": name, "pixels": count, "area_m2": area_m2}
        )
    return shares


def summarize(result: ImageResult, record: Sequence[Mapping[str, Any]]) -> str:
    """Return what was found in words: "3 objects (2 car, 1 person)", or the largest classes of a map.

    `record` are the objects or classes as json values.
    """
    if result.class_map is not None:
        total = sum(one["pixels"] for one in record)
        largest = sorted(record, key=lambda one: -one["pixels"])[:_NAMED]
        return "; ".join(
            f"{one['pixels'] / total:.1%} {one['class_name']}" for one in largest
        )
    names = [one["class_name"] for one in record if one["class_name"] is not None]
    listed = ", ".join(
        f"{count} {name}" for name, count in Counter(names).most_common(_NAMED)
    )
    text = "1 object" if len(record) == 1 else f"{len(record)} objects"
    if listed:
        return f"{text} ({listed})"
    return text


def _object_count(record: Mapping[str, Any]) -> int | None:
    objects = record.get("objects")
    if isinstance(objects, list):
        return len(objects)
    return None


def _check_unique(names: Iterable[str]) -> None:
    several = sorted(name for name, count in Counter(names).items() if count > 1)
    if several:
        raise ConfigError(
            f"several results would be written as {several[:5]}; rename the files, use separate commands, or "
            "another --format"
        )


def _check_own(out: Path, foreign: Iterable[str]) -> None:
    """Raise ConfigError if one of these files, which no call of `simmat predict` wrote, exists."""
    for name in sorted(foreign):
        if (out / name).exists():
            raise ConfigError(
                f"{out / name} exists already and was not written by simmat predict; choose another --out, or move it "
                "away"
            )


def _is_own_for_call(file: Path) -> bool:
    """Return whether `simmat predict` wrote a file for all images."""
    if not file.is_file():
        return False
    if is_own_table(file):
        return True
    with suppress(OSError), file.open("rb") as stream:
        return _OWN_MARK in stream.read(1000)
    return False


def _is_record(file: Path) -> bool:
    """Return whether a file is the json of an image, which begins as `Writer` writes it."""
    with suppress(OSError), file.open("rb") as stream:
        return b'"request": "' in stream.read(100)
    return False


def read_record(file: Path) -> dict[str, Any]:
    """Return the json of an image; empty if there is none, or it cannot be read."""
    try:
        found = read_json(file)
    except SimMATError:
        return {}
    if isinstance(found, dict):
        return found
    return {}


def written_files(record: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the names of the files that an earlier call wrote for an image or object."""
    names = record.get("written")
    if not isinstance(names, list):
        return frozenset()
    # a json file of another program must not make us replace other files
    own = (f"{name}.", f"{name}_")
    files = [file for file in names if isinstance(file, str) and file.startswith(own)]
    return frozenset(file for file in files if not set(file) & set("/\\\0"))
