"""Write what was found: the files of each image when it is added, and those of all images at the end.

The json of an image says what was asked, so that a later call skips the image, and which files belong to it, so that a
later call may replace them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.errors import ConfigError, SimMATError
from simmat.inference.coco import object_records
from simmat.inference.formats import write_for_call, write_result
from simmat.inference.outcome import ImageOutcome
from simmat.inference.request import RECORD_FORMAT, Request, prompt_values
from simmat.inference.result import PromptResult, Result, class_shares, summarize
from simmat.io.files import atomic_write_json, staged_files
from simmat.io.reading import read_json, shown_url
from simmat.plugin_specs import ResultFormat
from simmat.types import short_names

if TYPE_CHECKING:
    from simmat.inference.find import Found
    from simmat.inference.images import ImageTask
    from simmat.predictor import Predictor

_OWN_MARK = b"simmat predict"
"""What a file for all images holds in its first 1000 bytes, so that a later call may replace it."""


@dataclass
class Writer:
    """Writes the results of a call to a folder.

    Attributes:
        out: the folder.
        request: what is asked of each image.
        predictor: the model.
    """

    out: Path
    request: Request
    predictor: Predictor
    _records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of an image -> its json, where a file for all images needs it."""

    def check(self, tasks: Sequence[ImageTask]) -> None:
        """Raise ConfigError if files would have the same name, or would replace those of another program."""
        for_call = [one.endings[0] for one in self._formats_for_call()]
        images = [task.name for task in tasks]
        outputs = [name for task in tasks for name in self._outputs(task)]
        _check_unique([*images, *(Path(file).stem for file in for_call)])
        _check_unique(outputs)
        endings = (".json", *self.request.formats.endings(self.request.kinds))
        for name in outputs:
            existing = {f"{name}{ending}" for ending in endings if (self.out / f"{name}{ending}").exists()}
            if existing:
                _check_own(self.out, existing - self._earlier_files([name]))
        for file in for_call:
            if not _is_own_for_call(self.out / file):
                _check_own(self.out, [file])

    def earlier_outcome(self, task: ImageTask) -> ImageOutcome | None:
        """Return the outcome of an earlier call that did the same; None if one of its files is missing."""
        request = self._digest(task)
        for names in dict.fromkeys([self._outputs(task), (task.name,)]):  # prompts of a large image have its name
            files: list[Path] = []
            objects = None
            for name in names:
                record = read_record(self.out / f"{name}.json")
                own = [self.out / file for file in sorted(written_files(record, name))]
                if not own or record.get("request") != request or not all(file.is_file() for file in own):
                    break
                files += own
                objects = _object_count(record)
            else:
                return ImageOutcome(task.name, tuple(files), skipped=True, objects=objects)
        return None

    def add(self, found: Found) -> ImageOutcome:
        """Write the files of an image and the json that names them, all or none.

        Raises:
            ConfigError: a file of another program would be replaced.
            OutputError: a file cannot be written.
        """
        written: list[str] = []
        lines: list[str] = []
        warnings: list[str] = []
        objects = None
        replaced = set(self._earlier_files(found.names))
        with staged_files(self.out, replaced=replaced, tidy=False) as staging:
            for name, results in groupby(found.results, key=lambda result: result.name):
                record = self._head(found)
                files: list[str] = []
                texts: list[str] = []
                for result in results:
                    formats = self.request.formats.for_image(result.kind, found.reader)
                    files += write_result(result, formats, staging)
                    record |= _record(result)
                    if isinstance(result, PromptResult):
                        lines += self._prompt_lines(result)
                        warnings += [result.warning] if result.warning and not warnings else []
                    else:
                        texts.append(summarize(result, record[result.kind]))
                if texts:
                    lines.append(f"{self.out / name}.json  {', '.join(texts)}{found.note}")
                record["written"] = _in_order(files, f"{name}.json", of_prompt=not texts)
                atomic_write_json(staging / f"{name}.json", record)
                written += record["written"]
                objects = _object_count(record)
                if self._formats_for_call():
                    self._records[name] = record
            replaced |= self._earlier_files(found.names)  # another call may have written them meanwhile
            _check_own(self.out, set(written) - replaced)
        warnings += found.warnings
        paths = tuple(self.out / file for file in written)
        return ImageOutcome(found.task.name, paths, tuple(lines), tuple(warnings), objects=objects)

    def finish(self, done: Sequence[tuple[ImageTask, ImageOutcome]]) -> list[str]:
        """Write the files for all images; return a line to print for each.

        Args:
            done: the images that this call or an earlier one has done.
        """
        names: list[str] = []
        for task, outcome in done:
            files = {file.name for file in outcome.written}
            own = dict.fromkeys((task.name, *self._outputs(task)))
            names += [name for name in own if f"{name}.json" in files]
        if not names:
            return []
        class_names = self.predictor.class_names
        return [write_for_call(one, self._records_of(names), class_names, self.out) for one in self._formats_for_call()]

    def _formats_for_call(self) -> tuple[ResultFormat, ...]:
        return self.request.formats.for_call(self.request.kinds)

    def _outputs(self, task: ImageTask) -> tuple[str, ...]:
        """Return what the names of the files of an image begin with."""
        if self.request.kinds == ("prompts",) and task.prompts is not None:
            return tuple(task.prompts)
        return (task.name,)

    def _digest(self, task: ImageTask) -> str:
        return self.request.digest(task, self.predictor.digest)

    def _earlier_files(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names of files that earlier calls wrote under these names."""
        files: set[str] = set()
        for name in names:
            files |= written_files(read_record(self.out / f"{name}.json"), name)
        return frozenset(files)

    def _records_of(self, names: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the json of images; what another process or an earlier call wrote is read."""
        for name in names:
            known = self._records.get(name)
            yield name, read_record(self.out / f"{name}.json") if known is None else known

    def _head(self, found: Found) -> dict[str, Any]:
        """Return the values with which the json of an image begins."""
        predictor = self.predictor
        foundation = None
        with suppress(ValueError):  # of a network alone
            foundation = predictor.spec.foundation
        return {
            "format": RECORD_FORMAT,
            "request": self._digest(found.task),
            "files": {source: shown_url(file) for source, file in found.task.files.items()},
            "missing": sorted(predictor.image_loader.missing_channels(self.request.missing)),
            "bundle": str(predictor.bundle.path) if predictor.bundle else None,
            "foundation": foundation,
            "size_hw": list(found.reader.size_hw),
            **found.about,
        }

    def _prompt_lines(self, result: PromptResult) -> list[str]:
        """Return what to print about the object of a prompt."""
        of_class = ""
        if result.class_id is not None:
            of_class = f"  {result.class_name} ({result.class_probability:.0%})"
        channels = short_names(result.channels)
        file = self.out / result.name
        lines = [f"{file}_mask.png  score {result.score:.3f}  {result.area} px  of {channels}{of_class}"]
        if result.uncertainty is not None:
            lines.append(f"{file}_uncertainty.tif  probability over flips and shifts: mean, std")
        return lines


def _record(result: Result) -> dict[str, Any]:
    """Return what the json of an image says of a result."""
    if isinstance(result, PromptResult):
        return {**result.record(), **prompt_values(result.prompt)}
    values = object_records(result) if result.kind == "objects" else class_shares(result)
    return {result.kind: values}


def _object_count(record: Mapping[str, Any]) -> int | None:
    objects = record.get("objects")
    return len(objects) if isinstance(objects, list) else None


def _in_order(files: Iterable[str], record: str, *, of_prompt: bool) -> list[str]:
    """Return the names of files with that of their json, each once: of a prompt, its pictures come before the json."""
    names = list(dict.fromkeys([*files, record]))
    if of_prompt:
        names.sort(key=lambda name: (not name.endswith(".png"), name != record, name))
    return names


def _check_unique(names: Iterable[str]) -> None:
    several = sorted(name for name, count in Counter(names).items() if count > 1)
    if several:
        raise ConfigError(
            f"several results would be written as {several[:5]}; rename the files, use separate calls, or another "
            "--format"
        )


def _check_own(out: Path, foreign: Iterable[str]) -> None:
    """Raise ConfigError if one of these files, which no call of `simmat predict` wrote, exists."""
    found = [out / name for name in sorted(foreign) if (out / name).exists()]
    if found:
        raise ConfigError(
            f"{found[0]} exists already and was not written by simmat predict; choose another --out, or move it away"
        )


def _is_own_for_call(file: Path) -> bool:
    """Return whether `simmat predict` wrote a file for all images."""
    if not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            return _OWN_MARK in stream.read(1000)
    except OSError:
        return False


def read_record(file: Path) -> dict[str, Any]:
    """Return the json of an image; empty if there is none, or it cannot be read."""
    try:
        found = read_json(file)
    except SimMATError:
        return {}
    return found if isinstance(found, dict) else {}


def written_files(record: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the names of the files that an earlier call wrote for an image or object."""
    names = record.get("written")
    if not isinstance(names, list):
        return frozenset()
    own = (f"{name}.", f"{name}_")  # a json file of another program must not make us replace other files
    files = [file for file in names if isinstance(file, str) and file.startswith(own)]
    return frozenset(file for file in files if not set(file) & set("/\\\0"))
