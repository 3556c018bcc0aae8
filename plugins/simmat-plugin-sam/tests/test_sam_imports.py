"""What loading a SAM model imports."""

from __future__ import annotations

import subprocess
import sys

LOADING = """
import sys
import simmat
simmat.load(foundation="mobilesam", modality="rgb", device="cpu")
print([name for name in ("torchvision", "torch._dynamo") if name in sys.modules])
import segment_anything
print(segment_anything.SamPredictor.__name__)
"""


def test_loading_imports_neither_torchvision_nor_the_compiler() -> None:
    """Each takes a second; `segment_anything` itself stays whole for whoever imports it."""
    done = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "SamPredictor"]
