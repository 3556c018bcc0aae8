"""The annotator's page in a browser: what it shows is what is on disk."""

import numpy as np
import pytest
from browser import Server, browser, folder_of, need_browser, same_on_disk, until

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server on equal images, of which each test takes its own, and the centres of their objects."""
    need_browser()
    folder = tmp_path_factory.mktemp("site")
    centres = folder_of(folder, [*"abcdefghijklmnopqr", HOSTILE])
    server = Server(
        folder, "--modality", "gray", "--foundation", "lite", "--image-size", "128"
    )
    yield server, centres
    server.kill()


@pytest.fixture(scope="module")
def new_tab(site):
    """A function that opens a tab of one browser."""
    with browser() as opener:
        yield opener


@pytest.fixture
def opened(site, new_tab):
    """A function that opens the page at an image in a new tab; gives the tab and the path of the image's mask."""
    server, _ = site
    tabs = []

    def open_image(name):
        tab = new_tab()
        tabs.append(tab)
        tab.goto(server.address)
        tab.open(name)
        return tab, server.folder / "masks" / f"{name}.png"

    yield open_image
    for tab in tabs:
        tab.page.close()


def test_a_click_gives_a_mask_that_is_on_disk_when_accepted(site, opened):
    """The whole point."""
    _, centres = site
    tab, mask = opened("a")
    tab.click(*centres[0])
    drawn = tab.drafted()
    assert drawn[centres[0][1], centres[0][0]]
    assert not mask.exists()
    tab.saves("Enter")
    assert np.array_equal(next(iter(tab.shown().values())), drawn)
    assert same_on_disk(tab, mask)
    assert "Saved" in tab.text("#saved")
    tab.click(*centres[1])
    tab.press("Escape")
    assert tab.state()["objects"] == 1


def test_a_right_click_removes_and_a_box_starts_again(site, opened):
    """The two other ways to say what is meant."""
    _, centres = site
    tab, mask = opened("b")
    tab.click(*centres[0])
    tab.click(*centres[1], button="right")
    assert [label for _, _, label in tab.run("main.app.draft.state.points")] == [1, 0]
    assert not tab.drafted()[centres[1][1], centres[1][0]]
    tab.press("Escape")
    (x, y) = centres[2]
    tab.drag([(x - 15, y - 15), (x + 15, y + 15)])
    assert np.allclose(
        tab.run("main.app.draft.state.box"), [x - 15, y - 15, x + 15, y + 15], atol=0.5
    )
    assert tab.drafted()[y, x]
    tab.saves(" ")
    assert same_on_disk(tab, mask)


def test_a_click_on_the_outer_half_of_a_border_pixel_is_one_on_the_pixel(opened):
    """Prompts end at the centres of the outermost pixels, the image does not."""
    tab, _ = opened("a")
    width, height = tab.run("[main.app.raster.width, main.app.raster.height]")
    tab.click(0.2, 0.2)
    tab.click(width - 0.2, height - 0.2, button="right")
    assert tab.run("main.app.draft.state.points") == [
        [0, 0, 1],
        [width - 1, height - 1, 0],
    ]
    assert tab.drafted() is not None


def test_the_next_alternative_is_what_enter_accepts(site, opened):
    """A click may mean a part or the whole."""
    _, centres = site
    tab, mask = opened("c")
    tab.click(*centres[0])
    first = tab.drafted()
    tab.press("a")
    second = tab.drafted()
    assert not np.array_equal(first, second)
    assert "mask 2 of" in tab.text("#prompt")
    tab.saves("Enter")
    assert np.array_equal(tab.shown()[1], second)
    assert same_on_disk(tab, mask)


def test_number_keys_give_and_change_classes_whose_names_are_shown_as_text(
    site, opened
):
    """Names come from strangers."""
    server, centres = site
    tab, mask = opened("e")
    for name in ("cell", HOSTILE):
        tab.page.fill("#class-name", name)
        tab.page.keyboard.press("Enter")
        until(
            lambda name=name: name in tab.text("#classes"), f"the class {name} is there"
        )
    tab.press("Enter", "1")
    tab.click(*centres[0])
    tab.saves("Enter")
    tab.press("2")
    tab.click(*centres[1])
    tab.saves("Enter")
    numbers = [known["id"] for known in tab.run("main.app.session.classes")]
    assert tab.classes() == {1: numbers[0], 2: numbers[1]}
    tab.page.keyboard.down("Shift")
    tab.click(*centres[0])
    tab.page.keyboard.up("Shift")
    assert tab.state()["selected"] == 1
    tab.saves("2")
    assert tab.classes() == {1: numbers[1], 2: numbers[1]}
    assert HOSTILE in tab.text("#objects")
    assert HOSTILE in tab.text("#images")
    assert tab.page.title() != "owned"
    assert same_on_disk(tab, mask)
    assert "cell" in (server.folder / "card.toml").read_text()


def test_steps_are_undone_and_redone_after_a_reload(site, opened):
    """The history is the server's: it is there tomorrow too."""
    _, centres = site
    tab, mask = opened("f")
    for centre in centres[:3]:
        tab.click(*centre)
        tab.saves("Enter")
    tab.page.reload()
    tab.ready()
    for left in (2, 1, 0):
        tab.saves("Control+z")
        assert tab.state()["objects"] == left
    assert tab.page.is_disabled("#undo")
    tab.saves("Control+y")
    tab.saves("Control+Shift+Z")
    assert tab.state()["objects"] == 2
    assert same_on_disk(tab, mask)


def test_brush_and_eraser_set_the_last_pixels(site, opened):
    """Where no click helps, pixels are painted; strokes are undone one by one."""
    _, centres = site
    tab, mask = opened("g")
    (x, y) = centres[0]
    tab.press("b")
    tab.drag([(x - 5.5, y + 0.5), (x + 6.5, y + 0.5)])
    painted = tab.drafted()
    rows, columns = np.mgrid[: painted.shape[0], : painted.shape[1]]
    distance = np.hypot(
        columns + 0.5 - np.clip(columns + 0.5, x - 5.5, x + 6.5), rows - y
    )
    # the pointer stands on whole pixels of the screen
    assert painted[distance < 5.8].all()
    assert not painted[distance > 6.2].any()
    tab.saves("Enter")
    assert same_on_disk(tab, mask)
    tab.press("c")
    tab.page.click("#objects button")
    tab.press("e", "[", "[", "[")
    tab.drag([(x, y - 12), (x, y + 12)])
    erased = tab.drafted()
    assert not erased[y, x]
    tab.drag([(x + 4, y - 12), (x + 4, y + 12)])
    tab.press("Control+z")
    assert np.array_equal(tab.drafted(), erased)
    tab.saves("Enter")
    assert np.array_equal(tab.shown()[1], erased)
    assert same_on_disk(tab, mask)


def test_another_tab_is_informed_and_keeps_its_drawing(site, opened):
    """Two people, or one who forgot a tab."""
    _, centres = site
    first, mask = opened("h")
    second, _ = opened("h")
    second.click(*centres[1])
    drawn = second.drafted()
    first.click(*centres[0])
    first.saves("Enter")
    until(lambda: second.state()["objects"] == 1, "the other tab has the object")
    assert np.array_equal(second.drafted(), drawn)
    second.run("main.app.labels.version -= 1")  # as if the news had not come yet
    second.press("Enter")
    until(lambda: "Another tab" in second.text(".message.bad"), "it says so")
    assert second.state()["draft"]
    second.saves("Enter")
    until(lambda: first.state()["objects"] == 2, "the first tab has both")
    assert same_on_disk(first, mask)
    assert same_on_disk(second, mask)


def test_ten_tabs_at_once_get_right_answers(site, opened):
    """A browser opens six connections to a host: no tab may hold one for itself."""
    _, centres = site
    tabs = [opened(name)[0] for name in "ij" * 5]
    for i, tab in enumerate(tabs):
        tab.page.bring_to_front()
        tab.page.mouse.click(*tab.place(*centres[i % len(centres)]))
    for i, tab in enumerate(tabs):
        until(lambda tab=tab: not tab.state()["waiting"], "the mask of a click")
        (x, y) = centres[i % len(centres)]
        assert tab.run("main.app.draft.state.points.length") == 1
        assert tab.drafted()[y, x]
        assert sum(bool(tab.drafted()[v, u]) for u, v in centres) == 1


def test_values_and_window_are_those_of_the_sensor(site, opened):
    """The picture is only a view of the numbers."""
    _, centres = site
    tab, _ = opened("k")
    (x, y) = centres[3]
    tab.page.mouse.move(*tab.place(x + 0.5, y + 0.5))
    assert tab.text("#value") == f"x {x}, y {y}: gray 186 count"
    before = [tab.page.input_value(end) for end in ("#low", "#high")]
    tab.drag([(x, y), (x + 20, y + 10)], button="right")
    assert [tab.page.input_value(end) for end in ("#low", "#high")] != before
    assert not tab.state()["draft"]
    tab.press("l")
    assert [tab.page.input_value(end) for end in ("#low", "#high")] == before
    tab.page.fill("#low", "0")
    tab.page.fill("#high", "255")
    tab.page.keyboard.press("Enter")
    colour = tab.pixel(x + 0.5, y + 0.5)
    assert colour == [186, 186, 186]


def test_what_is_being_drawn_stays_with_its_image(site, opened):
    """Neither page down by accident nor a click on the row of the open image must cost a painted mask."""
    _, centres = site
    tab, mask = opened("l")
    tab.click(*centres[0])
    drawn = tab.drafted()
    with tab.page.expect_response(lambda answer: "/encode" in answer.url):
        tab.page.click('#images [aria-current="true"]')
    assert np.array_equal(tab.drafted(), drawn)
    tab.press("PageDown")
    until(lambda: tab.run("main.app.image.name") == "m", "the next image is open")
    assert tab.drafted() is None
    assert "is kept" in tab.text("#messages")
    tab.press("PageUp")
    until(lambda: tab.run("main.app.image.name") == "l", "the image is open again")
    assert np.array_equal(tab.drafted(), drawn)
    tab.saves("Enter")
    assert same_on_disk(tab, mask)


def test_an_object_is_labelled_by_keys_alone(site, opened):
    """A cross in the middle is moved by the arrows; P clicks there."""
    _, centres = site
    tab, mask = opened("m")
    for _ in range(3):
        tab.press("+")

    def middle() -> tuple[float, float]:
        place = tab.run("main.stage.view.middle")
        return place["x"], place["y"]

    x, y = middle()
    target = min(centres, key=lambda centre: abs(centre[0] - x) + abs(centre[1] - y))
    for axis, keys in ((0, ("ArrowRight", "ArrowLeft")), (1, ("ArrowDown", "ArrowUp"))):
        for _ in range(200):
            off = target[axis] - middle()[axis]
            if abs(off) < 1:
                break
            tab.press("Shift+" + keys[off < 0])
    tab.press("p")
    until(lambda: tab.drafted() is not None, "the mask of the click")
    assert tab.drafted()[target[1], target[0]]
    tab.saves("Enter")
    assert same_on_disk(tab, mask)
    tab.page.focus("#objects button")
    tab.press("Enter", "Backspace")
    assert tab.state()["objects"] == 1  # as long as nobody presses Delete
    tab.press("b")
    sizes = [tab.run("main.app.radius")]
    for key in (".", "."):
        tab.press(key)
        sizes.append(tab.run("main.app.radius"))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    tab.page.fill("#brush", "5")
    assert tab.run("main.app.radius") == 32


def test_a_class_is_renamed_and_removed_in_the_page(site, opened):
    """A typing error in a name need not stay; a class with objects does."""
    _, centres = site
    tab, _ = opened("n")
    for name in ("cel", "dust"):
        tab.page.fill("#class-name", name)
        tab.page.keyboard.press("Enter")
        until(
            lambda name=name: name in tab.text("#classes"), f"the class {name} is there"
        )
    tab.page.click('button[title="Rename or remove cel"]')
    tab.page.fill("#classes form input", "cell (n)")
    tab.page.keyboard.press("Enter")
    until(lambda: "cell (n)" in tab.text("#classes"), "the class has another name")
    tab.page.click('button[title="Rename or remove dust"]')
    tab.page.click("#classes form button[type=button]")
    until(lambda: "dust" not in tab.text("#classes"), "the class is gone")
    tab.click(*centres[0])
    tab.page.click("#classes button:has-text('cell (n)')")
    tab.saves("Enter")
    tab.page.click('button[title="Rename or remove cell (n)"]')
    tab.page.click("#classes form button[type=button]")
    until(lambda: "has objects" in tab.text(".message.bad"), "it says why not")
    assert "cell (n)" in tab.text("#classes")


def test_all_suggestions_are_accepted_though_some_are_covered(opened):
    """One that others cover does not refuse the rest, however many requests they take."""
    tab, mask = opened("o")
    tab.press("s")
    _, count = until(lambda: tab.state()["walk"], "there are suggestions")
    tab.run("main.app.walk.items.splice(1, 0, { ...main.app.walk.items[0] })")
    tab.run("main.app.session.limits.edits = 2")
    tab.press("Shift+Enter")
    until(lambda: tab.state()["walk"] is None, "all are accepted")
    assert tab.state()["objects"] == count
    assert f"{count} suggestions accepted. 1 were covered" in tab.text("#messages")
    assert same_on_disk(tab, mask)


def test_the_settings_of_a_training_are_chosen_in_the_page(site, opened):
    """Its length, the size of the network's input and the recipe; Esc starts nothing."""
    tab, _ = opened("j")
    tab.page.click("#train")
    until(
        lambda: int(tab.page.get_attribute("#steps", "placeholder") or 0) > 0,
        "the default is shown",
    )
    assert tab.page.input_value("#image-size") == "128"
    tab.press("Escape")
    busy = {"status": 409, "json": {"error": "busy"}}
    tab.page.route(
        "**/api/train",
        lambda route: (
            route.fulfill(**busy) if route.request.post_data else route.continue_()
        ),
    )
    tab.page.click("#train")
    tab.page.fill("#steps", "7")
    tab.page.fill("#image-size", "160")
    tab.page.select_option("#recipe", "default")
    with tab.page.expect_request(lambda request: request.method == "POST") as asked:
        tab.page.click('#train-form button[value="train"]')
    assert asked.value.post_data_json == {
        "steps": 7,
        "image_size": 160,
        "recipe": "default",
    }
    # A request that is still open when the tab closes goes to the server, which then trains during the next test.
    until(lambda: "answered 409" in tab.text(".message.bad"), "the refusal has arrived")


def test_a_training_says_how_long_it_takes_and_what_it_warns_of(site, opened):
    """A warning in a log that nobody opens, such as of images that are shrunk, helps nobody."""
    tab, _ = opened("j")
    state = {
        "state": "running",
        "step": 2,
        "steps": 7,
        "message": "step 2 of 7",
        "images": 3,
        "left_s": 125.0,
    }
    state |= dict.fromkeys(("score", "before", "adopted"))
    state |= {"losses": [[1, 2.5], [2, 1.5]], "scores": [[0, 0.25], [2, 0.5]]}
    warning = "Warning: 3 of 3 training images are shrunk; use a larger Image size"
    tab.page.click("#train")
    tab.page.wait_for_selector("#train-dialog[open]")
    tab.page.route(
        "**/api/train",
        lambda route: route.fulfill(json={**state, "warnings": [warning]}),
    )
    tab.press("Enter")
    until(lambda: "About 3 min left" in tab.text("#training-text"), "the time left")
    assert warning in tab.text("#messages")
    assert "IoU 0.500, loss 1.50 at step 2 of 7" in tab.page.get_attribute(
        "#curve", "aria-label"
    )


def test_a_new_model_comes_with_the_command_that_applies_it(site, opened):
    """Who has labelled twenty of a thousand images wants the others done."""
    server, _ = site
    tab, _ = opened("j")
    model = tab.run(
        "({ ...main.app.session.model, name: 'annotate-001', path: '/my runs/annotate-001' })"
    )
    tab.run(
        "new BroadcastChannel('simmat-annotate-events').postMessage(['model', argument])",
        model,
    )
    said = until(lambda: tab.text(".message"), "the page says it")
    assert (
        f'simmat predict "/my runs/annotate-001" {server.folder} --everything' in said
    )


def test_another_image_without_labels_is_a_key_away(opened):
    """Neighbours in a list are often alike."""
    tab, _ = opened("j")
    for _ in range(2):
        before = tab.state()["key"]
        tab.press("u")
        until(
            lambda before=before: tab.state()["key"] != before, "another image is open"
        )


def test_a_second_class_is_typed_straight_after_the_first(opened):
    """Its letters are no keys of the image: "body" has chosen the brush and marked the image as done."""
    tab, _ = opened("g")
    tab.page.click("#class-name")
    tab.page.keyboard.type("udder\rbody\r")
    until(lambda: "body" in tab.text("#classes"), "both classes are there")
    assert "udder" in tab.text("#classes")
    assert not tab.run("main.app.labels.done")
    tab.press("Enter", "b")
    assert tab.run("main.app.tool") == "brush"


def test_done_asks_before_it_writes_an_empty_mask(site, opened):
    """And says first that a drawn object is not accepted yet."""
    _, centres = site
    tab, mask = opened("p")
    tab.click(*centres[0])
    tab.press("d")
    assert "not saved yet" in tab.text("#messages")
    tab.press("Escape", "d")
    assert "empty mask" in tab.text("#empty")
    tab.press("Enter")
    assert tab.state()["version"] == 0
    tab.press("d")
    tab.page.click("#is-empty")
    until(mask.exists, "the empty mask is written")


def test_a_question_asked_again_at_once_gets_its_own_answer(opened):
    """The event of the closing comes later: it must not answer the next question, nor the next answer the first."""
    tab, _ = opened("p")
    script = """async () => {
        const { ask } = await import("/static/show.js");
        const { byId } = await import("/static/shared/dom.js");
        const dialog = byId("empty");
        const first = ask(dialog);
        dialog.close("no");
        const second = ask(dialog);
        await new Promise((resolve) => setTimeout(resolve, 100));
        dialog.close("empty");
        return [await first, await second];
    }"""
    assert tab.page.evaluate(script) == ["no", "empty"]


def test_page_down_skips_an_image_that_cannot_be_read(site, opened):
    """It is marked in the list; before, the key stuck there."""
    server, _ = site
    tab, _ = opened("p")
    (server.folder / "images/q.png").write_bytes(b"not a picture")
    tab.press("PageDown")
    until(lambda: tab.run("main.app.image.name") == "r", "the image after it is open")
    assert "q cannot be opened and is skipped" in tab.text("#messages")
    assert "1 cannot be opened" in tab.text("#counts")
    tab.press("PageUp")
    until(lambda: tab.run("main.app.image.name") == "p", "the image before it is open")


def test_a_polygon_is_drawn_by_its_corners(site, opened):
    """Straight edges take a few clicks; the right button takes a corner back, Enter closes it."""
    tab, mask = opened("r")
    tab.press("o")
    for place in ((10, 10), (40, 10), (40, 30), (70, 70)):
        tab.page.mouse.click(*tab.place(*place))
    tab.page.mouse.click(*tab.place(5, 5), button="right")
    tab.page.mouse.click(*tab.place(10, 30))
    tab.press("Enter")
    assert np.argwhere(tab.drafted()).min(0).tolist() == [10, 10]
    assert tab.drafted().sum() == 20 * 30
    tab.saves("Enter")
    assert same_on_disk(tab, mask)


def test_holes_are_filled_and_specks_removed(opened):
    """With a key each, of the drawn or the selected object."""
    tab, mask = opened("r")
    ring = np.zeros((10, 30), bool)
    ring[:, :10] = True
    ring[4:6, 4:6] = False
    ring[5, 25] = True
    edges = np.flatnonzero(np.diff(ring.ravel(), prepend=False, append=False))
    mask_document = {
        "box": [60, 60, 90, 70],
        "runs": np.diff(edges, prepend=0, append=300).tolist(),
    }
    tab.run(
        "main.app.labels.edit({ op: 'add', overlap: 'take', class: null, mask: argument })",
        mask_document,
    )
    tab.run("main.stage.act.endStroke()")
    until(lambda: tab.state()["objects"], "the object is there")
    tab.page.click("#objects button")
    tab.press("i")
    assert tab.drafted().sum() == 101
    tab.press("x")
    assert tab.drafted().sum() == 100
    tab.saves("Enter")
    assert same_on_disk(tab, mask)
    tab.press("i")
    assert "no hole" in tab.text("#messages")


def test_the_opacity_of_masks_is_chosen(opened):
    """What is below a mask decides where it ends."""
    tab, _ = opened("r")
    tab.run(
        "main.app.labels.edit({ op: 'add', overlap: 'take', class: null, mask: argument })",
        {"box": [60, 60, 90, 70], "runs": [0, 300]},
    )
    tab.run("main.stage.act.endStroke()")
    until(lambda: tab.state()["objects"], "the object is there")
    tab.page.keyboard.press("Escape")
    seen = []
    for value in ("0", "1"):
        tab.page.fill("#opacity", value)
        seen.append(tab.pixel(62.5, 60.5))
    assert seen[0][0] == seen[0][1] == seen[0][2]
    assert len(set(seen[1])) > 1
