"""Commands started in processes of their own, which cannot hang a test run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

# On a machine without GPUs, accelerate's launcher for several of them starts gloo processes on the CPU.
# Port 0 lets it find a free one; accelerate before 1.7 gives the processes the 0 itself, and they wait for ever.
TWO_PROCESSES = (
    "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --main_process_port 0"
).split()


def run_python(
    arguments: Sequence[str], *, timeout_s: float = 300, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run this Python with one thread for each process, and without plugins but for those of `env`.

    Args:
        arguments: of Python; `TWO_PROCESSES` first, to start what follows twice.
        timeout_s: after so many seconds it is stopped, with the processes it started.
        env: more variables of its environment.

    Raises:
        AssertionError: it failed or took too long; with all that it wrote to stdout and stderr.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "SIMMAT_PLUGINS": "testing",
        "TOKENIZERS_PARALLELISM": "false",
        **env,
    }
    command = [sys.executable, *arguments]
    # Files, not pipes: the end of a pipe is waited for as long as any grandchild holds it open.
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            command,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
        try:
            ended = f"ended with {process.wait(timeout_s)}"
        except subprocess.TimeoutExpired:
            ended = f"was not done in {timeout_s:g} s"
        finally:
            _stop(process)
        stdout.seek(0)
        stderr.seek(0)
        done = subprocess.CompletedProcess(
            command, process.returncode, stdout.read(), stderr.read()
        )
    assert ended == "ended with 0", (
        f"{' '.join(command)} {ended}\nstdout:\n{done.stdout}\nstderr:\n{done.stderr}"
    )
    return done


def _stop(process: subprocess.Popen[bytes], grace_s: float = 40) -> None:
    """Stop a process, if it still runs, and those of its session."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        if process.poll() is None:
            # The launcher's workers are sessions of their own: it stops them on SIGTERM, by SIGKILL after 30 s.
            process.terminate()
            process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
