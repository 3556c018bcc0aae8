"""Record the golden outputs anew, and print what changed: python tests/golden/record.py

Run it on a commit whose outputs are right, where `tests/test_golden.py` says that another kind of machine recorded
them: changes after it are then seen to the bit. And where a change of outputs is meant.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
for name in ("SIMMAT_PLUGINS", "SIMMAT_STRICT_PLUGINS", "SIMMAT_DEBUG"):
    os.environ.pop(name, None)
sys.path.insert(0, str(Path(__file__).parents[1]))

from golden import commands  # noqa: E402, F401  (adds the cases)
from golden.compare import differences, kernel, read_golden, write_golden  # noqa: E402
from golden.workshop import CASES, Workshop  # noqa: E402


def main() -> None:
    """Run every case, print what differs from what was recorded, and record it."""
    before = read_golden()
    print(f"recorded on: {before.kernel}\nhere:        {kernel()}")
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder).resolve())
        found = {name: shop.outputs(name) for name in CASES}
    for name in sorted(found.keys() | before.cases.keys()):
        for difference in differences(
            before.cases.get(name, {}), found.get(name, {}), exact=True
        ):
            print(f"{name}: {difference}")
    write_golden(found)


if __name__ == "__main__":
    main()
