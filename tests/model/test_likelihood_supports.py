"""Which pixels a likelihood accepts, refuses or warns of, and how its images become bytes."""

import math
import warnings

import numpy as np
import pytest
from likelihood_cases import IMAGE, LIKELIHOODS, Counts, Laplace, Positive, Spread, each

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model import likelihoods

# What pixels may be


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    ("make", "binary"),
    [
        *((make, name == "bernoulli") for name, make in LIKELIHOODS.items()),
        *((make, False) for make in (Laplace, Counts, Spread, Positive)),
    ],
    ids=[*LIKELIHOODS, "Laplace", "Counts", "Spread", "Positive"],
)
def test_only_the_support_of_zero_and_one_is_binary(make, binary):
    assert make().binary is binary


@each
@pytest.mark.parametrize("wrong", [-0.01, 1.01, 255.0, math.nan, math.inf, -math.inf])
def test_pixels_outside_of_the_unit_interval_are_refused(make, wrong):
    x = np.float32([0.0, 1.0, wrong])
    received = f"Received values from {x.min()} to {x.max()}."
    with pytest.raises(UserError) as refusal:
        make().check_pixels(x)
    hint = "Divide uint8 images by 255, or load them with kvae.data.load."
    assert str(refusal.value) == f"Expected pixels in [0, 1]. {received} {hint}"


@each
def test_bytes_are_refused_where_pixels_lie_in_the_unit_interval(make):
    with pytest.raises(UserError, match=r"Expected pixels in \[0, 1\]. Received values from 0 to 255. Divide uint8"):
        make().check_pixels(np.array([0, 255], np.uint8))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.float64])
@pytest.mark.usefixtures("no_warnings")
def test_binary_pixels_of_any_type_are_accepted(dtype):
    likelihoods.Bernoulli().check_pixels(np.array([[0, 1], [1, 0]], dtype))


@pytest.mark.parametrize(
    ("nothing", "received"),
    [
        (np.zeros((0, 2, 2, 1), np.float32), r"float32 of shape \(0, 2, 2, 1\)"),
        (np.array(["0"]), r"<U1 of shape \(1,\)"),
        (np.array([None]), r"object of shape \(1,\)"),
        (np.array([1j]), r"complex128 of shape \(1,\)"),
    ],
)
def test_data_without_numbers_are_refused(nothing, received):
    with pytest.raises(UserError, match=f"Expected an array of at least one image. Received {received}"):
        likelihoods.Bernoulli().check_pixels(nothing)


@pytest.mark.usefixtures("no_warnings")
def test_a_support_without_ends_takes_every_number():
    Laplace().check_pixels(np.array([-1e300, -0.5, 0.0, 255.0, 1e300]))


@pytest.mark.parametrize("make", [Laplace, Counts, Spread, Positive])
def test_nan_is_outside_of_every_support(make):
    with pytest.raises(UserError, match=r"Expected pixels in .* Received values from nan to nan"):
        make().check_pixels(np.float32([0.0, math.nan]))


@pytest.mark.parametrize(
    ("make", "wrong", "support"),
    [
        (Counts, 256, "[0, 255]"),
        (Counts, -1, "[0, 255]"),
        (Counts, 255.5, "[0, 255]"),
        (Spread, 1.5, "[-1, 1]"),
        (Spread, -1.5, "[-1, 1]"),
        (Positive, -1e-3, "[0, inf]"),
    ],
)
def test_pixels_outside_of_the_support_of_a_users_likelihood_are_refused(make, wrong, support):
    x = np.array([0, wrong])
    with pytest.raises(UserError) as refusal:
        make().check_pixels(x)
    # Without the advice to divide by 255, which would be wrong here.
    assert str(refusal.value) == f"Expected pixels in {support}. Received values from {x.min()} to {x.max()}."


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.usefixtures("no_warnings")
def test_whole_numbers_are_accepted_where_only_they_have_a_density(dtype):
    Counts().check_pixels(np.array([0, 3, 254, 255], dtype))


def test_pixels_between_whole_numbers_are_warned_of_where_these_alone_have_a_density():
    with pytest.warns(UserWarning, match="whole numbers as pixels: only these have a density under Counts"):
        Counts().check_pixels(np.float32([0.0, 0.5, 255.0]))


def test_grey_pixels_under_a_bernoulli_likelihood_are_warned_of():
    with pytest.warns(UserWarning, match="no bound on log p"):
        likelihoods.Bernoulli().check_pixels(np.float32([0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    "make", [likelihoods.ContinuousBernoulli, likelihoods.Gaussian, likelihoods.SquaredError, Laplace, Spread, Positive]
)
@pytest.mark.usefixtures("no_warnings")
def test_grey_pixels_under_another_likelihood_are_not_warned_of(make):
    make().check_pixels(np.float32([0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("make", "text"), [(likelihoods.Bernoulli, "no bound on log p"), (Counts, "only these have a density under Counts")]
)
def test_a_dataset_that_is_known_to_be_grey_can_be_warned_of_without_its_pixels(make, text):
    with pytest.warns(UserWarning, match=text):
        make().warn_of_grey()


@pytest.mark.parametrize(
    "warn",
    [
        lambda level: likelihoods.Bernoulli().warn_of_grey(level),
        lambda level: likelihoods.Bernoulli().check_pixels(np.float32([0.5]), level),
    ],
    ids=["warn_of_grey", "check_pixels"],
)
def test_the_warning_points_at_the_line_that_the_stack_level_names(warn):
    def caller(level):
        warn(level)

    lines = []
    for level in (1, 2):
        with pytest.warns(UserWarning, match="Grey pixels") as record:
            caller(level)
        lines += [(warning.filename, warning.lineno) for warning in record]
    assert lines == [(__file__, warn.__code__.co_firstlineno), (__file__, caller.__code__.co_firstlineno + 1)]


# Images as bytes


SPREAD_OVER = {  # the pixel that byte b stands for
    likelihoods.Bernoulli: lambda b: b / 255,
    likelihoods.Gaussian: lambda b: b / 255,
    Laplace: lambda b: b / 255,  # no ends, so pictures show [0, 1]
    Positive: lambda b: b / 255,  # no upper end
    Counts: lambda b: b,
    Spread: lambda b: b / 127.5 - 1,
}


every_support = pytest.mark.parametrize(("make", "pixel"), SPREAD_OVER.items(), ids=lambda part: part.__name__)


@every_support
@pytest.mark.parametrize("off", [0.0, -0.4, 0.4])
def test_the_nearest_byte_is_that_of_a_pixel(make, pixel, off):
    # At +-0.4 float32 is far from the next half.
    found = make().as_bytes(tf.constant(pixel(np.arange(256) + off), tf.float32))
    assert found.dtype == tf.uint8
    assert np.array_equal(found, np.arange(256))


@every_support
def test_what_lies_beyond_is_the_first_or_the_last_byte(make, pixel):
    x = tf.constant(pixel(np.array([-1e6, -1.0, 256.0, 1e6])), tf.float32)
    assert np.array_equal(make().as_bytes(x), [0, 0, 255, 255])


@every_support
def test_bytes_keep_the_shape_of_images(make, pixel):
    assert make().as_bytes(tf.fill((5, *IMAGE), np.float32(pixel(7.0)))).shape == (5, *IMAGE)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_pixels_are_outside_of_a_support_without_ends(value):
    class Anything(likelihoods.Likelihood):
        support = (-math.inf, math.inf, False)

    with pytest.raises(UserError, match="Received values from"):
        Anything().check_pixels(np.float32([0.0, value]))
