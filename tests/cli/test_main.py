"""The command line itself: quick, and with one clear message for whatever goes wrong."""

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

import click
import pytest
from installed import need_plugins
from PIL import Image

from simmat import training
from simmat.cli import run
from simmat.errors import DataError
from simmat.io.limits import LIMIT_VARIABLE
from simmat.plugins.hooks import OWN_COMMANDS

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


def test_help_lists_every_command_with_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The table is what a newcomer reads first."""
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    for name in OWN_COMMANDS:
        assert f"\n  {name} " in said


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
