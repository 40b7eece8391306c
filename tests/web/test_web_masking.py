"""The page in a browser: a picture that is drawn or loaded, its hidden part, and what fits it."""

import numpy as np
import pytest
from browsers import IN_CHROMIUM, box_of, chosen, completed, picture, until
from PIL import Image
from small_models import built
from web_pages import MODELS, lively, write_page

from kvae.runtime.web import WebDecoder

pytestmark = IN_CHROMIUM


def test_what_is_drawn_and_hidden_is_completed_as_numpy_completes_it(visit, files):
    path = files("mlp", "web_float32")
    page = visit(path)
    images = []
    for _ in range(2):  # on the picture of the network, and on an empty pad
        box = box_of(page, "#pad")
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.1 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.9 * box["height"], steps=10)
        page.mouse.up()
        images.append(page.evaluate("Array.from(image)"))
        if len(images) == 1:
            page.click("#clear")
    assert images[0] == images[1]  # a drawing is not laid over the picture of the network
    page.click("[data-hide=left]")
    answer = completed(page)
    image = np.array(page.evaluate("Array.from(image)"))
    assert set(image) == {0, 1}  # the likelihood is Bernoulli
    assert image.reshape(6, 5)[:, 2].sum() >= 4
    shown = np.ones((6, 5), bool)
    shown[:, :3] = False
    side = np.linspace(-8, 8, 161)
    z = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    logits = WebDecoder(path).decode(z).logits.reshape(len(z), 30).astype(float)
    pixels = image * logits - np.logaddexp(0, logits)
    log_prior = -0.5 * (z**2).sum(1) - np.log(2 * np.pi) + 2 * np.log(side[1] - side[0])
    observed = np.logaddexp.reduce(log_prior + (pixels * shown.ravel()).sum(1))
    whole = np.logaddexp.reduce(log_prior + pixels.sum(1))
    assert answer["log"] == pytest.approx(observed, abs=0.01)
    assert answer["score"] == pytest.approx(whole - observed, abs=0.01)
    assert f"{answer['log']:.2f}".replace("-", "−") in page.inner_text("#complete-status")
    page.click("[data-hide=nothing]")
    assert completed(page)["score"] is None


def test_more_dimensions_are_completed_by_importance_sampling_with_its_effective_sample_size(visit, files):
    page = visit(files("colour"))
    busy = page.evaluate("""() => {
      for (const part of ["left", "right", "nothing", "top"]) document.querySelector(`[data-hide=${part}]`).click();
      return $("complete-section").getAttribute("aria-busy");
    }""")
    assert busy == "true"  # what is shown belongs to another picture
    answer = completed(page)
    assert answer["scoreError"] >= 0
    assert "effective samples, of" in page.inner_text("#posterior-where")
    assert "± " in page.inner_text("#complete-status")
    assert picture(page, "#posterior").shape == picture(page, "#completed").shape == (7, 5, 3)
    kept = np.rint(255 * np.array(page.evaluate("Array.from(image)"))).reshape(7, 5, 3)[4:]
    assert np.abs(picture(page, "#completed")[4:] - kept).max() <= 1
    page.click("#go")
    page.wait_for_timeout(300)
    np.testing.assert_allclose(chosen(page), page.evaluate("found.centre"))


def test_keys_draw_and_hide(visit, files):
    page = visit(files("mlp"))
    page.click("#clear")
    page.focus("#pad")
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    drawn = np.array(page.evaluate("Array.from(image)"))
    assert drawn.sum() > 0
    page.focus("#seen")
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    hidden = np.array(page.evaluate("Array.from(hiddenPixels)")).reshape(6, 5)
    assert hidden[:2, 1].tolist() == [1, 1]
    assert hidden.sum() == 2


@pytest.mark.every_case
@pytest.mark.parametrize("paper", [(255, 255), (235, 180)], ids=["white paper", "paper in a shadow"])
def test_a_picture_is_loaded_and_fitted_as_mnist(visit, files, tmp_path, paper):
    picture = np.tile(np.linspace(*paper, 90)[:, None], (1, 60)).astype(np.uint8)
    picture[10:50, 5:15] = 0  # dark on white, in a corner
    Image.fromarray(picture).save(tmp_path / "bar.png")
    page = visit(write_page(MODELS["large"](), tmp_path, digits=True))
    assert not page.is_checked("#fit")  # the picture of the network is shown as it is
    page.check("#invert")
    page.set_input_files("#file", tmp_path / "bar.png")
    until(page, "!taken && image.some((value) => value > 0)")
    assert page.is_checked("#fit")
    image = np.array(page.evaluate("Array.from(image)")).reshape(16, 16)
    rows, columns = np.nonzero(image)
    assert abs(rows.mean() - 7.5) <= 1  # its centre of mass is in the middle
    assert abs(columns.mean() - 7.5) <= 1
    assert 10 <= np.ptp(rows) + 1 <= 13  # 20 of 28 pixels long, here of 16
    assert 2 <= np.ptp(columns) + 1 <= 4  # a quarter of that wide, because the margins of the pad are no ink
    page.uncheck("#fit")
    image = np.array(page.evaluate("Array.from(image)")).reshape(16, 16)
    assert 5 <= image.sum() <= 18  # 10 x 40 of 90 x 90 pixels, of 256


def test_a_file_can_be_chosen_again_and_one_that_is_no_picture_is_named(visit, files, tmp_path):
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(tmp_path / "white.png")
    (tmp_path / "no.png").write_bytes(b"no picture")
    page = visit(files("mlp"))
    for _ in range(2):
        with page.expect_file_chooser() as chooser:
            page.click("#file")
        assert page.input_value("#file") == ""  # otherwise the same file would be no change
        chooser.value.set_files(tmp_path / "white.png")
        until(page, "!taken && image.every((value) => value === 1)")
        assert page.input_value("#file").endswith("white.png")
        page.click("#clear")
        assert page.evaluate("image.every((value) => value === 0)")
        assert page.input_value("#file") == ""
    page.set_input_files("#file", tmp_path / "no.png")
    page.wait_for_selector("text=cannot read no.png")
    page.click("#take")
    until(page, "taken")
    assert page.inner_text("#file-status") == ""


def test_the_page_says_what_its_numbers_are(visit, files, tmp_path):
    help_shown = '!$("squared-error-help").hidden'
    page = visit(files("mlp"))
    assert not page.evaluate(help_shown)
    assert page.evaluate("withError(-1, 0.004)") == "−1.00 nats"  # of quadrature: no account
    assert page.evaluate("withError(-1, 0.5)") == "−1.00 nats (± 0.50)"
    assert page.evaluate("withError(-1, Infinity)") == "−1.00 nats (± unknown)"
    assert page.evaluate('[...document.querySelectorAll("output")].every((each) => each.ariaLive === "off")')
    small = visit(write_page(MODELS["mlp"](), tmp_path, "web_int8"))
    assert "weights in float32" in small.inner_text("#facts")  # none of its layers is large enough for int8
    squared = lively(built((6, 5, 1), latent_dim=2, hidden_units=(8,), likelihood="squared_error"))
    assert visit(write_page(squared, tmp_path)).evaluate(help_shown)
    assert "weights in int8" in visit(files("large")).inner_text("#facts")
