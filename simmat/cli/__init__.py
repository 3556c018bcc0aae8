"""The command line: parse, call one function, print.

The commands of this package are named in `simmat.plugins.hooks.OWN_COMMANDS`; all others are plugins.
Heavy modules are not imported here, and the module of a command only when it runs: `simmat --help` must be fast.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from simmat.errors import DEBUG_VARIABLE, SimMATError, did_you_mean, wants_traceback
from simmat.terminal import echo, escape, escaped_streams
from simmat.version import __version__

__all__ = ["Group", "ended_by_sigterm", "group", "main", "run"]


class Group(click.Group):
    """A group of SimMAT's and plugins' commands; the error for an unknown command names the nearest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help where no command is given; click's own answer depends on its version."""
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted([*super().list_commands(ctx), *_plugin_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of SimMAT, or else of a plugin."""
        return super().get_command(ctx, cmd_name) or _plugin_commands(ctx).get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; the error for an unknown one names the plugin to install or the nearest command."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from simmat.plugins.loader import installed

            names = self.list_commands(ctx)
            prefix = _prefix(ctx)
            hint = installed().hint(
                "command", prefix + name, [prefix + known for known in names]
            )
            raise click.UsageError(
                f"no command {name!r}{did_you_mean(name, names)} Commands: {', '.join(names) or 'none'}. {hint}".rstrip(
                    ". "
                ),
                ctx,
            )
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """The top group, which imports a command of `OWN_COMMANDS` only when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands of `OWN_COMMANDS` in its order, then those of plugins."""
        return [*_own_commands(), *_plugin_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command of SimMAT, or else return that of a plugin."""
        if cmd_name not in _own_commands():
            return _plugin_commands(ctx).get(cmd_name)
        line, parts = _own_commands()[cmd_name]
        if parts == ():  # a group of plugins' commands alone
            return Group(cmd_name, help=line)
        command: click.Command = import_module(f"simmat.cli.{cmd_name}").command
        command.name, command.help = cmd_name, command.help or line
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the help's list of commands."""
        lines = [(name, line) for name, (line, _) in _own_commands().items()]
        plugins = _plugin_commands(ctx).items()
        lines += [
            (name, escape(command.get_short_help_str(limit=80)))
            for name, command in plugins
        ]
        with formatter.section("Commands"):
            formatter.write_dl(lines)


def _own_commands() -> Mapping[str, tuple[str, tuple[str, ...] | None]]:
    # imports what `simmat --version` does without
    from simmat.plugins.hooks import OWN_COMMANDS

    return OWN_COMMANDS


def _prefix(ctx: click.Context) -> str:
    """Return the names of the groups above a command, each followed by a space."""
    if ctx.parent is not None:
        return f"{_prefix(ctx.parent)}{ctx.info_name} "
    return ""


def _plugin_commands(ctx: click.Context) -> dict[str, click.Command]:
    """Return the commands that plugins add to a group: last word of the name -> command."""
    from simmat.plugins.loader import installed

    found = {command.name: command for command in installed().all("command")}
    prefix = _prefix(ctx)
    names = [name.removeprefix(prefix) for name in found if name.startswith(prefix)]
    return {name: found[prefix + name] for name in names if " " not in name}


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="simmat")
@click.option(
    "--max-image-gib",
    type=float,
    metavar="NUMBER",
    help="Largest size of one decoded image, in GiB; images are float32. Sets SIMMAT_MAX_IMAGE_GIB.  [default: 2]",
)
def group(max_image_gib: float | None) -> None:
    """Bring any image sensor to a vision foundation model."""
    if max_image_gib is not None:
        from simmat.io.limits import LIMIT_VARIABLE, decoded_limit

        # the processes that this one starts read it, too
        os.environ[LIMIT_VARIABLE] = repr(max_image_gib)
        decoded_limit()  # raises ConfigError


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 success, 1 a bug in SimMAT, 2 a mistake of the user or a plugin, 130 interrupted."""
    _repair_streams()
    codes: list[int] = []
    atexit.register(_leave_process_group, codes)  # registered first, it is called last
    codes.append(run(args))
    sys.exit(codes[0])


def _repair_streams() -> None:
    """Replace closed standard streams, and make the others escape characters that they cannot encode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave_process_group(codes: Sequence[int]) -> None:
    """Exit at once if the process is in a torch process group.

    The group's threads would abort Python's own shutdown. Destroying the group may hang: in torch 2.4 gloo's
    destructor holds the GIL and waits for a thread that waits for the GIL.
    """
    # imported by a command that joins a group
    distributed = sys.modules.get("torch.distributed")
    if (
        codes
        and distributed is not None
        and distributed.is_available()
        and distributed.is_initialized()
    ):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the reader has closed it
                stream.flush()
        os._exit(codes[0])


@escaped_streams()
def run(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; an error becomes one message on standard error."""
    try:
        code = group.main(
            args=None if args is None else list(args),
            prog_name="simmat",
            standalone_mode=False,
        )
        sys.stdout.flush()
        if isinstance(code, int):
            return code
        return 0
    except BrokenPipeError:
        # The reader of the output is gone, as with `| head`; Python's flush at exit must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, click.Abort):
        echo("interrupted", err=True)
        return 130
    except Exception as error:
        if wants_traceback():
            traceback.print_exc()
        message, code = _explain(error)
        echo(f"error: {_with_short_words(message)}", err=True)
        return code


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block like Ctrl-C, so that no temporary file is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _with_short_words(message: str) -> str:
    """Return a message in which a word of more than 1000 characters, such as a number, is cut."""
    return re.sub(r"(\S{60})\S{940,}", r"\1…", message)


def _explain(error: Exception) -> tuple[str, int]:
    """Return the message for the user, and the exit code."""
    if isinstance(error, SimMATError):
        return str(error), 2
    if isinstance(error, click.ClickException):
        return _usage(error), 2
    if isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
    ):
        from simmat.io.files import output_error

        return str(
            output_error(
                error,
                Path(os.fsdecode(error.filename2 or error.filename or "the output")),
            )
        ), 2
    if isinstance(error, OSError) and error.errno in (
        errno.EACCES,
        errno.EPERM,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    ):
        return (
            f"cannot use {error.filename}: {error.strerror}; check the path and its permissions",
            2,
        )
    # torch has an out-of-memory class for GPUs only; on the CPU it raises RuntimeError.
    full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if full or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    ):
        what = (
            "--image-size (data simulate: --size), --batch-size or --prompts-per-image"
        )
        return f"out of memory: use a smaller {what} ({error})", 2
    again = f"Set {DEBUG_VARIABLE}=1 and run the command again for a traceback."
    # Errors from other processes carry their traceback as text; the last line names the exception.
    if _REMOTE in str(error):
        what = str(error).strip().rpartition("\n")[2]
    else:
        what = f"{type(error).__name__}: {error}"
    plugin = _plugin_at_fault(error)
    if plugin:
        return (
            f"the plugin {plugin} failed; please tell its author: {what}\n{again}",
            2,
        )
    return f"this is a bug in SimMAT, not your mistake: {what}\n{again}", 1


_REMOTE = "Original Traceback (most recent call last)"
"""What torch writes into an error that it raises again from a worker."""


def _plugin_at_fault(error: Exception) -> str:
    """Return package and version of the plugin whose code raised an error, itself or by a library; "" if none did."""
    from importlib.metadata import entry_points

    from simmat.plugins.hooks import PROJECT
    from simmat.plugins.loader import describe_entry

    owners = {}
    for entry in entry_points(group=PROJECT):
        owners[re.split("[.:]", entry.value)[0]] = describe_entry(entry).owner
    files = [
        frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    files += re.findall(
        r'^ *File "([^"]+)", line', f"{error.__cause__ or ''}\n{error}", re.MULTILINE
    )
    for file in map(Path, reversed(files)):  # from where it was raised outwards
        if file.is_relative_to(Path(__file__).parents[1]):
            return ""
        for part in file.with_suffix("").parts:
            if part in owners:
                return owners[part]
    return ""


def _usage(error: click.ClickException) -> str:
    message = error.format_message()
    message = message[:1].lower() + message[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        return f"{message}\nSee {context.command_path} --help"
    return message
