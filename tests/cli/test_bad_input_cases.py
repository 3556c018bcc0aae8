"""Each mistake at the command line is answered by what is wrong and what to do, and leaves nothing behind."""

from __future__ import annotations

import bad_input_data
import bad_input_runs
import pytest
from bad_input_places import Places

CASES = bad_input_data.CASES | bad_input_runs.CASES
QUICK = (
    "manifest: no mask file",
    "image: cut short",
    "out: name too long",
    "predict: bad file beside a good one",
)
"""Run each time, the others with the slow tests."""
BEGUN = ("lr: absurd", "predict: bad file beside a good one")
"""Found after work was done, which stays."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMMAT_PLUGINS", "testing,report,sam")
        return Places(tmp_path_factory.mktemp("cases"))


@pytest.mark.plugins("report", "sam")
@pytest.mark.parametrize(
    "title",
    [pytest.param(t, marks=() if t in QUICK else pytest.mark.slow) for t in CASES],
)
def test_a_mistake_is_named_with_its_remedy(title: str, places: Places) -> None:
    """Whoever reads one message must know the file, the value and what to do, without a traceback."""
    code, said, left = places.answer(CASES[title])
    assert code == 2, said
    assert "Traceback" not in said
    assert said.count("error:") == 1
    assert [part for part in CASES[title].named if part not in said] == [], said
    assert not left or title in BEGUN
