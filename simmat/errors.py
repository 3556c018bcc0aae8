"""The error tree: every mistake of a user raises one of these, with one clear message.

A message says what is wrong, the value, what is allowed and what to do. The command line prints it and exits with code
2; Python callers catch `SimMATError`.
"""

from __future__ import annotations

import difflib
import os
import re
import traceback
from collections.abc import Iterable, Sequence


class SimMATError(Exception):
    """The base of all errors that SimMAT raises on purpose."""


class SpecError(SimMATError):
    """A channel, modality or foundation model is described wrongly."""


class ConfigError(SimMATError):
    """A setting is unknown, missing or out of range."""


class DataError(SimMATError):
    """A file or data set cannot be read as expected."""


class PluginError(SimMATError):
    """A plugin failed, or two plugins claim one name."""


class UnknownNameError(SimMATError):
    """No installed part has this name."""


class WeightsError(SimMATError):
    """A weight file is missing, damaged, or of another model."""


class DamagedWeightsError(WeightsError):
    """A weight file in the cache or of an installed package has the wrong content."""


class BundleError(SimMATError):
    """A bundle is incomplete, has a newer format, or does not fit the data or model with which it is used."""


class OutputError(SimMATError):
    """A result cannot be written: no permission, disk full, or something is in the way."""


def nearest(name: str, allowed: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the allowed name closest to `name`; None if no similarity reaches `cutoff`, in [0, 1]."""
    matches = difflib.get_close_matches(name, list(allowed), n=1, cutoff=cutoff)
    if matches:
        return matches[0]
    return None


def did_you_mean(
    name: str, allowed: Iterable[str], *, prefix: str = "", otherwise: str = "."
) -> str:
    """Return what follows an unknown name: "; did you mean 'thermal'?", or `otherwise` where none is close."""
    guess = nearest(name, allowed)
    if guess:
        return f"; did you mean {prefix + guess!r}?"
    return otherwise


def unknown_name(
    kind: str, name: str, allowed: Iterable[str], *, hint: str = ""
) -> UnknownNameError:
    """Return the error for an unknown name.

    Args:
        kind: what the name should be, as users call it ("modality", "tuner").
    """
    names = sorted(allowed)
    have = f" Available: {', '.join(names)}." if names else " None is installed."
    return UnknownNameError(
        f"no {kind} {name!r}{did_you_mean(name, names)}{have}"
        + (f" {hint}" if hint else "")
    )


_WORD = re.compile(r"[^\s:,()']+")
MAX_UNGROUPED = 3
"""Up to this many problems that differ only in paths and numbers are listed one by one."""


def equal_problems(problems: Sequence[str]) -> list[str]:
    """Join problems that differ only in paths and numbers: "28 files, first images/a.png: …"."""
    groups: dict[str, list[str]] = {}
    for problem in problems:
        kind = re.sub(r"\d+", "0", _WORD.sub(_without_path, problem))
        groups.setdefault(kind, []).append(problem)
    joined: list[str] = []
    for group in groups.values():
        if len(group) <= MAX_UNGROUPED:
            joined += group
        else:
            joined.append(f"{len(group)} files, first {group[0]}")
    return joined


def _without_path(word: re.Match[str]) -> str:
    """Return a word of a message, or nothing in place of a path; a pattern of paths alone is slow on long words."""
    if "/" in word[0]:
        return ""
    return word[0]


def all_problems(title: str, problems: Sequence[str], *, limit: int = 10) -> str:
    """Join the problems of one check into one message, which lists at most `limit` of them."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  - and {len(problems) - limit} more")
    return "\n".join([title, *lines])


def shortened(text: str, limit: int = 60) -> str:
    """Return a text for a message, cut if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}…"


def few_of(names: Sequence[str], limit: int = 5) -> str:
    """Return at most `limit` names for a message: "a, b and 3 more"."""
    return ", ".join(names[:limit]) + (
        f" and {len(names) - limit} more" if len(names) > limit else ""
    )


DEBUG_VARIABLE = "SIMMAT_DEBUG"
"""Environment variable: with 1, errors print their traceback."""


def wants_traceback() -> bool:
    """Return whether the user has asked for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def what_is_wrong(error: BaseException) -> str:
    """Return what a library's error about a damaged file means: its text, unless that speaks of the code alone."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, AttributeError | IndexError | TypeError) or not str(error):
        return "a part of it is missing, or is not what it should be"
    return str(error)


def with_line(error: BaseException, *, ours: Sequence[str] = ("simmat",)) -> str:
    """Return class and message of an error of a plugin's code, with the plugin's line that it came from.

    That is the innermost line of the first package on the way that is not one of `ours`: "ValueError: no header
    (/home/me/my_sensor.py, line 23)".
    """
    package = line = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if name in ours or package not in ("", name):
            continue
        package = name
        line = f" ({frame.f_code.co_filename}, line {number})"
    return f"{type(error).__name__}: {error}{line}"
