"""The command line: parse, call one function, print.

Nothing heavy is imported here, and a command's module only when that command runs, so that
`simmat --help` answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from simmat import __version__
from simmat.errors import ConfigError, SimMATError, did_you_mean
from simmat.terminal import escape, escaped_streams, say

if TYPE_CHECKING:
    from simmat.plugins.registry import Registry

DEBUG_VARIABLE = "SIMMAT_DEBUG"

COMMANDS = {
    "train": ("simmat.cli.train", "Train a transfer layer and tune a foundation model on a data set."),
    "eval": ("simmat.cli.eval", "Score a bundle on a data set, beside the zero-shot model."),
    "predict": ("simmat.cli.predict", "Turn clicks and boxes on sensor files into masks."),
    "data": ("simmat.cli.data", "Check a data set before training on it, or make one."),
    "modalities": ("simmat.cli.modalities", "List the sensors that can be used, and show one."),
    "foundations": ("simmat.cli.foundations", "List foundation models, and fetch their weights."),
    "plugins": ("simmat.cli.plugins", "List plugins, install them, and start one of your own."),
    "bundle": ("simmat.cli.bundle", "Show what a bundle holds, give it away, or fetch one."),
}
"""Command -> the module whose `command` it is, and its line in the help."""


class Group(click.Group):
    """A group of commands: its own, and those that plugins add below it. It answers a misspelt one with the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted([*super().list_commands(ctx), *_added(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of the group's own, or else a plugin's."""
        return super().get_command(ctx, cmd_name) or _added(ctx).get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is an error that names the plugin that brings it, or the nearest name."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from simmat.plugins.registry import known_package

            if known_package("command", _prefix(ctx) + name):
                _of_plugins().command(_prefix(ctx) + name)  # raises: which plugin to install, or why it failed
            names = self.list_commands(ctx)
            raise click.UsageError(f"no command {name!r}{did_you_mean(name, names)} Commands: {', '.join(names)}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """The top group: it knows the names and one line of each command, and imports one when it is run.

    Commands of plugins are asked for where a name is not one of ours, and for the help.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, the way a user goes; then those of plugins."""
        return [*COMMANDS, *_added(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command and return its `command`, or a plugin's."""
        if cmd_name not in COMMANDS:
            return _added(ctx).get(cmd_name)
        command = import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)  # our own table, not a user's input
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table into the help without importing a command of ours."""
        lines = [(name, line) for name, (_, line) in COMMANDS.items()]
        lines += [(name, escape(command.get_short_help_str(limit=80))) for name, command in _added(ctx).items()]
        with formatter.section("Commands"):
            formatter.write_dl(lines)


def _prefix(ctx: click.Context) -> str:
    """Return the names of the groups that lead to this one, each with a space behind; "" for the top group."""
    return f"{_prefix(ctx.parent)}{ctx.info_name} " if ctx.parent is not None else ""


def _added(ctx: click.Context) -> dict[str, click.Command]:
    """Return the commands that plugins add to this group, by their last word."""
    registry, prefix = _of_plugins(), _prefix(ctx)
    names = [name.removeprefix(prefix) for name in registry.command_names if name.startswith(prefix)]
    return {name: registry.command(prefix + name) for name in names if " " not in name}


def _of_plugins() -> Registry:
    """Load the plugins; one that fails is told by the commands that need it, and by `simmat plugins list`."""
    from simmat.plugins.loader import load_plugins

    return load_plugins()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="simmat")
@click.option(
    "--max-image-gib",
    type=float,
    metavar="NUMBER",
    help="Largest size of one decoded image, in GiB; images are float32. Sets SIMMAT_MAX_IMAGE_GIB.  [default: 2]",
)
@click.pass_context
def group(ctx: click.Context, /, max_image_gib: float | None) -> None:
    """Bring any image sensor to a vision foundation model."""
    if max_image_gib is not None:
        _set_image_limit(ctx, max_image_gib)


def _set_image_limit(ctx: click.Context, gib: float) -> None:
    """Set the limit on decoded images for this command and the processes it starts.

    Raises:
        ConfigError: it is not a positive number.
    """
    from simmat.io.images.read import LIMIT_VARIABLE, decoded_limit

    before = os.environ.get(LIMIT_VARIABLE)
    ctx.call_on_close(lambda: _restore(LIMIT_VARIABLE, before))
    os.environ[LIMIT_VARIABLE] = repr(gib)
    try:
        decoded_limit()
    except ConfigError:
        raise ConfigError(f"--max-image-gib takes a positive number of GiB such as 8, got {gib:g}") from None


def _restore(variable: str, before: str | None) -> None:
    if before is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = before


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command and leave with its code: 0 done, 1 our bug, 2 a mistake one can mend, 130 interrupted."""
    _mend_streams()
    codes: list[int] = []
    atexit.register(_leave_process_group, codes)  # as the first it is called as the last
    codes.append(run(args))
    sys.exit(codes[0])


def _mend_streams() -> None:
    """Let work go on where its messages cannot: a stream that is closed, or whose encoding lacks a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_process_group(codes: Sequence[int]) -> None:
    """End a process of the launcher's group with the code, past what Python does after its exit handlers.

    The group's threads, still there while Python ends, would abort it. To destroy the group may never return: in torch
    2.4 gloo's destructor holds the GIL and waits for a thread that waits for the GIL.
    """
    distributed = sys.modules.get("torch.distributed")  # only a command that joins one imports torch
    if codes and distributed is not None and distributed.is_available() and distributed.is_initialized():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # closed by their reader: there is nobody to tell
                stream.flush()
        os._exit(codes[0])


@escaped_streams()
def run(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; whatever goes wrong becomes one message on standard error."""
    try:
        code = group.main(args=None if args is None else list(args), prog_name="simmat", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        return _reader_left()
    except (KeyboardInterrupt, click.Abort):
        say("interrupted", err=True)
        return 130
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
            traceback.print_exc()
        message, code = _explain(error)
        say(f"error: {message}", err=True)
        return code


def _explain(error: Exception) -> tuple[str, int]:
    """Return what to tell the user of an error, and the exit code."""
    if isinstance(error, SimMATError):
        return str(error), 2
    if isinstance(error, click.ClickException):
        return _usage(error), 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        from simmat.io.files import output_error

        return str(output_error(error, Path(os.fsdecode(error.filename2 or error.filename or "the output")))), 2
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP):
        return f"cannot use {error.filename}: {error.strerror}; check the path and who may read it", 2
    if _is_lack_of_memory(error):
        what = "--image-size (--size to simulate), --batch-size or --prompts-per-image"
        return f"out of memory: use a smaller {what} ({error})", 2
    return (
        f"this is a fault in SimMAT, not yours: {type(error).__name__}: {error}\n"
        f"Set {DEBUG_VARIABLE}=1 and run it again to see where it happened.",
        1,
    )


def _is_lack_of_memory(error: Exception) -> bool:
    # torch has a class for a full GPU alone; on the CPU it raises a plain RuntimeError.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _usage(error: click.ClickException) -> str:
    message = error.format_message()
    message = message[:1].lower() + message[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message}\nSee {context.command_path} --help" if context is not None else message


def _reader_left() -> int:
    """Close quietly where the reader of our output has gone, as `| head` does."""
    # Python flushes standard output once more at exit; there is nobody to read that either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
