"""The error tree: every mistake a user can make ends in one of these, with one clear message.

A message says what, got what, allowed what and what to do. The command line prints it on one
line and exits with code 2; Python callers catch `SimMATError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class SimMATError(Exception):
    """The base of all errors SimMAT raises on purpose."""


class SpecError(SimMATError):
    """A channel, modality or foundation model is described wrongly."""


class ConfigError(SimMATError):
    """A setting is unknown, missing or out of range."""


class DataError(SimMATError):
    """A file or data set cannot be read as what it should be."""


class PluginError(SimMATError):
    """A plugin failed, or two plugins claim one name."""


class UnknownNameError(SimMATError):
    """A name that nothing installed answers to."""


class WeightsError(SimMATError):
    """A weight file is missing, damaged, or of another model."""


class BundleError(SimMATError):
    """A bundle is incomplete, of a newer format, or does not fit what it is used with."""


class OutputError(SimMATError):
    """A result cannot be written: no permission, disk full, or something is in the way."""


def nearest(name: str, allowed: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the allowed name closest to `name`, or None where none is as close as `cutoff`, in [0, 1]."""
    matches = difflib.get_close_matches(name, list(allowed), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(name: str, allowed: Iterable[str], *, prefix: str = "", otherwise: str = ".") -> str:
    """Return what follows an unknown name: "; did you mean 'thermal'?", or `otherwise` where none is close."""
    guess = nearest(name, allowed)
    return f"; did you mean {prefix + guess!r}?" if guess else otherwise


def unknown_name(kind: str, name: str, allowed: Iterable[str], *, hint: str = "") -> UnknownNameError:
    """Build the error for a name nobody answers to.

    Args:
        kind: what the name should be, in the user's word ("modality", "tuner").
        name: what was asked for.
        allowed: every name that would have worked.
        hint: one more sentence on what to do, without a full stop before it.
    """
    names = sorted(allowed)
    have = f" Available: {', '.join(names)}." if names else " None is installed."
    return UnknownNameError(f"no {kind} {name!r}{did_you_mean(name, names)}{have}" + (f" {hint}" if hint else ""))


def all_problems(title: str, problems: Sequence[str], *, most: int = 10) -> str:
    """Join the problems of one check into one message, at most `most` of them in words."""
    lines = [f"  - {problem}" for problem in problems[:most]]
    if len(problems) > most:
        lines.append(f"  - and {len(problems) - most} more")
    return "\n".join([title, *lines])
