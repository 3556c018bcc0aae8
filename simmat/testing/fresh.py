"""A fresh interpreter without torch, to see what loads there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SECONDS = 120
"""A process that takes longer is taken for dead."""

_BEGIN = """
import json, sys
sys.path[:] = json.loads({path!r})
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError("torch is imported while loading")
sys.meta_path.insert(0, NoTorch())
"""


def python_without_torch(code: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run code in a new Python with this one's search path, in which importing torch raises ImportError."""
    begin = _BEGIN.format(path=json.dumps(sys.path))
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", begin + code], input=data, capture_output=True, check=False, timeout=SECONDS, env=env
    )


def last_line(answer: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line a process wrote to standard error, where Python names the exception."""
    lines = answer.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with code {answer.returncode} and without a word"
