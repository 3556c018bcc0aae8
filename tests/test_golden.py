"""Every documented command writes what it wrote when its outputs were recorded.

On the kind of machine that recorded them (processor, versions of torch, numpy …) files and arrays are the same to the
bit; on others their names, keys, shapes and scores are compared. Where a change of outputs is meant, record them anew:

    python tests/golden/record.py
"""

from __future__ import annotations

import pytest
from golden import commands  # noqa: F401  (adds the cases)
from golden.compare import differences, kernel, read_golden
from golden.workshop import CASES, Workshop, packages_of
from installed import is_installed

GOLDEN = read_golden()
IS_SAME_KERNEL = GOLDEN.kernel == kernel()
SLOW = ("export", "train --resume", "train several sensors")
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in CASES
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """One folder for all commands: each runs once, though others need its outputs."""
    return Workshop(tmp_path_factory.mktemp("golden").resolve())


@pytest.mark.parametrize("name", NAMES)
def test_a_command_writes_what_it_wrote(name: str, shop: Workshop) -> None:
    """A change of the code that should change no result changes none."""
    missing = [
        package for package in sorted(packages_of(name)) if not is_installed(package)
    ]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    expected = GOLDEN.cases.get(name, {})
    said = differences(expected, shop.outputs(name), exact=IS_SAME_KERNEL)
    assert not said, f"{name}\n" + "\n".join(said)


def test_every_recorded_command_is_run() -> None:
    """A case that is left out would hide a change."""
    assert sorted(GOLDEN.cases) == sorted(CASES)
