"""The page in a browser: the plane, the sliders, the pictures of a seed, and what plays."""

import os
from pathlib import Path

import numpy as np
import pytest
from browsers import CLASSES, IN_CHROMIUM, asked, box_of, chosen, completed, picture, pixels
from small_models import tiny_built
from web_pages import MODELS, expected_samples, write_page

from kvae.internal.pictures import as_bytes, layout, sheet
from kvae.runtime.web import WebDecoder

pytestmark = IN_CHROMIUM
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


def test_the_images_of_10000_seeds_of_a_convolutional_model_are_those_of_numpy(visit, files):
    path = files("conv")  # tests/tools/test_tools_runtimes.py compares those of mnist_2d
    z, draws = asked(visit(path), 10_000, 7)
    expected = expected_samples(path, 10_000, 7)
    assert np.array_equal(z, expected.z)
    # A uniform number is between two means that differ by rounding, about 1e-6, once in a million pixels.
    assert (draws != expected.images.reshape(draws.shape)).sum() <= 1 + 5e-6 * draws.size


@pytest.mark.parametrize("name", ["mlp", "colour"])
@pytest.mark.parametrize("count", [1, 5, 64])
def test_the_sheet_is_the_picture_of_kvae_sample_and_can_be_saved(call, visit, files, tmp_path, name, count):
    path = files(name, "web_float32")
    page = visit(path)
    page.fill("#seed", "1")
    page.fill("#count", str(count))
    page.click("text=Make them")
    page.wait_for_selector(f"text={'One picture' if count == 1 else f'{count} pictures'} of seed 1.")
    assert page.is_checked("#means")
    for kind in ("means", "draw"):
        if kind == "draw":
            page.check("#draws")
        shown = picture(page, "#sheet")
        made = np.array(page.evaluate(f"samples.map((each) => Array.from(each.{kind}))"), np.uint8)
        images = made.reshape(count, *page.evaluate("model.image_shape"))
        assert np.array_equal(shown, sheet(images).repeat(1 if images.shape[-1] == 3 else 3, axis=-1))
        assert call("sample", path, "-n", count, "--seed", 1, *(["--draws"] * (kind == "draw")), "-o", "a.png")[0] == 0
        command = pixels(tmp_path / "a.png")
        # Means in float32 differ by about 1e-7 between JavaScript and NumPy, so few of them round to another level.
        assert shown.shape == command.shape
        assert (shown != command).mean() < 0.005
        with page.expect_download() as download:
            page.click("text=Save as PNG")
        download.value.save_as(tmp_path / "samples.png")
        assert np.array_equal(pixels(tmp_path / "samples.png"), shown)


def test_the_layout_of_the_page_is_that_of_kvae(visit, files):
    page, counts = visit(files("mlp")), [*range(1, 130), 400]
    for size in ((1, 1), (6, 5), (28, 28), (24, 32), (64, 48), (200, 3), (400, 400)):
        found = page.evaluate(
            """([counts, [height, width]]) => counts.map((count) => {
              const { columns, enlargement } = layoutOf(count, height, width);
              return [columns, enlargement];
            })""",
            [counts, size],
        )
        assert found == [list(layout(count, *size)) for count in counts]


def test_dragging_and_the_arrow_keys_decode_where_they_go(visit, files):
    path = files("mlp")
    page, decoder = visit(path), WebDecoder(path)
    low, high = (np.array(page.evaluate(f"plane.{side}")) for side in ("low", "high"))

    def check():
        page.wait_for_timeout(400)
        expected = as_bytes(decoder.decode(chosen(page)[None]).means[0])
        assert np.abs(picture(page, "#image").astype(int) - expected).max() <= 1
        return chosen(page)

    box = box_of(page, "#plane")
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"], steps=5)
    page.mouse.up()
    dragged = check()
    np.testing.assert_allclose(dragged, low + np.array([0.75, 0.75]) * (high - low), atol=0.02 * (high - low)[0])
    assert "test pictures are of class" in page.inner_text("#where") or "no test picture" in page.inner_text("#where")
    page.focus("#plane")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    moved = check()
    np.testing.assert_allclose(moved - dragged, [-0.01 * (high - low)[0], -0.05 * (high - low)[1]], atol=1e-9)
    page.focus("#slider-0")
    page.keyboard.press("ArrowRight")
    assert check()[0] > moved[0]


def test_names_of_models_and_classes_are_text(visit, files):
    page = visit(files("mlp"))
    assert page.inner_text("h1") == page.title() == "<i>model</i>"
    assert page.locator("#classes button").all_inner_texts() == ["<b>left</b>", "right"]
    assert page.locator("i, b").count() == 0


def test_a_class_can_be_shown_alone(visit, files):
    page = visit(files("mlp"))
    both = picture(page, "#plane")
    page.click("#classes button >> nth=1")
    page.wait_for_timeout(200)
    assert page.get_attribute("#classes button >> nth=1", "aria-pressed") == "true"
    one = picture(page, "#plane")
    middle = int(page.evaluate('toScreen([0, 0], $("plane").width)[0]'))
    assert (both[:, : middle - 20] != one[:, : middle - 20]).any()
    assert np.array_equal(both[:, middle + 20 :], one[:, middle + 20 :])


def test_pictures_fill_the_plane_and_keep_their_colours_behind_the_dots(visit, files):
    page = visit(files("colour_plane"))
    with_dots = picture(page, "#plane")
    page.uncheck("#show-points")
    page.wait_for_timeout(200)
    alone = picture(page, "#plane")
    assert (with_dots != alone).any(axis=-1).mean() < 0.2  # only where there are dots
    assert (alone == 255).all(axis=-1).mean() < 0.02  # the colour of the paper between pictures
    assert np.ptp(alone, axis=-1).max() > 20


def test_a_model_of_more_dimensions_has_sliders_in_the_order_of_kl_and_no_plane(visit, files):
    path = files("colour")
    page = visit(path)
    assert page.locator("#plane").is_hidden()
    assert page.locator("#sliders label").all_inner_texts()[0].startswith("z₂")
    page.focus("#slider-2")
    page.keyboard.press("End")
    page.wait_for_timeout(300)
    assert chosen(page).tolist() == [0, 0, 3.5]
    expected = as_bytes(WebDecoder(path).decode([[0, 0, 3.5]]).means[0])
    assert np.abs(picture(page, "#image").astype(int) - expected).max() <= 1


def test_a_picture_turns_into_another(visit, files):
    path = files("flat")
    page = visit(path)
    page.fill("#to", "4")
    page.press("#to", "Tab")
    page.focus("#way")
    page.keyboard.press("End")
    z = expected_samples(path, 10).z
    np.testing.assert_allclose(chosen(page), z[3])
    page.keyboard.press("Home")
    np.testing.assert_allclose(chosen(page), z[0])
    page.click("#play")
    page.wait_for_timeout(500)
    assert not np.allclose(chosen(page), z[0])
    page.click("#play")


@pytest.mark.parametrize("name", ["classes", "classes_conv"])
def test_the_class_that_is_chosen_by_a_key_is_that_of_all_pictures(call, visit, files, tmp_path, name):
    path = files(name, "web_float32")
    page, decoder = visit(path), WebDecoder(path)
    assert page.locator("#class option").all_inner_texts() == list(CLASSES)
    page.get_by_label("Class", exact=True).focus()
    page.keyboard.press("ArrowDown")
    completed(page)
    page.wait_for_timeout(400)
    expected = as_bytes(decoder.decode(chosen(page)[None], 1).means[0])
    assert np.abs(picture(page, "#image").astype(int) - expected).max() <= 1
    assert page.inner_text("#where").endswith("of class right.")
    if name == "classes":
        assert page.get_attribute("#classes button >> nth=1", "aria-pressed") == "true"
        low, high = (np.array(page.evaluate(f"plane.{side}")) for side in ("low", "high"))
        first = page.evaluate("Array.from(tiles[0])")
        part = np.array([0.5 / page.evaluate("across"), 1 - 0.5 / page.evaluate("down")])
        assert np.abs(first - as_bytes(decoder.decode((low + part * (high - low))[None], 1).means).ravel()).max() <= 1
    for options in ([], ["--label", "right"]):
        if options:
            page.uncheck("#in-turn")
            page.wait_for_selector("text=10 pictures of seed 0, of class right.")
        assert call("sample", path, "-n", 10, *options, "-o", "a.png")[0] == 0
        # Means in float32 differ by about 1e-7 between JavaScript and NumPy, so few of them round to another level.
        assert (picture(page, "#sheet") != pixels(tmp_path / "a.png")).mean() < 0.005


@pytest.mark.parametrize("name", ["mlp", "colour", "classes", "mixture", "flow", "hierarchical"])
def test_nothing_is_wider_than_a_phone_and_touch_moves_the_ring(visit, files, name):
    page = visit(files(name), **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("summary >> nth=0")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    if page.is_visible("#plane"):
        page.tap("#plane", position={"x": 20, "y": 100})
        assert chosen(page)[0] < page.evaluate("(plane.low[0] + plane.high[0]) / 2")
    for target in page.locator("button:visible, summary:visible").all():
        assert target.bounding_box()["height"] >= 24  # WCAG 2.2, target size


@pytest.mark.parametrize("names", [None, ("a long name" * 9,) * 100])
def test_a_hundred_classes_leave_a_phone_to_the_page(visit, tmp_path, names):
    means, labels = np.random.default_rng(0).normal(size=(300, 2)), np.arange(300) % 100
    path = write_page(tiny_built(condition=100), tmp_path, means=means, labels=labels, class_names=names)
    page = visit(path, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert box_of(page, "#classes")["height"] < 300
    assert box_of(page, "#chooser")["height"] < 64  # it stays at the top, where it hides what has the focus
    page.select_option("#class", "99")
    box, last = (page.locator(selector).last.bounding_box() for selector in ("#classes", "#classes button"))
    assert box["y"] <= last["y"] < box["y"] + box["height"]
    shown = page.locator("#class option").all_inner_texts()
    assert shown == list(names or map(str, range(100)))


def test_a_page_without_test_pictures_speaks_of_no_dots(visit, tmp_path):
    page = visit(write_page(MODELS["classes"](), tmp_path, class_names=CLASSES))
    assert "Every place is a picture." in page.inner_text("#plane-more")
    assert "dot" not in page.inner_text("#plane-more")


def test_a_class_that_is_chosen_before_the_first_pictures_are_made_breaks_nothing(visit, files):
    page = visit(files("classes"))
    page.evaluate("""async () => {
      samples = [];
      $("class").value = "2";
      showClass();
      $("way").dispatchEvent(new Event("input"));
      await makeSamples({ seed: 0, count: 10 });
      $("way").value = "1";
      $("way").dispatchEvent(new Event("input"));
    }""")
    np.testing.assert_allclose(chosen(page), page.evaluate("Array.from(samples[1].z)"))


def test_the_page_is_dark_where_the_reader_prefers_that(visit, files):
    light, dark = (visit(files("mlp"), color_scheme=scheme) for scheme in ("light", "dark"))
    brightness = [picture(page, "#plane").mean() for page in (light, dark)]
    assert brightness[0] > 180
    assert brightness[1] < 90


def test_less_motion_is_moved_where_the_reader_prefers_that(visit, files):
    page = visit(files("mlp"), reduced_motion="reduce")
    page.click("#play")
    page.wait_for_timeout(300)
    steps = page.evaluate("""async () => {
      const seen = new Set();
      const end = performance.now() + 1500;
      while (performance.now() < end) {
        seen.add(String(z));
        await new Promise((resume) => setTimeout(resume, 20));
      }
      return seen.size;
    }""")
    assert 1 <= steps <= 3  # one a second


def test_stop_and_play_within_a_step_of_less_motion_leave_one_player(visit, files):
    page = visit(files("mlp"), reduced_motion="reduce")
    times = page.evaluate("""async () => {
      const times = [], paused = (time) => new Promise((resume) => setTimeout(resume, time)), move = moveTo;
      moveTo = (point) => { times.push(performance.now()); move(point); };
      $("play").click();
      await paused(500);
      $("play").click();
      await paused(200);
      $("play").click();
      await paused(2600);
      return times;
    }""")
    assert 2 <= len(times[1:]) <= 3  # one before the stop; then 0, 1 and 2 seconds after the second start
    assert min(np.diff(times[1:])) > 900


def pressed(page, selector):
    return page.get_attribute(selector, "aria-pressed") == "true"


def test_whatever_is_chosen_stops_what_plays(visit, files):
    page = visit(files("flat"))
    for selector in ("#random", "#centre"):
        page.click("#play")
        assert pressed(page, "#play")
        page.click(selector)
        assert not pressed(page, "#play")
    for slider in ("#slider-0", "#way"):
        page.click("#play")
        page.focus(slider)
        page.keyboard.press("End")
        assert not pressed(page, "#play")
        at_once = chosen(page)
        page.wait_for_timeout(200)
        np.testing.assert_allclose(chosen(page), at_once)


def test_stop_stops_beside_a_number_that_is_not_valid_and_play_does_not_begin(visit, files):
    page = visit(files("flat"))
    page.click("#play")
    page.fill("#to", "99")
    page.click("#play")
    assert not pressed(page, "#play")
    page.click("#play")
    assert not pressed(page, "#play")
    page.fill("#to", "2.5")  # what the form does not take must not break the slider
    page.focus("#way")
    page.keyboard.press("End")
    assert page.evaluate("z.every(Number.isFinite)")


def test_a_path_is_drawn_and_followed(visit, files):
    page = visit(files("mlp"))
    page.check("#path-mode")
    box = box_of(page, "#plane")
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 20, steps=4)
    page.mouse.up()
    page.focus("#plane")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    path = np.array(page.evaluate("path"))
    assert len(path) >= 4
    assert path[-1][1] < path[-2][1]
    np.testing.assert_allclose(page.evaluate("onThePath(0)"), path[0])
    np.testing.assert_allclose(page.evaluate("onThePath(1)"), path[-1])
    page.click("text=Play the path")
    page.wait_for_timeout(600)
    assert not np.allclose(chosen(page), path[-1])
    assert page.evaluate("$('where').textContent === describe(z)")  # while the path is played
    page.click("#path-play")
    page.click("text=Clear the path")
    assert page.is_disabled("#path-play")


def test_a_path_that_is_drawn_anew_stops_what_plays(visit, files):
    page = visit(files("mlp"))
    page.check("#path-mode")
    box = box_of(page, "#plane")

    def draw(height):
        page.mouse.move(box["x"] + 20, box["y"] + height)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + height, steps=4)
        page.mouse.up()

    draw(20)
    page.click("#play")
    page.click("#path-play")
    assert not pressed(page, "#play")  # one plays at a time
    assert pressed(page, "#path-play")
    draw(60)
    assert not pressed(page, "#path-play")
    assert page.inner_text("#path-play") == "Play the path"
    page.click("#path-play")
    page.wait_for_timeout(300)
    assert pressed(page, "#path-play")
    assert chosen(page)[1] == pytest.approx(page.evaluate("path[0][1]"))
    page.focus("#plane")
    page.keyboard.press("Enter")
    assert not pressed(page, "#path-play")


@pytest.mark.skipif("KVAE_AXE" not in os.environ, reason="KVAE_AXE does not name the axe.min.js of npm's axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["mlp", "colour", "classes"])
def test_axe_finds_no_violation(visit, files, name, scheme):
    page = visit(files(name), color_scheme=scheme)
    for summary in page.locator("summary:visible").all():
        summary.click()
    page.evaluate(Path(os.environ["KVAE_AXE"]).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
