"""From the settings of a bench to its arms and cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_set import TINY, bench_of, cells_named

from simmat.cli import run
from simmat.errors import ConfigError

SET = '[[data]]\nname = "a"\nmodality = "gray"\ndata = "set"\nregions = "classes"\n'
OTHER = '[[data]]\nname = "b"\nmodality = "gray"\ndata = "set"\nimage_size = 32\n'


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    """The grid of the paper is layers x tuners x seeds on every data set."""
    bench = bench_of(
        tmp_path,
        "seeds = [0, 1]\n"
        + TINY
        + SET
        + OTHER
        + '[[grid]]\nmat = ["mat", "linear"]\ntune = ["lora", "frozen"]\n',
    )
    trained = [cell for cell in bench.cells if cell.arm != "from scratch"]
    assert len({cell.root for cell in bench.cells}) == len(bench.cells)
    assert {(c.dataset, c.config.mat, c.config.tune, c.seed) for c in trained} == {
        (data, mat, tune, seed)
        for data in "ab"
        for mat in ("mat", "linear")
        for tune in ("lora", "frozen")
        for seed in (0, 1)
    }


def test_settings_go_from_common_to_data_set_to_arm(tmp_path: Path) -> None:
    """What is said nearest to a run counts."""
    bench = bench_of(
        tmp_path,
        TINY
        + SET
        + OTHER
        + '[[arm]]\nname = "x"\n[[arm]]\nname = "y"\nimage_size = 128\n',
    )
    sizes = {(cell.dataset, cell.arm): cell.config.image_size for cell in bench.cells}
    assert [sizes[key] for key in (("a", "x"), ("b", "x"), ("a", "y"), ("b", "y"))] == [
        64,
        32,
        128,
        128,
    ]
    assert cells_named(bench, "a/tiny/x")[0].config.regions == "classes"


def test_from_scratch_stands_beside_every_measure_of_images(tmp_path: Path) -> None:
    """A gain on ten images means nothing beside a reference that saw a hundred."""
    bench = bench_of(tmp_path, TINY + SET + "[[grid]]\ntrain_share = [0.1, 1.0]\n")
    scratch = [arm for arm in bench.arms if arm.from_scratch]
    assert [(arm.name, arm.options.get("train_share")) for arm in scratch] == [
        ("from scratch @ 10%", 0.1),
        ("from scratch", None),
    ]
    assert all(arm.options["tune"] == "full" for arm in scratch)
    assert all(arm.rates == (3e-4, 1e-3) for arm in scratch)


def test_from_scratch_is_not_added_where_it_is_already(tmp_path: Path) -> None:
    """Who spells the reference out has decided how it is trained; one with more steps is another reference."""
    own = '[[arm]]\nname = "random"\nfrom_scratch = true\non = "a"\n'
    longer = '[[arm]]\nname = "longer"\nfrom_scratch = true\nsteps_factor = 4\n'
    both = bench_of(tmp_path, TINY + SET + OTHER + own + longer)
    assert [(arm.name, arm.on) for arm in both.arms] == [
        ("from scratch", ("b",)),
        ("random", ("a",)),
        ("longer", ("a", "b")),
    ]


def test_a_peer_brings_no_references_of_its_own(tmp_path: Path) -> None:
    """It is there to be compared with; its own random start would cost as much again and say nothing."""
    peer = '[[arm]]\nname = "u"\nfoundation = "sam_vit_b"\npeer = true\n'
    bench = bench_of(tmp_path, TINY + SET + peer + '[[grid]]\nmat = "mat"\n')
    assert {(arm.foundation, arm.name) for arm in bench.arms} == {
        ("sam_vit_b", "u"),
        ("tiny", "from scratch"),
        ("tiny", "mat + lora"),
    }


@pytest.mark.parametrize(
    ("name", "foundation"), [("zero-shot", "sam_vit_b"), ("from-scratch", "tiny")]
)
def test_an_arm_with_the_name_of_an_added_reference_is_refused(
    tmp_path: Path, name: str, foundation: str
) -> None:
    """Both would write into one folder, and each would find the other's settings there."""
    arm = f'[[arm]]\nname = "{name}"\nfoundation = "{foundation}"\nsteps_factor = 4\n'
    said = f"arm '{name}' on 'a' would share the folder a/{foundation}/{name}"
    with pytest.raises(ConfigError, match=said):
        bench_of(tmp_path, TINY + SET + arm)


def test_zero_shot_is_one_cell_a_data_set(tmp_path: Path) -> None:
    """It trains nothing, so seeds and rates change nothing."""
    model = TINY.replace("tiny", "sam_vit_b")
    bench = bench_of(
        tmp_path,
        "seeds = [0, 1]\nlr = [1e-3, 1e-4]\n" + model + SET + '[[grid]]\nmat = "mat"\n',
    )
    zero = [cell for cell in bench.cells if cell.kind == "zero-shot"]
    assert [(cell.dataset, cell.config.mat, cell.config.tune) for cell in zero] == [
        ("a", "zeroshot", "frozen")
    ]


def test_steps_and_weights_of_an_arm(tmp_path: Path) -> None:
    """Four times the steps is four times those of the others; random weights take no checkpoint."""
    bench = bench_of(
        tmp_path,
        'checkpoints = { tiny = "w.pth" }\n'
        + TINY
        + SET
        + '[[arm]]\nname = "x"\nsteps_factor = 4\n[[arm]]\nname = "e"\nepochs = 3\nsteps_factor = 2\n',
    )
    assert cells_named(bench, "/x/")[0].config.steps == 8
    assert cells_named(bench, "/x/")[0].config.checkpoint == tmp_path / "w.pth"
    assert cells_named(bench, "/e/")[0].config.epochs == 6
    assert cells_named(bench, "from-scratch")[0].config.checkpoint is None


def test_a_place_decides_nothing_and_a_setting_everything(tmp_path: Path) -> None:
    """A bench that was moved or run with other workers keeps its results; one with other settings does not."""
    common = SET + '[[arm]]\nname = "x"\n'
    first = cells_named(bench_of(tmp_path, TINY + common), "/x/")[0]
    (tmp_path / "sub").mkdir()
    free = "workers = 1\ngradient_checkpointing = true\n"
    moved = cells_named(bench_of(tmp_path / "sub", TINY + free + common), "/x/")[0]
    other = cells_named(
        bench_of(tmp_path, TINY + "weight_decay = 0.1\n" + common), "/x/"
    )[0]
    assert moved.digest() == first.digest() != other.digest()


def test_a_described_sensor_is_what_its_file_says(tmp_path: Path) -> None:
    """Scores of two readings of the files must not stand in one table; where the file lies does not matter."""
    sensor = 'format = 1\nname = "sonar"\ndescription = "echo"\n'
    sensor += '[[source]]\nfiles = "*.png"\n[[channel]]\nname = "echo"\n'
    sensor += 'quantity = "counts"\nunit = "count"\n'
    toml = TINY + SET.replace('"gray"', '"s.toml"') + '[[arm]]\nname = "x"\n'
    digests = []
    for folder, more in (("a", ""), ("b", ""), ("c", "nodata = 0\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.toml").write_text(sensor + more)
        digests.append(
            cells_named(bench_of(tmp_path / folder, toml), "/x/")[0].digest()
        )
    assert digests[0] == digests[1] != digests[2]


def test_rates_that_are_equal_to_six_digits_have_a_folder_each(tmp_path: Path) -> None:
    """The second would find the first one's results, of other settings."""
    bench = bench_of(
        tmp_path,
        "lr = [0.00123456, 0.001234561, 1e-3]\n" + TINY + SET + '[[arm]]\nname = "x"\n',
    )
    names = {cell.root.name for cell in cells_named(bench, "/x/")}
    assert names == {"seed-0_lr-0.00123456", "seed-0_lr-0.001234561", "seed-0_lr-0.001"}


def test_a_pattern_that_names_no_cell_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bench that runs nothing and reports so looks like one that is done."""
    (tmp_path / "bench.toml").write_text(
        TINY + SET + '[[arm]]\nname = "x"\n', encoding="utf-8"
    )
    arguments = [
        "bench",
        str(tmp_path / "bench.toml"),
        "--out",
        str(tmp_path / "out"),
        "--dry-run",
        "--only",
    ]
    assert run([*arguments, "thermal"]) == 2
    assert "--only 'thermal'" in capsys.readouterr().err
    assert run([*arguments, "a/*/x"]) == 0
    assert "1 cells in 1 arms on data sets" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_multiple_of_no_number_of_steps_is_refused(tmp_path: Path) -> None:
    """A training that ends by its validation has no number beforehand."""
    toml = TINY.replace("steps = 2", 'steps = "auto"') + SET
    assert "auto" in toml
    with pytest.raises(ConfigError, match="steps_factor needs a number of steps"):
        bench_of(tmp_path, toml + '[[arm]]\nname = "x"\nsteps_factor = 4\n')


def test_other_weights_are_another_cell(tmp_path: Path) -> None:
    """Else a table would show what a replaced weight file once gave."""
    toml = 'checkpoints = { sam_vit_b = "sam.pth" }\n' + TINY.replace(
        "tiny", "sam_vit_b"
    )
    digests = []
    for folder, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sam.pth").write_bytes(content)
        bench = bench_of(tmp_path / folder, toml + SET + '[[grid]]\nmat = "mat"\n')
        digests.append({cell.name: cell.digest() for cell in bench.cells})
    tuned = next(name for name in digests[0] if "mat+lora" in name)
    scratch = next(name for name in digests[0] if "from-scratch" in name)
    assert digests[0][tuned] == digests[2][tuned] != digests[1][tuned]
    assert digests[0][scratch] == digests[1][scratch]
