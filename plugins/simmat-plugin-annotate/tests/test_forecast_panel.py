"""The page says what more labels would bring, by its trainings, or why it cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from annotate_server import TOKEN, served
from browser import browser, need_browser, until
from runs import config, gray_set, registry
from simmat_plugin_annotate.forecast import forecast_document

from simmat import training


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a training on 2 images, and one that continues with all 5."""
    root = gray_set(tmp_path_factory.mktemp("chain") / "set")
    settings = {"steps": 1, "heads": "prompt,dense", "pictures": False}
    few = config(root, root / "runs/annotate-001", train_images=2, **settings)
    training.train(few, registry())
    more = config(
        root, root / "runs/annotate-002", init=root / "runs/annotate-001", **settings
    )
    training.train(more, registry())
    return root


def linked(root: Path, *runs: Path) -> Path:
    """A folder with some runs in runs/."""
    (root / "runs").mkdir()
    for run in runs:
        (root / "runs" / run.name).symlink_to(run)
    return root


def test_two_trainings_are_a_forecast(chain: Path, bundle: Path) -> None:
    """The figures are those of `simmat forecast`; the curve goes through all of them."""
    with served(chain, bundle) as client:
        found = client.get("/api/forecast")
    assert (found["message"], found["left_out"], found["labels"]) == ("", [], 5)
    assert [row["more"] for row in found["rows"]] == [0, 20, 50, 100]
    assert {labels for labels, _ in found["scores"]} == {2, 5}
    curve = found["curve"]
    assert [curve[0][0], curve[-1][0]] == [2, 105]
    assert curve[-1][2] == pytest.approx(found["rows"][-1]["miou"]["median"], abs=1e-3)
    for _, low, median, high in curve:
        assert low <= median <= high


def test_it_is_said_why_there_is_no_forecast_yet(tmp_path: Path, chain: Path) -> None:
    """One number of labels makes no curve."""
    assert "second training" in forecast_document(tmp_path)["message"]
    one = linked(tmp_path, chain / "runs/annotate-001")
    said = forecast_document(one)["message"]
    assert "at least two numbers of training images, got 2" in said


def test_trainings_that_do_not_fit_are_left_out(
    tmp_path: Path, chain: Path, bundle: Path
) -> None:
    """A damaged one, and one of another image size: the others are a forecast."""
    root = linked(tmp_path, *(chain / "runs").iterdir())
    other = config(chain, root / "runs/small", steps=1, pictures=False, image_size=32)
    training.train(other, registry())
    os.utime(root / "runs/small/bundle.safetensors", (0, 0))  # not the newest
    (root / "runs/torn").mkdir()
    (root / "runs/torn/config.toml").write_text("")
    (root / "runs/torn/bundle.safetensors").write_bytes(b"torn")
    found = forecast_document(root)
    assert found["labels"] == 5
    torn, others = found["left_out"]
    assert torn.startswith("runs/torn")
    assert others == "1 of another network or image size"


@pytest.mark.slow
def test_the_page_shows_the_forecast(chain: Path, bundle: Path) -> None:
    """A sentence, and behind it the curve and the figures; it is read again after a training."""
    need_browser()
    with served(chain, bundle) as client, browser() as new_tab:
        tab = new_tab()
        tab.goto(f"http://127.0.0.1:{client.port}/?token={TOKEN}")
        said = until(lambda: tab.text("#forecast-short"), "the forecast is there")
        assert said.startswith("20 more training images: about +")
        tab.page.click("#forecast-short")
        rows = tab.page.locator("#forecast-rows tbody tr").all_inner_texts()
        assert [row.split()[0] for row in rows] == ["now", "+20", "+50", "+100"]
        label = tab.page.get_attribute("#forecast-curve", "aria-label")
        assert "with 5 training images now" in label
        said = "new BroadcastChannel('simmat-annotate-events').postMessage(['training', argument])"
        state = tab.run("main.app.session.training")
        tab.run(said, {**state, "state": "running"})
        with tab.page.expect_request("**/api/forecast"):  # the training ends
            tab.run(said, {**state, "state": "done"})
