"""`simmat annotate` at the terminal: what it opens, and what it refuses before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image
from simmat_plugin_annotate.commands import annotate

from simmat.errors import ConfigError, DataError, SimMATError

pytestmark = pytest.mark.usefixtures("started")


def run(*arguments: str) -> Any:
    return annotate.main([*arguments, "--device", "cpu"], standalone_mode=False)


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_bundle_knows_its_sensor(
    root: Path, bundle: Path, started: list[Any]
) -> None:
    """Looking writes nothing into the folder."""
    before = files(root)
    assert run(str(root), "--bundle", str(bundle)) == 0
    assert started[0].service.model.path is not None
    assert started[0].folder.adapter.name == "gray"
    assert [path for path in files(root) if path.name != "lock"] == before


def test_the_last_better_model_is_used_again(
    root: Path, bundle: Path, started: list[Any]
) -> None:
    """Without a model on the command line the next start continues where the page was."""
    run(str(root), "--bundle", str(bundle))
    tiny_bundle(root / "runs/annotate-001")
    started[0].folder.keep_bundle("runs/annotate-001")
    run(str(root), "--modality", "gray")
    assert started[1].service.model.name == "annotate-001"


def test_the_training_gets_the_sensor_of_the_session(
    root: Path, bundle: Path, started: list[Any]
) -> None:
    """The same foundation model at the same size."""
    run(str(root), "--bundle", str(bundle))
    arguments = started[0].training.arguments()
    assert (
        arguments
        == "--modality gray --device cpu --foundation tiny --image-size 64".split()
    )


REFUSED: list[tuple[str, list[str], type[SimMATError], str]] = [
    ("no sensor", [], ConfigError, "--modality is missing"),
    (
        "a bundle and a model",
        ["--bundle", "BUNDLE", "--foundation", "lite"],
        ConfigError,
        "--bundle has",
    ),
    (
        "an unknown model",
        ["--modality", "gray", "--foundation", "nothing"],
        SimMATError,
        "nothing",
    ),
    (
        "a model of random weights",
        ["--modality", "gray", "--foundation", "tiny"],
        ConfigError,
        "untuned",
    ),
    (
        "every address, and no name",
        ["--bundle", "BUNDLE", "--host", "0.0.0.0"],
        ConfigError,
        "--allow-host NAME",
    ),
    (
        "a host that is not here",
        ["--bundle", "BUNDLE", "--host", "203.0.113.7"],
        ConfigError,
        "check --host",
    ),
]


@pytest.mark.parametrize(
    ("what", "arguments", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED]
)
def test_a_wrong_call_is_refused(
    root: Path,
    bundle: Path,
    what: str,
    arguments: list[str],
    error: type[SimMATError],
    message: str,
) -> None:
    """One message, and no file."""
    before = files(root)
    with pytest.raises(error, match=message):
        run(
            str(root),
            *(str(bundle) if part == "BUNDLE" else part for part in arguments),
        )
    assert [path for path in files(root) if path.name != "lock"] == before


def test_a_folder_that_cannot_be_labelled_is_refused(
    root: Path, bundle: Path, tmp_path: Path
) -> None:
    """It says which labels it has, and what to do."""
    with pytest.raises(DataError, match="no such folder"):
        run(str(tmp_path / "nothing"), "--bundle", str(bundle))
    (root / "masks").mkdir()
    Image.fromarray(np.ones((40, 56), np.uint8)).save(root / "masks/s0.png")
    with pytest.raises(ConfigError, match="--regions"):
        run(str(root), "--bundle", str(bundle))
    (root / "card.toml").write_text('regions = "components"\nzero_means = "none"\n')
    with pytest.raises(ConfigError, match="zero_means"):
        run(str(root), "--bundle", str(bundle))
    (root / "annotations.json").write_text("{}")
    (root / "card.toml").write_text('regions = "instances"\n')
    with pytest.raises(DataError, match="COCO"):
        run(str(root), "--bundle", str(bundle))


def test_a_port_that_is_taken_is_refused(root: Path, bundle: Path) -> None:
    """Only where it was asked for; otherwise another one is taken."""
    from simmat_plugin_annotate.serve import listen

    with listen("127.0.0.1", 0 or None) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match="choose another --port") as refused:
            run(str(root), "--bundle", str(bundle), "--port", str(port))
        assert str(refused.value).count("127.0.0.1") == 1


def test_class_masks_stay_class_masks(
    root: Path, bundle: Path, started: list[Any]
) -> None:
    """The rule of the folder is the user's; the page says what it means for objects that touch."""
    (root / "masks").mkdir()
    mask = np.zeros((40, 56), np.uint8)
    mask[2:8, 2:8], mask[20:30, 20:30] = 3, 5
    Image.fromarray(mask).save(root / "masks/s0.png")
    (root / "card.toml").write_text(
        'regions = "components"\n[class_names]\n3 = "ship"\n'
    )
    run(str(root), "--bundle", str(bundle))
    folder = started[0].folder
    key = next(key for key, sample in folder.images.items() if sample.id == "s0")
    labels = folder.labels(key)
    assert [labels.class_of(region) for region in labels.objects.values()] == [3, 5]
    assert [one.name for one in folder.state.classes] == ["ship", "class 5"]
    labels.edit(0, lambda draft: draft.remove(1))
    np.testing.assert_array_equal(
        np.asarray(Image.open(root / "masks/s0.png")), np.where(mask == 5, 5, 0)
    )
    assert "that touch" in folder.notice


def test_an_image_whose_labels_are_polygons_is_not_edited(
    root: Path, bundle: Path, started: list[Any]
) -> None:
    """The others are; a label image beside the polygons would be a second mask."""
    (root / "masks").mkdir()
    (root / "masks/s0.geojson").write_text("{}")
    run(str(root), "--bundle", str(bundle), "--regions", "instances")
    folder = started[0].folder
    keys = {sample.id: key for key, sample in folder.images.items()}
    with pytest.raises(DataError, match="polygons"):
        folder.labels(keys["s0"])
    assert folder.labels(keys["s1"]).objects == {}


def test_a_folder_is_claimed_before_it_is_read(
    root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another server writes until it ends is known then; two would write over each other."""
    from simmat_plugin_annotate.folder import LabelFolder
    from simmat_plugin_annotate.state import locked_folder

    monkeypatch.setattr(
        LabelFolder, "__init__", lambda self, *given: pytest.fail("it was read")
    )
    with (
        locked_folder(root),
        pytest.raises(DataError, match="being annotated by another"),
    ):
        run(str(root), "--bundle", str(bundle))


@pytest.mark.parametrize(
    "linked", [".simmat", ".simmat/annotate/embeddings", "card.toml", "runs"]
)
def test_a_folder_whose_files_would_be_written_elsewhere_is_refused(
    tmp_path: Path, linked: str
) -> None:
    """By a link in the data set of a stranger, whose caches are even emptied when they are full."""
    from simmat_plugin_annotate.state import locked_folder

    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "set" / linked
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(DataError, match="leads out of"),
        locked_folder(tmp_path / "set"),
    ):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


def test_images_beside_no_folder_of_images_are_told_where_to_go(tmp_path: Path) -> None:
    """As a camera leaves them; it said what a data set with masks needs."""
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="move the images into it"):
        run(str(tmp_path), "--modality", "gray")


def test_the_token_is_in_no_list_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser is started with a file that only its user can read, and that leads to the address."""
    from simmat_plugin_annotate import serve

    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = tmp_path / "open.html"
    serve.open_in_browser("http://127.0.0.1:1/?token=secret", page)
    assert opened == [page.as_uri()]
    assert page.stat().st_mode & 0o777 == 0o600
    assert "secret" in page.read_text()
