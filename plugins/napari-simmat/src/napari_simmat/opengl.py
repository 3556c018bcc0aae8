"""What OpenGL and PyTorch must not both bring into napari's process."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

MAPS = Path("/proc/self/maps")
"""Linux: the files in this process's memory."""


def hide_triton() -> None:
    """Keep PyTorch from importing triton once Mesa, which draws without NVIDIA's driver, has loaded its LLVM.

    Triton has an LLVM of its own, and the second one in a process ends it with a segmentation fault. Only
    `torch.compile` needs triton, and no model here uses it.
    """
    with suppress(OSError):
        if "triton" not in sys.modules and "libLLVM" in MAPS.read_text():
            sys.modules["triton"] = None  # type: ignore[assignment]  # an import of it raises ImportError
