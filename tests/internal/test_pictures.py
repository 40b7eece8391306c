"""`kvae.internal.pictures` joins images to one picture, which is compared pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from kvae.internal.errors import UserError
from kvae.internal.pictures import as_images, layout, save_picture, sheet, tile


def flat(*values: float, shape: tuple[int, ...] = (1, 1, 1)) -> np.ndarray:
    """One image of every value."""
    return np.stack([np.full(shape, value, np.float32) for value in values])


# --- save_picture


@pytest.mark.parametrize("picture", [np.zeros((4, 4)), np.zeros((4, 4, 1)), np.zeros((4, 4, 3), np.uint8)])
def test_grey_and_coloured_pictures_are_written(picture, tmp_path):
    save_picture(tmp_path / "a.png", picture)
    assert Image.open(tmp_path / "a.png").size == (4, 4)


@pytest.mark.parametrize("picture", [np.zeros((2, 4, 4, 1)), np.zeros((4, 4, 2)), np.zeros(4), np.full((4, 4), "a")])
def test_what_is_no_picture_is_refused(picture, tmp_path):
    with pytest.raises(UserError, match=r"Expected a picture .* To arrange several images .*sheet\(images\)"):
        save_picture(tmp_path / "a.png", picture)
    assert not list(tmp_path.iterdir())


# --- as_images


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((2, 3, 4), (2, 3, 4, 1)), ((2, 3, 4, 1), (2, 3, 4, 1)), ((2, 3, 4, 3), (2, 3, 4, 3)), ((0, 3, 4), (0, 3, 4, 1))],
)
def test_images_get_a_channel_axis(shape, expected):
    assert as_images(np.zeros(shape)).shape == expected


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 4, 2), (2, 3, 4, 0), (1, 2, 3, 4, 1)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(UserError, match=r"Expected images of shape .*Received"):
        as_images(np.zeros(shape))


# --- tile


def test_images_lie_left_to_right_and_top_to_bottom():
    sheet = tile(flat(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), columns=3)
    np.testing.assert_array_equal(sheet[..., 0], np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], np.float32))


def test_gaps_lie_between_images_and_not_around_them():
    sheet = tile(flat(0.1, 0.2, 0.3, 0.4), columns=2, gap=1, background=0.9)
    expected = [[0.1, 0.9, 0.2], [0.9, 0.9, 0.9], [0.3, 0.9, 0.4]]
    np.testing.assert_array_equal(sheet[..., 0], np.array(expected, np.float32))


def test_places_left_over_in_the_last_row_are_background():
    sheet = tile(flat(0.1, 0.2, 0.3), columns=2, background=0.5)
    np.testing.assert_array_equal(sheet[..., 0], np.array([[0.1, 0.2], [0.3, 0.5]], np.float32))


def test_the_pixels_of_an_image_stay_together():
    images = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    np.testing.assert_array_equal(tile(images, columns=2)[..., 0], [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]])


def test_colours_stay_together():
    images = np.arange(6, dtype=np.float32).reshape(2, 1, 1, 3)
    np.testing.assert_array_equal(tile(images, columns=2), [[[0, 1, 2], [3, 4, 5]]])


@pytest.mark.parametrize(
    ("number", "columns", "gap", "expected"),
    [
        (1, None, 0, (13, 17)),
        (4, None, 0, (26, 34)),
        (5, None, 0, (26, 51)),
        (9, None, 2, (43, 55)),
        (3, 10, 1, (13, 53)),
        (3, 1, 1, (41, 17)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_size_of_a_sheet_of_odd_images(number, columns, gap, expected, channels):
    assert tile(np.zeros((number, 13, 17, channels)), columns, gap=gap).shape == (*expected, channels)


def test_a_sheet_of_fifty_by_fifty_digits_has_1400_by_1400_pixels():
    assert tile(np.zeros((2500, 28, 28), np.float32), 50).shape == (1400, 1400, 1)


@pytest.mark.parametrize(
    ("shape", "columns", "message"),
    [
        ((0, 4, 4), None, "at least one image"),
        ((2, 4, 4), 0, "at least 1 column"),
        ((2, 4, 4), -1, "at least 1 column"),
        ((4, 4), 1, "images of shape"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(shape, columns, message):
    with pytest.raises(UserError, match=message):
        tile(np.zeros(shape), columns)


# --- sheet


@pytest.mark.parametrize(
    ("count", "height", "width", "columns", "enlargement"),
    [
        (1, 28, 28, 1, 4),
        (5, 28, 28, 5, 4),
        (10, 28, 28, 5, 4),
        (11, 28, 28, 4, 4),
        (64, 28, 28, 8, 4),
        (100, 28, 28, 10, 4),
        (101, 28, 28, 11, 3),
        (400, 28, 28, 20, 2),
        (2500, 28, 28, 50, 1),
        (10, 24, 32, 5, 4),
        (10, 64, 48, 5, 2),
        (10, 200, 200, 5, 1),
        (10, 8, 8, 5, 16),
        (3, 1, 1, 3, 128),
    ],
)
def test_small_images_are_enlarged_by_a_whole_number_and_large_ones_are_not(count, height, width, columns, enlargement):
    assert layout(count, height, width) == (columns, enlargement)


def test_a_sheet_is_the_images_with_white_gaps_enlarged():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1) * 40
    rows = [[0, 255, 40, 255, 80, 255, 120, 255, 160], [255] * 9, [200, *[255] * 8]]
    enlarged = np.array(rows, np.uint8).repeat(128, axis=0).repeat(128, axis=1)
    np.testing.assert_array_equal(sheet(images)[..., 0], enlarged)


def test_a_sheet_rounds_values_as_a_saved_picture_does(tmp_path):
    values = np.linspace(-0.1, 1.1, 200, dtype=np.float32).reshape(1, 10, 20)
    save_picture(tmp_path / "a.png", values[0])
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(sheet(values)[::6, ::6, 0], np.asarray(image))


@pytest.mark.parametrize(("shape", "message"), [((0, 4, 4), "at least one image"), ((4, 4), "images of shape")])
def test_a_sheet_of_nothing_is_refused(shape, message):
    with pytest.raises(UserError, match=message):
        sheet(np.zeros(shape))


# --- save_picture


@pytest.mark.parametrize("shape", [(13, 17, 1), (13, 17, 3), (1, 1, 1), (1, 1, 3)])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".PNG"])
def test_a_picture_is_saved_pixel_for_pixel(tmp_path, rng, shape, suffix):
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    save_picture(tmp_path / f"a{suffix}", pixels / np.float32(255))
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.mode == {1: "L", 3: "RGB"}[shape[-1]]
        np.testing.assert_array_equal(np.asarray(image).reshape(shape), pixels)


def test_values_are_rounded_and_clipped(tmp_path):
    values = np.array([[-0.5, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 1.5]])[..., None]
    save_picture(tmp_path / "a.png", values)
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image).tolist() == [[0, 0, 0, 1, 255, 255, 255]]


@pytest.mark.parametrize("name", ["a", "a.", "a.txt", "a.foo", "a.psd"])
def test_an_unknown_suffix_is_refused_and_nothing_is_left(tmp_path, name):
    with pytest.raises(UserError, match=r"the name of a picture that ends with \.png, "):
        save_picture(tmp_path / name, np.zeros((4, 4, 1)))
    assert list(tmp_path.iterdir()) == []


def test_a_picture_at_an_invalid_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"Could not write .*a\.png"):
        save_picture(tmp_path / "file" / "a.png", np.zeros((4, 4, 1)))
