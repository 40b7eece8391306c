"""Sheets of images: samples, reconstructions, lattices, rows with titles, completions."""

import base64
import io
import re

import numpy as np
import pytest
from figure_parts import cells, picture_on, stacked
from matplotlib.colors import to_rgb
from PIL import Image
from plot_cases import SHEET_SHAPES, assert_is_saved

from kvae.internal.errors import UserError
from kvae.plotting import drawing

# --- sheets


@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
def test_samples_show_means_above_draws(rng, shape):
    means = rng.uniform(size=(2, *shape)).astype(np.float32)
    height, width, channels = shape
    above, below = stacked(drawing.samples(means, means.round()), 2, height)
    for sheet, x in ((above, means), (below, means.round())):
        picture = sheet.reshape(height, 2 * width + 2, channels)
        np.testing.assert_array_equal(picture[:, :width], x[0])
        np.testing.assert_array_equal(picture[:, width + 2 :], x[1])


def test_samples_without_draws_show_means_alone(rng):
    (axes,) = drawing.samples(rng.uniform(size=(2, 4, 4, 1))).axes
    (title,) = (text.get_text() for text in axes.texts)
    assert "mean of every pixel" in title


def test_reconstructions_lie_below_their_inputs(rng):
    x = rng.uniform(size=(1, 4, 4, 1)).astype(np.float32)
    above, below = stacked(drawing.reconstructions(x, 1 - x), 2, 4)
    np.testing.assert_array_equal(above, x[0])
    np.testing.assert_array_equal(below, 1 - x[0])


def test_originals_lie_above_the_inputs(rng):
    x = rng.uniform(size=(1, 4, 4, 1)).astype(np.float32)
    figure = drawing.reconstructions(x.round(), 1 - x, originals=x)
    for sheet, part in zip(stacked(figure, 3, 4), (x, x.round(), 1 - x), strict=True):
        np.testing.assert_array_equal(sheet, part[0])


def test_reconstructions_of_another_number_are_refused():
    with pytest.raises(UserError, match="as many reconstructions as inputs"):
        drawing.reconstructions(np.zeros((3, 4, 4, 1)), np.zeros((2, 4, 4, 1)))


# --- lattice


@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
def test_lattice_is_seamless(rng, shape):
    means = rng.uniform(size=(9, *shape)).astype(np.float32)
    height, width, _ = shape
    picture = drawing.lattice(means)
    assert picture.shape == (3 * height, 3 * width, shape[-1])
    np.testing.assert_array_equal(picture[height : 2 * height, 2 * width :], means[5])


def test_a_sheet_of_fifty_by_fifty_digits_has_1400_by_1400_pixels():
    assert drawing.lattice(np.zeros((2500, 28, 28, 1), np.float32)).shape == (1400, 1400, 1)


def test_a_lattice_that_is_no_square_is_refused():
    with pytest.raises(UserError, match=r"square number of decoded means\. Received 8"):
        drawing.lattice(np.zeros((8, 4, 4, 1)))


@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
def test_rows_are_one_example_each(rng, shape):
    columns = rng.uniform(size=(3, 5, *shape)).astype(np.float32)
    np.testing.assert_array_equal(cells(drawing.rows(*columns), shape), columns.swapaxes(0, 1))


def test_rows_are_white_between_the_images():
    picture = drawing.rows(np.zeros((2, 3, 3, 1)), np.zeros((2, 3, 3, 1)))
    assert picture[3:5].min() == picture[:, 3:5].min() == 1
    assert picture.sum() == 8 * 8 - 4 * 9


@pytest.mark.parametrize("columns", [(), (np.zeros((2, 4, 4)), np.zeros((3, 4, 4))), (np.zeros((2, 4, 4)), [[[0.0]]])])
def test_rows_of_columns_that_differ_are_refused(columns):
    with pytest.raises(UserError, match="Expected columns of one shape"):
        drawing.rows(*columns)


def test_titled_columns_are_rows_under_their_titles(rng):
    x = {name: rng.uniform(size=(3, 6, 5, 1)).astype(np.float32) for name in ("x", "means", "draw")}
    (axes,) = drawing.titled_columns(x, ["first", "second", "third"], "rows").axes
    np.testing.assert_array_equal(cells(picture_on(axes), (6, 5, 1)), np.stack(list(x.values()), axis=1))
    assert [text.get_text() for text in axes.texts] == ["x", "means", "draw", "rows", "first", "second", "third"]


def test_titles_stand_over_the_middle_of_their_column_and_beside_that_of_their_row(rng):
    x = {name: rng.uniform(size=(2, 6, 5, 1)) for name in "ab"}
    (axes,) = drawing.titled_columns(x, ["first", "second"]).axes
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert (places["a"][0], places["b"][0]) == (2, 5 + 2 + 2)  # pixels 0 to 4 and 7 to 11
    assert (places["first"][1], places["second"][1]) == (2.5, 6 + 2 + 2.5)  # pixels 0 to 5 and 8 to 13


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
def test_titled_columns_are_saved(tmp_path, rng, shape, suffix):
    x = {name: rng.uniform(size=(2, *shape)) for name in ("x", "means")}
    assert_is_saved(drawing.titled_columns(x, ["first", "second"]), tmp_path, suffix)


# --- interpolation


@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
def test_interpolation_has_one_row_per_path_and_one_column_per_step(rng, shape):
    means = rng.uniform(size=(2, 4, *shape)).astype(np.float32)
    (axes,) = drawing.interpolation(means).axes
    np.testing.assert_array_equal(cells(picture_on(axes), shape), means)


def test_interpolation_names_both_ends_of_every_path(rng):
    (axes,) = drawing.interpolation(rng.uniform(size=(2, 4, 6, 6, 1)), [("a", "b"), ("c", "d")]).axes
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert list(places) == ["a", "b", "c", "d"]
    assert places["a"][1] == places["b"][1] < places["c"][1] == places["d"][1]
    assert max(places["a"][0], places["c"][0]) < 0 < 4 * 6 + 3 * 2 < min(places["b"][0], places["d"][0])


def test_interpolation_lies_between_the_originals_of_its_ends(rng):
    means = rng.uniform(size=(2, 4, 6, 6, 1)).astype(np.float32)
    first, last = rng.uniform(size=(2, 2, 6, 6, 1)).astype(np.float32)
    (axes,) = drawing.interpolation(means, originals=(first, last)).axes
    picture = cells(picture_on(axes), (6, 6, 1))
    np.testing.assert_array_equal(picture, np.concatenate([first[:, None], means, last[:, None]], axis=1))
    assert [text.get_text() for text in axes.texts][::2] == ["test image", "test image"]


# --- completion


def completed(rng, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Two images, two draws and a mask of their own each."""
    return {
        "x": rng.uniform(size=(2, *shape)).astype(np.float32),
        "observed": rng.uniform(size=(2, *shape[:2], 1)) < 0.5,
        "means": rng.uniform(size=(2, *shape)).astype(np.float32),
        "draw_means": rng.uniform(size=(2, 2, *shape)).astype(np.float32),
        "draws": rng.uniform(size=(2, 2, *shape)).astype(np.float32),
    }


def colours(x: np.ndarray) -> np.ndarray:
    return x.repeat(3, axis=-1) if x.shape[-1] == 1 else x


@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
def test_completion_shows_original_observed_draws_and_mean(rng, shape):
    parts = completed(rng, shape)
    (axes,) = drawing.completion(**parts, scores=["-3.0", "-4.0"]).axes
    titles = ["image", "observed", "all draws\nmean of x"]
    titles += [f"draw {number} of z\n{what} of x" for number in (1, 2) for what in ("mean", "draw")]
    titles += ["log p(missing | observed),\nnats per image", "-3.0", "-4.0"]
    assert [text.get_text() for text in axes.texts] == titles
    picture = cells(picture_on(axes), (*shape[:2], 3))
    shown_parts = {0: parts["x"], 2: parts["means"]}
    for number in range(2):
        shown_parts |= {3 + 2 * number: parts["draw_means"][number], 4 + 2 * number: parts["draws"][number]}
    for column, part in shown_parts.items():
        np.testing.assert_array_equal(picture[:, column], colours(part))


@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
def test_missing_pixels_are_blue_and_observed_ones_as_they_were(rng, shape):
    parts = completed(rng, shape)
    seen = cells(picture_on(drawing.completion(**parts).axes[0]), (*shape[:2], 3))[:, 1]
    mask = parts["observed"][..., 0]
    np.testing.assert_array_equal(seen[mask], colours(parts["x"])[mask])
    np.testing.assert_allclose(seen[~mask], [to_rgb(drawing.MISSING)] * (~mask).sum(), rtol=1e-7)  # float32


def test_a_mask_of_one_image_is_that_of_all(rng):
    parts = completed(rng, (4, 5, 1))
    parts["observed"] = parts["observed"][0]
    seen = cells(picture_on(drawing.completion(**parts).axes[0]), (4, 5, 3))[:, 1]
    blue = np.isclose(seen, to_rgb(drawing.MISSING)).all(axis=-1)
    np.testing.assert_array_equal(blue, np.stack([~parts["observed"][..., 0]] * 2))


def test_unknown_pixels_are_grey_in_the_original(rng):
    parts = completed(rng, (4, 5, 1))
    parts["x"][~parts["observed"]] = np.nan
    original = cells(picture_on(drawing.completion(**parts).axes[0]), (4, 5, 3))[:, 0]
    assert (original[~parts["observed"][..., 0]] == 0.5).all()


# --- pictures that are arrays


@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
def test_a_picture_is_saved_pixel_for_pixel(tmp_path, rng, shape):
    picture = rng.uniform(-0.2, 1.2, size=shape).astype(np.float32)
    drawing.save(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image).reshape(shape)
    np.testing.assert_array_equal(pixels, np.rint(255 * np.clip(picture, 0, 1)))


@pytest.mark.parametrize("shape", SHEET_SHAPES, ids=str)
def test_a_picture_in_svg_has_the_pixels_of_the_array(tmp_path, rng, shape):
    picture = rng.integers(0, 256, shape) / 255
    drawing.save(picture, tmp_path / "a.svg")
    (inside,) = re.findall(r'base64,\s*([\w+/=\s]+)"', (tmp_path / "a.svg").read_text(encoding="utf-8"))
    with Image.open(io.BytesIO(base64.b64decode(inside))) as image:
        pixels = np.asarray(image.convert("RGB"))
    # matplotlib writes the rows from the bottom and mirrors them; its map of greys may round to the neighbouring level.
    np.testing.assert_allclose(pixels[::-1], colours(255 * picture), atol=1.001)


def test_a_picture_is_saved_as_pdf(tmp_path, rng):
    drawing.save(rng.uniform(size=(9, 13, 1)), tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["a", "a.txt", "png"])
def test_a_picture_with_an_unknown_suffix_is_refused_and_nothing_is_left(tmp_path, name):
    with pytest.raises(UserError, match=r"Expected the suffix of a picture: .*png.*svg"):
        drawing.save(np.zeros((4, 4, 1)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
