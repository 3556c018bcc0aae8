"""Settings of every test run, the core's and the plugins'."""

import os

# Set before torch is imported: tests run side by side, and one thread each is faster and repeatable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Pictures are written to files; no test opens a window.
os.environ.setdefault("MPLBACKEND", "Agg")
# A plugin list of the developer's own must not change what is tested.
for name in ("SIMMAT_PLUGINS", "SIMMAT_STRICT_PLUGINS", "SIMMAT_DEBUG"):
    os.environ.pop(name, None)
