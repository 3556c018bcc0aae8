"""Numbers that make no sense, at every option of every command."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from simmat.cli import group, run

NUMBERS = (
    "0",
    "-1",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "1e-320",
    "1000000000000000000",
    "9" * 5000,
    "",
)
FORMS = {
    "X,Y": ("{0},{0}", "{0},3"),
    "X0,Y0,X1,Y1": ("{0},{0},{0},{0}", "0,0,{0},{0}"),
    "IMAGE@FRAME": ("mask.png@{0}",),
    "KEY=VALUE": ("rank={0}", "nodata={0}", "rank=[{0}]"),
    "local|tcp://HOST:PORT": ("tcp://127.0.0.1:{0}",),
    "LIST": ("{0}", "0-{0}", "{0}um"),
    "W H": ("{0} {0}", "48 {0}"),
    "ADDRESS": ("127.0.0.{0}",),
}
"""How an option of a metavar holds a number; others are the number."""
MORE = {"--device": ("cuda:{0}",), "--mask": ("mask.png@{0}",)}


def commands(
    command: click.Command, context: click.Context, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the words and the command of each that is no group."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        below = click.Context(inner, parent=context, info_name=name)
        yield from commands(inner, below, (*words, name))


def options(command: click.Command) -> Iterator[tuple[str, str]]:
    """Yield each option that takes a value, and the form of that; of one that takes several words with spaces."""
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.is_flag:
            continue
        if isinstance(parameter.type, click.Choice | click.Path):
            continue
        flag = parameter.opts[0]
        forms = FORMS.get(str(parameter.metavar), ("{0}",))
        for form in (*forms, *MORE.get(flag, ())):
            yield flag, form


def test_a_number_that_makes_no_sense_is_one_clear_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No traceback, no page of digits, and nothing that is called a bug of ours; what else is missing is not asked."""
    top = click.Context(group, info_name="simmat")
    tried = 0
    for words, command in commands(group, top):
        for flag, form in options(command):
            for number in NUMBERS:
                values = form.format(number).split(" ")
                code = run([*words, flag, *values])
                said = capsys.readouterr().err
                case = f"{' '.join(words)} {flag} {form} {number[:20]}: {said[:500]}"
                assert code in (0, 2), case
                assert said.count("error: ") == code // 2, case
                assert "Traceback" not in said, case
                assert "a bug in SimMAT" not in said, case
                assert "please tell its author" not in said, case
                assert len(said) < 3000, case
                tried += 1
    assert tried > 500
