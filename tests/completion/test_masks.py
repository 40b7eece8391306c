"""`kvae.completion.masks`: which pixels each name observes, and which masks are refused."""

import math

import numpy as np
import pytest
from PIL import Image

from kvae.completion import masks
from kvae.internal import picture_files
from kvae.internal.errors import UserError


def drawn(*rows):
    """A mask `[H, W, 1]` from rows of `#` (observed) and `.` (missing)."""
    return np.array([[character == "#" for character in row] for row in rows])[..., None]


def picture(path, pixels, mode=None):
    """Writes `pixels` `[H, W]` or `[H, W, 3]`, 0..255, and returns the path as text."""
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return str(path)


# --- names of regions

REGIONS = {
    ("top", (4, 4, 1)): ("####", "####", "....", "...."),
    ("bottom", (4, 4, 1)): ("....", "....", "####", "####"),
    ("left", (4, 4, 1)): ("##..", "##..", "##..", "##.."),
    ("right", (4, 4, 1)): ("..##", "..##", "..##", "..##"),
    ("top", (5, 3, 1)): ("###", "###", "...", "...", "..."),
    ("bottom", (5, 3, 1)): ("...", "...", "...", "###", "###"),
    ("left", (3, 5, 1)): ("##...", "##...", "##..."),
    ("right", (3, 5, 1)): ("...##", "...##", "...##"),
    ("top", (2, 1, 1)): ("#", "."),
    ("right", (1, 2, 1)): (".#",),
}


@pytest.mark.parametrize(("name", "shape", "rows"), [(*key, rows) for key, rows in REGIONS.items()], ids=str)
def test_region_is_a_half_rounded_down(name, shape, rows):
    assert np.array_equal(masks.named(name, shape), drawn(*rows))


@pytest.mark.parametrize("name", ["top", "bottom", "left", "right", "random", "random:0.3"])
def test_mask_is_boolean_with_one_channel_for_colour_images_too(name):
    mask = masks.named(name, (6, 5, 3))
    assert (mask.shape, mask.dtype) == ((6, 5, 1), bool)


@pytest.mark.parametrize("name", masks.REGIONS)
def test_every_region_that_is_listed_is_known(name):
    assert 0 < masks.named(name, (9, 7, 1)).mean() < 1


# --- random


@pytest.mark.parametrize(("name", "fraction"), [("random", 0.5), ("random:0.1", 0.1), ("random:.75", 0.75)])
def test_random_mask_observes_about_its_fraction(name, fraction):
    share = masks.named(name, (100, 100, 1)).mean()
    # Four standard deviations of the share of 10,000 independent pixels; the seed is fixed.
    assert share == pytest.approx(fraction, abs=4 * math.sqrt(fraction * (1 - fraction) / 10_000))


def test_random_pixels_are_independent_of_their_neighbours():
    mask = masks.named("random", (100, 100, 1))[..., 0]
    for equal in (mask[1:] == mask[:-1], mask[:, 1:] == mask[:, :-1]):
        # 9,900 pairs, equal with probability 1/2: four standard deviations of their share.
        assert equal.mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(9900))


def test_random_mask_depends_on_the_seed_alone():
    first, again = (masks.named("random", (8, 8, 1), seed=3) for _ in range(2))
    assert np.array_equal(first, again)


def test_another_seed_gives_another_random_mask():
    assert not np.array_equal(*(masks.named("random", (8, 8, 1), seed=seed) for seed in (3, 4)))


def test_more_pixels_are_observed_at_a_larger_fraction_of_one_seed():
    few, many = (masks.named(f"random:{fraction}", (20, 20, 1)) for fraction in (0.2, 0.6))
    assert (many | ~few).all()


@pytest.mark.parametrize("fraction", ["", "0", "1", "1.5", "-0.1", "nan", "inf", "half", "0.5:0.5"])
def test_an_invalid_fraction_is_refused(fraction):
    with pytest.raises(UserError, match=rf"random:FRACTION .*between 0 and 1\. Received '{fraction}'"):
        masks.named(f"random:{fraction}", (4, 4, 1))


@pytest.mark.parametrize("seed", [-1, 0.5, 2**31])
def test_an_invalid_mask_seed_is_refused(seed):
    with pytest.raises(UserError, match="Expected seed to be a whole number"):
        masks.named("random", (4, 4, 1), seed=seed)


# --- pictures


def test_picture_is_white_where_observed(tmp_path):
    path = picture(tmp_path / "mask.png", [[255, 0, 255], [0, 0, 255]])
    assert np.array_equal(masks.named(path, (2, 3, 1)), drawn("#.#", "..#"))


def test_grey_of_a_picture_is_split_at_the_middle(tmp_path):
    path = picture(tmp_path / "mask.png", [[0, 1, 127, 128, 254, 255]])
    assert np.array_equal(masks.named(path, (1, 6, 1)), drawn("...###"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_picture_may_have_any_mode(tmp_path, mode):
    path = picture(tmp_path / "mask.png", [[255, 0, 255], [0, 0, 255]], mode)
    assert np.array_equal(masks.named(path, (2, 3, 1)), drawn("#.#", "..#"))


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "PNG"])
def test_picture_may_have_any_lossless_format(tmp_path, suffix):
    path = picture(tmp_path / f"mask.{suffix}", [[255, 0, 255], [0, 0, 255]])
    assert np.array_equal(masks.named(path, (2, 3, 1)), drawn("#.#", "..#"))


def test_one_picture_masks_all_channels(tmp_path):
    path = picture(tmp_path / "mask.png", [[255, 0, 255], [0, 0, 255]])
    assert masks.named(path, (2, 3, 3)).shape == (2, 3, 1)


@pytest.mark.parametrize("shape", [(3, 2, 1), (4, 6, 1), (2, 3, 3)], ids=str)
def test_a_picture_of_another_size_is_refused(tmp_path, shape):
    path = picture(tmp_path / "mask.png", np.zeros((5, 7)))
    with pytest.raises(UserError, match=rf"mask of {shape[0]} x {shape[1]} pixels\. .*mask\.png has 5 x 7"):
        masks.named(path, shape)


def test_a_picture_of_16_bits_is_split_at_its_middle(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 300], [32767, 32768], [40000, 65535]], np.uint16)).save(path)
    assert np.array_equal(masks.named(str(path), (3, 2, 1)), drawn("..", ".#", "##"))


def test_a_picture_with_too_many_pixels_is_refused(tmp_path, monkeypatch):
    path = picture(tmp_path / "mask.png", np.full((10, 10), 255))
    monkeypatch.setattr(picture_files, "PIXELS", 99)
    with pytest.raises(UserError, match=r"at most 99 pixels\. .*mask\.png has 10 x 10"):
        masks.named(path, (10, 10, 1))


@pytest.mark.parametrize("name", ["top:0.3", "left:", "right:1"])
def test_only_random_takes_a_fraction(name):
    with pytest.raises(UserError, match=f"only random takes one. Received '{name}'"):
        masks.named(name, (4, 4, 1))


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "mask.png").write_text("white, black, white")
    with pytest.raises(UserError, match=r"white pixels are observed\. Could not read .*mask\.png"):
        masks.named(str(tmp_path / "mask.png"), (2, 3, 1))


def test_a_picture_that_ends_early_is_refused(tmp_path, rng):
    path = picture(tmp_path / "mask.png", rng.integers(0, 256, (40, 40)))
    whole = (tmp_path / "mask.png").read_bytes()
    (tmp_path / "mask.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"Could not read .*mask\.png"):
        masks.named(path, (40, 40, 1))


def test_a_picture_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Could not read .*absent\.png"):
        masks.named(str(tmp_path / "absent.png"), (2, 3, 1))


# --- names that are none


@pytest.mark.parametrize(
    ("name", "near"), [("tops", "top"), ("botom", "bottom"), ("rigth", "right"), ("rand", "random")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name, near):
    with pytest.raises(UserError, match=f"Unknown mask '{name}'. Did you mean '{near}'"):
        masks.named(name, (4, 4, 1))


def test_an_unknown_name_is_refused_with_the_list_of_names():
    with pytest.raises(UserError, match=r"FILE\.png, bottom, left, random, right, top"):
        masks.named("xyz", (4, 4, 1))


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4, 1)], ids=str)
def test_named_masks_need_images_of_height_width_and_channels(shape):
    with pytest.raises(UserError, match=r"images \[H, W, C\] for the mask 'top'"):
        masks.named("top", shape)


# --- check


HALF = drawn("##", "..", "..")  # of images of 3 x 2 pixels
COLOUR = np.concatenate([HALF, ~HALF, HALF], axis=-1)  # each channel has another observed half
EACH = np.stack([HALF, ~HALF, HALF, ~HALF])  # each image has another observed half

SHAPES = {
    "[H, W]": (HALF[..., 0], np.broadcast_to(HALF, (4, 3, 2, 3))),
    "[H, W, 1]": (HALF, np.broadcast_to(HALF, (4, 3, 2, 3))),
    "[H, W, C]": (COLOUR, np.broadcast_to(COLOUR, (4, 3, 2, 3))),
    "[1, H, W, C]": (COLOUR[None], np.broadcast_to(COLOUR, (4, 3, 2, 3))),
    "[B, H, W]": (EACH[..., 0], np.broadcast_to(EACH, (4, 3, 2, 3))),
    "[B, H, W, 1]": (EACH, np.broadcast_to(EACH, (4, 3, 2, 3))),
    "[B, H, W, C]": (np.repeat(EACH, 3, axis=-1), np.broadcast_to(EACH, (4, 3, 2, 3))),
}


@pytest.mark.parametrize(("observed", "expected"), SHAPES.values(), ids=SHAPES)
def test_mask_is_broadcast_to_every_image(observed, expected):
    assert np.array_equal(masks.check(observed, (4, 3, 2, 3)), expected)


def test_square_mask_of_two_axes_has_rows_first():
    observed = np.array([[True, True], [False, False]])
    assert np.array_equal(masks.check(observed, (2, 2, 2, 1))[1, ..., 0], observed)


def test_one_mask_of_flat_images_is_broadcast():
    assert np.array_equal(masks.check([True, False, True], (2, 3)), [[True, False, True]] * 2)


def test_flat_images_may_have_a_mask_each():
    observed = np.array([[True, False, True], [False, False, True]])
    assert np.array_equal(masks.check(observed, (2, 3)), observed)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_zeros_and_ones_of_any_type_are_a_mask(dtype):
    mask = masks.check(HALF.astype(dtype), (4, 3, 2, 1))
    assert mask.dtype == bool
    assert np.array_equal(mask[0], HALF)


def test_lists_are_a_mask():
    assert np.array_equal(masks.check([[1, 1], [0, 0], [0, 0]], (4, 3, 2, 1))[0], HALF)


@pytest.mark.parametrize(
    "observed",
    [
        HALF * 255,
        HALF * 2 - 1,
        np.where(HALF, 0.5, 0.0),
        np.where(HALF, math.nan, 0.0),
        HALF.astype(complex),
        HALF.astype(str),
        HALF.astype(object),
    ],
    ids=["0 and 255", "-1 and 1", "0.5", "NaN", "complex", "text", "objects"],
)
def test_other_values_are_refused(observed):
    with pytest.raises(UserError, match="mask of booleans, True where a pixel is observed"):
        masks.check(observed, (4, 3, 2, 1))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (3, 2, 2), (5, 3, 2, 1), (3, 3, 2, 1), (1, 4, 3, 2, 1)], ids=str)
def test_a_mask_of_another_shape_is_refused_with_both_shapes(shape):
    received = ", ".join(map(str, shape))
    expected = r"mask of shape \(3, 2, 1\) or \(4, 3, 2, 1\)\. "
    with pytest.raises(UserError, match=rf"{expected}Received \({received}\)"):
        masks.check(np.ones(shape, bool), (4, 3, 2, 1))


def test_a_mask_of_as_many_rows_as_there_are_flat_images_is_one_mask_each():
    # [3, 4] for images [3, 3, 4] without channels fits as one mask for all, not as rows of a channel.
    observed = np.arange(12).reshape(3, 4) % 2 == 0
    found = masks.check(observed, (3, 3, 4))
    assert all(np.array_equal(mask, observed) for mask in found)


def test_no_image_is_refused():
    with pytest.raises(UserError, match="at least one image to mask"):
        masks.check(HALF, (0, 3, 2, 1))


@pytest.mark.parametrize(("value", "what"), [(False, "nothing"), (True, "everything")])
def test_nothing_or_everything_is_refused(value, what):
    with pytest.raises(UserError, match=f"In image 0, {what} is observed"):
        masks.check(np.full((3, 2, 1), value), (4, 3, 2, 1))


@pytest.mark.parametrize(("value", "what"), [(False, "nothing"), (True, "everything")])
def test_the_first_image_of_which_nothing_or_everything_is_observed_is_named(value, what):
    observed = EACH.copy()
    observed[2:] = value
    with pytest.raises(UserError, match=f"In image 2, {what} is observed"):
        masks.check(observed, (4, 3, 2, 1))


def test_one_observed_pixel_of_one_channel_is_enough():
    observed = np.zeros((3, 2, 3), bool)
    observed[1, 1, 2] = True
    assert masks.check(observed, (4, 3, 2, 3)).sum() == 4


def test_one_missing_pixel_of_one_channel_is_enough():
    observed = np.ones((3, 2, 3), bool)
    observed[1, 1, 2] = False
    assert (~masks.check(observed, (4, 3, 2, 3))).sum() == 4
