"""What is made, refused and removed before the first job of a bench."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from bench_set import TINY, bench_of, cells_named, fill
from runs import config, gray_set, registry
from simmat_plugin_bench.cells import Cell, write_cell_settings
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.run import check_inputs, lock_folder, ready_to_run

from simmat import training
from simmat.data.dataset import open_dataset
from simmat.data.index import digest_dataset
from simmat.errors import ConfigError, OutputError
from simmat.io.files import atomic_write_json

SET = '[[data]]\nname = "a"\nmodality = "gray"\ndata = "set"\n'
OTHER_SET = '[[data]]\nname = "b"\nmodality = "gray"\ndata = "gone"\n'
MADE = '[[data]]\nname = "made"\nmodality = "gray"\nsimulate = { count = 3, size = [48, 40] }\n'
ARM = '[[arm]]\nname = "x"\nfrom_scratch = true\n'


def ready(
    bench: Bench,
    cells: tuple[Cell, ...] | list[Cell] | None = None,
    *,
    rerun: bool = False,
) -> list[str]:
    """What was said."""
    said: list[str] = []
    ready_to_run(
        bench,
        bench.cells if cells is None else cells,
        registry(),
        rerun_changed=rerun,
        echo=said.append,
    )
    return said


def test_results_of_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    """Old figures under new settings would be a lie nobody sees."""
    gray_set(tmp_path / "set")
    for cell in bench_of(tmp_path, TINY + SET + ARM).cells:
        fill(cell, val=0.5, test=0.5)
    changed = bench_of(tmp_path, TINY.replace("steps = 2", "steps = 3") + SET + ARM)
    assert changed.cells[0].result() is None
    with pytest.raises(ConfigError, match=r"a/tiny/x/seed-0: steps = 3, was 2"):
        ready(changed)
    said = ready(changed, rerun=True)
    assert [cell.state() for cell in changed.cells] == ["open"]
    assert "steps = 3, was 2" in said[0]


@pytest.mark.parametrize("failed", [False, True], ids=["tested", "test failed"])
def test_results_on_other_data_are_refused(tmp_path: Path, *, failed: bool) -> None:
    """The folder's name says nothing about what lies in it; a test on other data would be a score of neither."""
    gray_set(tmp_path / "set")
    bench = bench_of(tmp_path, TINY + SET + ARM)
    cell = bench.cells[0]
    data = open_dataset(tmp_path / "set", registry().modality("gray"))
    trained_on = {
        "path": "elsewhere",
        "fingerprint": digest_dataset(data).fingerprint,
    }
    if failed:
        fill(cell, val=0.5, data=trained_on)
        failure = {"format": 1, "log": "a damaged test image"}
        atomic_write_json(cell.folder.failure, failure)
    else:
        fill(cell, val=0.5, test=0.5, data=trained_on)
    assert cell.state() == ("failed" if failed else "tested")
    assert ready(bench) == []
    image = tmp_path / "set" / "images" / "s0.png"
    image.write_bytes(bytes([*image.read_bytes()[:-1], 0]))
    with pytest.raises(ConfigError, match=r"data .*run"):
        ready(bench)


@pytest.mark.slow
def test_a_started_cell_of_other_data_can_be_started_again(tmp_path: Path) -> None:
    """Its run refuses to go on; without this nothing but a hand could remove it."""
    gray_set(tmp_path / "set")
    bench = bench_of(tmp_path, TINY + SET + ARM)
    cell = bench.cells[0]
    write_cell_settings(cell)
    training.train(config(tmp_path / "set", cell.folder.run, steps=1), registry())
    assert (cell.state(), ready(bench)) == ("begun", [])
    shutil.copy(tmp_path / "set/masks/s1.png", tmp_path / "set/masks/s0.png")
    with pytest.raises(ConfigError, match=r"data .*run"):
        ready(bench)
    (removed,) = ready(bench, rerun=True)
    assert "its data" in removed
    assert "masks/s0.png" in removed
    assert cell.state() == "open"


def test_a_set_without_a_test_split_is_found_before_the_first_process(
    tmp_path: Path,
) -> None:
    """Every cell would train and fail at the end, and test images added then make it another set."""
    gray_set(tmp_path / "set")
    (tmp_path / "set/card.toml").write_text(
        'regions = "instances"\nmin_region = 5000\n', encoding="utf-8"
    )
    bench = bench_of(tmp_path, TINY + SET + ARM)
    with pytest.raises(ConfigError, match=r"data 'a': .* 5000 px"):
        check_inputs(bench, bench.cells, registry("sam"))
    (tmp_path / "set/card.toml").write_text('regions = "instances"\n', encoding="utf-8")
    (tmp_path / "set/manifest.csv").write_text(
        "id,split,image,mask\na,train,images/s0.png,masks/s0.png\nb,val,images/s1.png,masks/s1.png\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=r"data 'a': .*test"):
        check_inputs(bench, bench.cells, registry("sam"))


def test_what_is_not_to_be_run_stays_as_it_is(tmp_path: Path) -> None:
    """`--only` a part, and hours of the other part are neither removed nor in need of their data."""
    gray_set(tmp_path / "set")
    for cell in bench_of(tmp_path, TINY + SET + OTHER_SET + ARM).cells:
        fill(cell, val=0.5, test=0.5)
    changed = bench_of(
        tmp_path, TINY.replace("steps = 2", "steps = 3") + SET + OTHER_SET + ARM
    )
    said = ready(changed, cells_named(changed, "a/"), rerun=True)
    assert len(said) == 1
    assert [(cell.dataset, cell.state()) for cell in changed.cells] == [
        ("a", "open"),
        ("b", "changed"),
    ]


def test_simulated_data_is_made_as_the_bench_says_now(tmp_path: Path) -> None:
    """Results of three samples must not stand under a bench of four."""
    bench = bench_of(tmp_path, TINY + MADE + ARM)
    assert "simulated 3 samples of gray" in ready(bench)[0]
    images = tmp_path / "out/data/made/images"
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    assert ready(bench) == []
    more = bench_of(tmp_path, TINY + MADE.replace("count = 3", "count = 4") + ARM)
    assert "simulated 4 samples of gray" in ready(more)[0]
    assert len(list(images.iterdir())) == 4
    ready(bench)
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before
    (tmp_path / "out/data/made.json").write_text(json.dumps({}))
    assert "simulated 3" in ready(bench)[0], "it is not known how it was made"


def test_results_on_other_simulated_data_are_refused_before_it_is_replaced(
    tmp_path: Path,
) -> None:
    """Who put the wrong number into the TOML gets both back by putting it right."""
    bench = bench_of(tmp_path, TINY + MADE + ARM)
    ready(bench)
    fill(bench.cells[0], val=0.5, test=0.5)
    with pytest.raises(ConfigError, match="simulate = "):
        ready(bench_of(tmp_path, TINY + MADE.replace("count = 3", "count = 4") + ARM))
    assert len(list((tmp_path / "out/data/made/images").iterdir())) == 3


def test_two_benches_do_not_share_a_folder(tmp_path: Path) -> None:
    """Both would train the same cells over each other."""
    bench = bench_of(tmp_path, TINY + SET + ARM)
    with (
        lock_folder(bench),
        pytest.raises(OutputError, match="another bench"),
        lock_folder(bench),
    ):
        pass


def test_results_stay_where_a_checkpoint_is_not_here_any_more(tmp_path: Path) -> None:
    """A report on a laptop, without the weights, is of the results that were copied there."""
    (tmp_path / "sam.pth").write_bytes(b"weights")
    model = TINY.replace("tiny", "sam_vit_b")
    toml = (
        'checkpoints = { sam_vit_b = "sam.pth" }\n'
        + model
        + SET
        + '[[arm]]\nname = "x"\n'
    )
    for cell in bench_of(tmp_path, toml).cells:
        fill(cell, val=0.5, test=0.5)
    (tmp_path / "sam.pth").unlink()
    assert {cell.state() for cell in bench_of(tmp_path, toml).cells} == {"tested"}
