"""The command line itself: quick, and with one clear message for whatever goes wrong."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click
import pytest
from installed import need_plugins
from PIL import Image
from pydantic import Field

from simmat import training
from simmat.cli import run
from simmat.errors import DataError
from simmat.io.limits import LIMIT_VARIABLE
from simmat.plugin_specs import FoundationSpec, WeightFile
from simmat.plugins.registry import PluginReport, Registry
from simmat.sensors.adapter import ModalityAdapter, PathsBySource, Source
from simmat.sensors.options import ModalityOptions
from simmat.types import Channel, SensorImage

REPORT_TORCH = """
import sys
sys.argv = ["simmat", *ARGS]
from simmat.cli import run
code = run()
print("torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


def simmat_process(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh interpreter; the last line of standard error says whether torch was imported."""
    code = REPORT_TORCH.replace("ARGS", repr(list(args)))
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


Failing = Callable[[BaseException], int]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """A command `train` that raises what it is given."""

    def _failing(error: BaseException) -> int:
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setattr(
            "simmat.cli.import_module",
            lambda name: type("Module", (), {"command": command}),
        )
        return run(["train"])

    return _failing


@pytest.mark.parametrize(
    "args",
    ["--help", "--version", "modalities list", "foundations list", "train --help"],
)
def test_commands_that_only_list_import_no_torch(args: str) -> None:
    """torch takes seconds to import; help and lists must answer at once."""
    done = simmat_process(*args.split())
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False"


@pytest.mark.slow
def test_a_prediction_imports_no_library_that_it_does_without(tmp_path: Path) -> None:
    """Each takes longer to import than a small image to segment."""
    need_plugins("lite")
    image = tmp_path / "gray.png"
    Image.new("L", (32, 32)).save(image)
    command = [
        "predict",
        "--foundation",
        "lite",
        "--modality",
        "gray",
        str(image),
        "--point",
        "5,5",
        "--out",
        "out",
    ]
    code = f"import sys; from simmat.cli import run; code = run({command}); print(*sys.modules); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split())
    assert not imported & {
        "scipy",
        "skimage",
        "matplotlib",
        "jinja2",
        "pycocotools",
        "torchvision",
        "timm",
        "torch._dynamo",
    }


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_does_not_stop_the_work(closed: str) -> None:
    """Services and schedulers start programs so."""
    command = f"'{sys.executable}' -m simmat modalities list {closed}"
    assert (
        subprocess.run(
            ["sh", "-c", command], timeout=60, check=False, stdin=subprocess.DEVNULL
        ).returncode
        == 0
    )


def test_bad_input_is_one_message_without_a_traceback(
    failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user reads what to do, not where our code stood."""
    assert failing(DataError("a.png: is no picture")) == 2
    assert capsys.readouterr().err == "error: a.png: is no picture\n"


def test_a_bug_is_reported_as_one_with_the_way_to_its_traceback(
    failing: Failing,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user should not search for a mistake of theirs, and a report needs the traceback."""
    assert failing(ZeroDivisionError("x")) == 1
    said = capsys.readouterr().err
    assert re.match("error: .*SimMAT.*ZeroDivisionError: x\n", said)
    assert "SIMMAT_DEBUG=1" in said
    assert "Traceback" not in said
    monkeypatch.setenv("SIMMAT_DEBUG", "1")
    assert failing(ZeroDivisionError("x")) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("remote", [False, True])
def test_an_error_in_a_plugins_code_names_the_plugin(
    remote: bool,
    failing: Failing,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Its author can mend it; we cannot. Workers of torch send the traceback as text."""
    (tmp_path / "kit_faulty.py").write_text(
        "import json\ndef fail():\n    json.loads('{')\n"
    )
    info = tmp_path / "simmat_plugin_faulty-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: simmat-plugin-faulty\nVersion: 1.2\n"
    )
    (info / "entry_points.txt").write_text("[simmat]\nfaulty = kit_faulty\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="Expecting") as raised:
        importlib.import_module("kit_faulty").fail()
    error: BaseException = raised.value
    if remote:
        error = ValueError(f"Original {''.join(traceback.format_exception(error))}")
    assert failing(error) == 2
    said = capsys.readouterr().err
    assert re.match(
        r"error: the plugin simmat-plugin-faulty 1\.2 failed; .*JSONDecodeError: Expecting",
        said,
    )
    assert "Traceback" not in said


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_ends_with_130(
    error: BaseException, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    """What shells expect of a program that was interrupted."""
    assert failing(error) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_a_full_disk_is_not_reported_as_a_bug(
    failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    """Libraries write too, and do not raise our errors."""
    assert (
        failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/plot.png")) == 2
    )
    assert capsys.readouterr().err.startswith(
        "error: cannot write /run/plot.png: No space left on device"
    )


@pytest.mark.parametrize(
    "error", [MemoryError(), type("OutOfMemoryError", (RuntimeError,), {})("CUDA")]
)
def test_lack_of_memory_says_what_to_make_smaller(
    error: Exception, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    """The most frequent failure of all on a graphics card."""
    assert failing(error) == 2
    assert "--batch-size" in capsys.readouterr().err


BUFFERED = """
import click, simmat.cli

@click.command()
def command():
    print("a line that stays in the buffer until the end")

simmat.cli.import_module = lambda name: type("Module", (), {"command": command})
simmat.cli.main(["train"])
"""


@pytest.mark.parametrize(
    "command",
    [["-m", "simmat", "modalities", "list", "--json"], ["-c", BUFFERED]],
    ids=["flushed", "buffered"],
)
def test_a_reader_that_leaves_ends_it_quietly(command: list[str]) -> None:
    """`simmat modalities list | head -1` is no error."""
    env = {
        name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
    }
    env["SIMMAT_PLUGINS"] = ""  # a busy machine would warn of a slow plugin
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), said) == (1, "")


def test_lists_are_readable_by_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts and notebooks ask for names."""
    for args in (["modalities", "list"], ["foundations", "list"], ["plugins", "list"]):
        assert run([*args, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)


def test_a_training_that_was_stopped_ends_in_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script must tell an interrupt from a mistake."""

    def stopped(*_: object, resume: bool) -> Path:
        raise training.Interrupted("stopped after step 3 of 9; the state is saved")

    monkeypatch.setattr(training, "started_configs", lambda root: {"": root})
    monkeypatch.setattr(training, "train_configs", stopped)
    assert run(["train", "--resume", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped after step 3 of 9; the state is saved\n"


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1e12"])
def test_a_limit_that_limits_nothing_is_refused(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comparison with NaN is always false: every image would pass, or none."""
    monkeypatch.setenv(LIMIT_VARIABLE, "3")
    assert run(["--max-image-gib", given, "modalities", "list"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.match("error: .*positive number .*got ", captured.err)


def fake_plugins(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setattr("simmat.cli.options.installed", lambda: registry)
    monkeypatch.setattr("simmat.cli.plugins.load_plugins", lambda: registry)


def spec(name: str) -> FoundationSpec:
    return FoundationSpec(
        name, "a model", "m:f", 64, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    )


class _RadarOptions(ModalityOptions):
    scale: Literal["amplitude", "dB"] = Field(
        "amplitude", description="What the numbers are."
    )


class _Radar(ModalityAdapter):
    name = "radar"
    description = "a radar"
    sources = (Source("radar", (".png",)),)
    channels = (Channel("radar", "amplitude", "count"),)
    Options = _RadarOptions

    def load(self, files: PathsBySource) -> SensorImage:
        raise NotImplementedError


@pytest.fixture
def radar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor with an option is all that is installed."""
    fake_plugins(monkeypatch, Registry([], [("modality", _Radar(), "p 1")]))


@pytest.mark.usefixtures("radar")
def test_options_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever's files are in another unit finds here what to say."""
    assert run(["modalities", "list"]) == 0
    assert "scale" in capsys.readouterr().out
    assert run(["modalities", "show", "radar"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "OPTION ALLOWED DEFAULT MEANING scale amplitude or dB amplitude What the numbers are. nodata"
        in shown
    )


@pytest.mark.plugins("lite")
def test_models_are_listed_with_size_and_time_on_this_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever waits for each click must know; a random model has no time."""
    assert run(["foundations", "list", "--time", "--json"]) == 0
    models = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert models["lite"]["parameters"] == 4_492_362
    assert models["lite"]["encode_ms"] > models["lite"]["click_ms"] > 0
    assert "encode_ms" not in models["tiny"]
    assert run(["foundations", "list"]) == 0
    assert "4.5 M" in capsys.readouterr().out


@pytest.mark.plugins
def test_a_model_without_a_weight_file_cannot_be_fetched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Silence would look like success."""
    assert run(["foundations", "fetch", "tiny"]) == 2
    assert "'tiny'" in capsys.readouterr().err


def test_fetched_weights_are_named_by_their_path(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
) -> None:
    """A script goes on with the path; the bar goes to standard error."""
    registry = Registry([], [("foundation model", spec("m"), "x 1")])
    object.__setattr__(
        registry.foundation("m"),
        "weights",
        WeightFile("m.pth", "0" * 64, url="http://localhost/m"),
    )
    fake_plugins(monkeypatch, registry)
    monkeypatch.setattr(
        "simmat.io.weights.fetch",
        lambda file, progress: progress(5, 10) or f"/cache/{file.filename}",
    )
    assert run(["foundations", "fetch", "m"]) == 0
    assert capsys.readouterr().out == "/cache/m.pth\n"


def test_every_plugin_is_listed_with_what_it_gives_or_why_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One screen answers: what is here, what is broken, what was left out."""
    reports = [
        PluginReport(
            "a", "simmat-plugin-a", "1.0", {"foundation model": ("a-base", "a-large")}
        ),
        PluginReport("b", "simmat-plugin-b", "2.0", error="ImportError: no libb.so"),
        PluginReport("c", "simmat-plugin-c", "3.0", {"tuner": ("c",)}),
        PluginReport("d", "simmat-plugin-d", "4.0", off=True),
    ]
    claims = [
        ("foundation model", spec("same"), "simmat-plugin-a 1.0"),
        ("foundation model", spec("same"), "e 5"),
    ]
    fake_plugins(monkeypatch, Registry(reports, claims))  # type: ignore[arg-type]
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["plugins", "list"]) == 0
    said = capsys.readouterr().out
    for part in (
        "a       simmat-plugin-a  1.0      ok      foundation models: a-base, a-large",
        "b       simmat-plugin-b  2.0      failed  ImportError: no libb.so",
        "c       simmat-plugin-c  3.0      ok      tuners: c",
        "d       simmat-plugin-d  4.0      off     left out by SIMMAT_PLUGINS",
        "foundation model 'same' is claimed by simmat-plugin-a 1.0 and e 5: not usable until one is uninstalled",
    ):
        assert part in said
    assert run(["plugins", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [plugin["state"] for plugin in listed["plugins"]] == [
        "ok",
        "failed",
        "ok",
        "off",
    ]
    assert listed["conflicts"][0]["claimed_by"] == ["simmat-plugin-a 1.0", "e 5"]


def test_other_commands_mention_failed_plugins_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sensor that is missing from the list has a reason, and the reason has a place."""
    fake_plugins(
        monkeypatch, Registry([PluginReport("b", "p", "1", error="ImportError: x")], [])
    )
    assert run(["modalities", "list"]) == 0
    assert re.match("warning: .*: b; .*simmat plugins list", capsys.readouterr().err)
