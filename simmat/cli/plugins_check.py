"""`simmat plugins check`: the conformance kit on what is installed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli.common import json_option, load_registry, print_json
from simmat.errors import ConfigError
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.testing import Result
    from simmat.testing.subjects import Subject

_WORDS = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}


@click.command("check")
@click.argument("name")
@click.option("--full", is_flag=True, help="Run the slow checks, too: a spawned worker, large models.")
@click.option(
    "--source", multiple=True, metavar="NAME=FILE", help="A sample file, for a sensor that does not simulate its own."
)
@click.option("--image-size", type=click.IntRange(1), metavar="PX", help="Input side to try foundation models at.")
@json_option
def check(name: str, full: bool, source: Sequence[str], image_size: int | None, as_json: bool) -> int:
    """Check that NAME keeps the contract that SimMAT builds on, one line for each rule.

    NAME is a modality, a foundation model (also FAMILY/MODEL), or an installed package, with which all that it gives
    is checked. Ends with 1 where a rule is broken.
    """
    files = _files(source)
    registry = load_registry()

    from simmat.testing.subjects import find_subjects

    subjects = find_subjects(name, registry, full=full, files=files, image_size=image_size)
    found = [(subject, _run(subject, quiet=as_json)) for subject in subjects]
    count = {status: sum(r.status == status for _, results in found for r in results) for status in _WORDS}
    if as_json:
        print_json({"name": name, **count, "subjects": [_as_dict(subject, results) for subject, results in found]})
    else:
        say(f"\n{count['ok']} ok, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] else 0


def _run(subject: Subject, *, quiet: bool) -> list[Result]:
    """Run the checks of one subject, and print a line as each is done."""
    if not quiet:
        say(f"\n{subject.kind} {subject.name}")
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="simmat-check-") as folder:
        running = subject.run(Path(folder))
        while (result := _next(running)) is not None:
            results.append(result)
            if not quiet:
                say(f"  {_WORDS[result.status]:<8} {result.check:<34} {result.why}".rstrip())
    if subject.note and not quiet:
        say(f"  note     {subject.note}")
    return results


def _next(running: Any) -> Result | None:
    """Take the next result; what a plugin prints meanwhile would spoil the json on standard output."""
    with redirect_stdout(sys.stderr):
        result: Result | None = next(running, None)
    return result


def _files(given: Sequence[str]) -> dict[str, Path]:
    files = {}
    for item in given:
        name, mark, path = item.partition("=")
        if not mark or not name or not path:
            raise ConfigError(f"--source takes NAME=FILE, got {item!r}")
        if name in files:
            raise ConfigError(f"--source {name} is given twice")
        if not Path(path).is_file():
            raise ConfigError(f"--source {name}: {path} is no file")
        files[name] = Path(path)
    return files


def _as_dict(subject: Subject, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "kind": subject.kind,
        "name": subject.name,
        "checks": [
            {"check": r.check, "status": r.status, "rule": r.rule, "why": r.why, "seconds": round(r.seconds, 3)}
            for r in results
        ],
    }
