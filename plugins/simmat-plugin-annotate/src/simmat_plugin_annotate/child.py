"""Run `simmat` as a child process of the server that ends with the server, even if that is killed."""

from __future__ import annotations

import os
import runpy
import signal
import threading
import time
from contextlib import suppress

import psutil

_GRACE_S = 8.0
"""Seconds that the command may take to end after the request."""
_NICE = 5
"""Lower priority of the command, so that clicks in the page do not wait for a training."""


def main() -> None:
    """Run the command line; it and its children end when stdin closes, a pipe that the server keeps open."""
    if hasattr(os, "nice"):  # not on Windows
        # before torch starts its threads, which have that of the thread that starts them
        os.nice(_NICE)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("simmat", run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    # not os.kill, which on Windows ends the process at once
    signal.raise_signal(signal.SIGTERM)
    time.sleep(_GRACE_S)
    for started in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            started.kill()
    os._exit(1)


if __name__ == "__main__":
    main()
