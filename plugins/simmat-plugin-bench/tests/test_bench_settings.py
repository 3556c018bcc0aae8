"""The TOML of a bench."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bench_set import TINY, bench_of

from simmat.errors import ConfigError

SET = '[[data]]\nname = "a"\nmodality = "gray"\ndata = "set"\n'
NEAR = SET.replace('"a"', '"{}"')
GRID = '[[grid]]\nmat = ["mat", "linear"]\n'


def message(folder: Path, toml: str) -> str:
    with pytest.raises(ConfigError) as caught:
        bench_of(folder, toml)
    return str(caught.value)


def test_all_problems_come_in_one_message(tmp_path: Path) -> None:
    """Mending one line a run is a waste of a user's morning."""
    said = message(
        tmp_path,
        'titel = "x"\nseeds = [-1]\n[train]\nstep = 3\n[[data]]\nname = "a"\nmodality = "gray"\nregion = "classes"\n'
        '[[data]]\nname = "b"\n[[data]]\nname = "c"\nmodality = "gray"\n'
        '[[grid]]\nmat = []\n[[arm]]\nname = "x/y"\nlr = 0\n',
    )
    for part in (
        "no key 'titel'; did you mean 'title'?",
        "seeds 1 must be greater than or equal to 0, got -1",
        "train: no key 'step'; did you mean 'steps'?",
        "data 1 ('a'): no key 'region'; did you mean 'regions'?",
        "data 3 ('c') needs data, a folder, or simulate",
        "data 2 ('b'): modality is missing",
        "grid 1: mat",
        "arm 1 ('x/y'): name must start with a letter or digit",
        "arm 1 ('x/y'): lr must be greater than 0, got 0",
    ):
        assert part in said


def test_values_of_training_are_checked_where_they_stand(tmp_path: Path) -> None:
    """A wrong value is named with its table, before a data set is read or a process begun."""
    said = message(
        tmp_path,
        '[train]\nimage_size = -1\n[[data]]\nname = "a"\nmodality = "grey"\ndata = "set"\nregions = "things"\n'
        '[[arm]]\nname = "x"\nbox_fraction = 2\n',
    )
    for part in (
        "train: settings: image_size must",
        "data 'a': settings: regions must",
        "data 'a': no modality 'grey'; did you mean 'gray'?",
        "arm 'x': settings: box_fraction must",
        "no foundation model 'lite'",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (SET + SET + GRID, "on 'a' and .*on 'a' would share"),
        (SET, "nothing to train"),
        (SET + GRID + 'on = "b"', "grid 1 .*'b'"),
        (
            SET + GRID + "train_images = 3\ntrain_share = 0.5",
            "train_images and train_share",
        ),
        (SET + GRID + 'tune = "lorra"', "'lorra'.*'lora'"),
        (
            SET + '[[arm]]\nname = "x"\n[[arm]]\nname = "x"\n',
            "arm 'x' on .* and arm 'x' on .*share",
        ),
        (
            NEAR.format("b c") + NEAR.format("b-c") + GRID,
            "'b c' and .*'b-c' .*folder b-c",
        ),
        (
            SET + '[[arm]]\nname = "x"\n[[arm]]\nname = "from scratch"\n',
            "'from scratch'.*reference",
        ),
        (
            SET.replace('"set"', '"~no-such-user/set"') + GRID,
            "~no-such-user.*home folder",
        ),
        (
            SET + GRID + '[checkpoints]\ntiny = "~no-such-user/w.pth"',
            "~no-such-user.*home folder",
        ),
        (SET + GRID + "image_size = 100\n", "multiple of 16"),
        (SET + GRID + "mat_options = { widht = 3 }\n", "'widht'.*'width'"),
        (SET + GRID + "seed = 3\n", "grid 1: .*'seed'.*'seeds'"),
        (SET + GRID + '[quick]\ndata = "b"\n', "quick .*'b'.* a"),
        (
            SET + GRID + '[quick]\narms = "mat + lara"\n',
            r"'mat \+ lara'.*'mat \+ lora'",
        ),
        (SET + GRID + "[quick]\nimage_size = -1\n", "quick: settings: image_size must"),
        (SET + GRID + "options = { steps = 2 }\n", "'options'"),
        (SET + GRID + "[quick]\nstep = 3\n", "quick: .*'step'.*'steps'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, toml: str, said: str
) -> None:
    """A grid runs for hours; a slip in it must show at once."""
    assert re.search(said, message(tmp_path, TINY + toml))


def test_quick_runs_what_its_table_leaves(tmp_path: Path) -> None:
    """A look at a bench of hours in minutes, with every setting that the table does not change as it was."""
    toml = TINY + SET + SET.replace('"a"', '"b"') + GRID + "seeds = [0, 1]\n"
    toml += '[[arm]]\nname = "other"\nval_every = 2\n'
    whole = bench_of(
        tmp_path,
        toml
        + '[quick]\ndata = "b"\narms = ["mat + lora", "other"]\nseeds = 5\nepochs = 3\n',
    )
    assert {cell.dataset for cell in whole.cells} == {"a", "b"}
    assert all(cell.config.epochs is None for cell in whole.cells)
    path = tmp_path / "bench.toml"
    short = bench_of(tmp_path, path.read_text(encoding="utf-8"), quick=True)
    trained = [
        cell
        for cell in short.cells
        if cell.kind == "train" and not cell.config.from_scratch
    ]
    assert [(cell.dataset, cell.arm, cell.seed) for cell in trained] == [
        ("b", "mat + lora", 5),
        ("b", "other", 5),
    ]
    assert [
        (cell.config.epochs, cell.config.val_every, cell.config.image_size)
        for cell in trained
    ] == [
        (3, 1, 64),
        (3, 2, 64),
    ]
    assert short.settings.title == "Bench, quick"


def test_quick_must_leave_something(tmp_path: Path) -> None:
    """A run of no cell would look like one that went well."""
    toml = (
        TINY
        + SET
        + SET.replace('"a"', '"b"')
        + '[[arm]]\nname = "x"\non = "a"\n[quick]\ndata = "b"\n'
    )
    with pytest.raises(ConfigError, match=r"quick .*cell"):
        bench_of(tmp_path, toml, quick=True)


def test_quick_without_its_table_is_refused(tmp_path: Path) -> None:
    """The whole bench in its place would take hours."""
    with pytest.raises(ConfigError, match=r"bench\.toml: .*\[quick\]"):
        bench_of(tmp_path, TINY + SET + GRID, quick=True)
