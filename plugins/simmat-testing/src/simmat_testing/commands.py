"""`simmat plugins check` and `simmat plugins new`."""

from __future__ import annotations

import shlex
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli.options import PATH, json_option, load_registry, source_option
from simmat.cli.tables import print_json
from simmat.config import MAX_IMAGE_SIZE
from simmat.errors import ConfigError, wants_traceback
from simmat.terminal import echo
from simmat_testing.scaffold import KINDS, check_name, make_plugin

if TYPE_CHECKING:
    from simmat_testing.checks import CheckResult
    from simmat_testing.find_parts import Subject

_SHOWN = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}


@click.command("plugins check")
@click.argument("name")
@click.option(
    "--full", is_flag=True, help="Also check the values of large foundation models."
)
@source_option("A sample file, for a sensor that cannot simulate one.")
@click.option(
    "--image-size",
    type=click.IntRange(1, MAX_IMAGE_SIZE),
    metavar="PX",
    help="Side of the input at which foundation models are checked.",
)
@json_option
def check(
    name: str,
    full: bool,
    source: Mapping[str, Path],
    image_size: int | None,
    as_json: bool,
) -> int:
    """Check NAME against SimMAT's rules for plugins, and print one line per rule.

    NAME is a modality, a foundation model (also FAMILY/MODEL), another part, or an installed package, to check
    everything in it. The exit code is 1 if a rule is broken.
    """
    for source_name, file in source.items():
        if not file.is_file():
            raise ConfigError(f"--source {source_name}: {file} is not a file")
    registry = load_registry()

    from simmat_testing.find_parts import find_checkable  # imports torch

    count = Counter(dict.fromkeys(_SHOWN, 0))
    subjects = []
    for subject in find_checkable(
        name, registry, full=full, files=source, image_size=image_size
    ):
        results = _run(subject, quiet=as_json)
        count.update(result.status for result in results)
        kind, part, _ = subject
        subjects.append(
            {
                "kind": kind,
                "name": part,
                "checks": [_as_dict(result) for result in results],
            }
        )
    if as_json:
        print_json({"name": name, **count, "subjects": subjects})
    else:
        echo(
            f"\n{count['ok']} ok, {count['failed']} failed, {count['skipped']} skipped"
        )
    return 1 if count["failed"] else 0


def _run(subject: Subject, *, quiet: bool) -> list[CheckResult]:
    """Run the checks of one subject, and print a line after each."""
    kind, name, run_in = subject
    if not quiet:
        echo(f"\n{kind} {name}")
    results: list[CheckResult] = []
    with tempfile.TemporaryDirectory(prefix="simmat-check-") as folder:
        running = run_in(Path(folder))
        while True:
            # the plugin's own output must not mix with the json
            with redirect_stdout(sys.stderr):
                result = next(running, None)
            if result is None:
                return results
            results.append(result)
            if not quiet:
                echo(
                    f"  {_SHOWN[result.status]:<8} {result.check:<34} {result.why}".rstrip()
                )
            if (
                wants_traceback()
                and result.status == "failed"
                and result.error is not None
            ):
                traceback.print_exception(result.error)


def _as_dict(result: CheckResult) -> dict[str, Any]:
    return {
        "check": result.check,
        "status": result.status,
        "rule": result.rule,
        "why": result.why,
        "seconds": round(result.seconds, 3),
    }


@click.command(
    "plugins new", short_help="Create a package for a new sensor, model or other part."
)
@click.argument("name")
@click.option(
    "--kind",
    default="sensor",
    show_default=True,
    type=click.Choice(list(KINDS)),
    help="What it brings: a sensor, foundation model, transfer layer, tuner, result format, loss, metric or command.",
)
@click.option(
    "--path",
    type=PATH,
    default=Path(),
    help="Folder to create it in; by default the current folder.",
)
def new(name: str, kind: str, path: Path) -> None:
    """Create the package simmat-plugin-NAME: a short working example, a README and tests.

    It passes all checks and tests as it is; change it to read the files of your sensor, or to build your network.
    """
    check_name(name, load_registry(), kind)
    plugin = make_plugin(name, path, kind)
    echo(f"created {plugin}:")
    for file in sorted(plugin.rglob("*")):
        if file.is_file():
            echo(f"  {file.relative_to(plugin)}")
    shown = str(plugin) if plugin.is_absolute() else f"./{plugin}"
    folder = shlex.quote(shown)
    echo("Next:")
    echo(f"  pip install --editable {folder}")
    echo(f"  simmat plugins check {plugin.name}")
    echo(f"  pytest {folder}")
