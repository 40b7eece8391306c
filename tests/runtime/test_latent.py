"""`kvae.runtime.latent_points` against SciPy: quantiles of the normal, and points of great circles."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import geometric_slerp
from scipy.stats import norm

from kvae.internal.errors import UserError
from kvae.runtime import latent_points

ROOT = Path(__file__).parents[2]
# Results are computed in float64 and rounded once to float32, of relative precision 6e-8. The points below lie within
# 10 of the origin: 1e-6 is above their rounding, and far below any mistake.
ROUNDING = {"rtol": 0, "atol": 1e-6}


def unit(rng, *shape):
    """Uniform points of the unit sphere, `[*shape]`."""
    points = rng.normal(size=shape)
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


# --- lattice


def test_lattice_is_read_like_a_page_with_the_second_coordinate_upward():
    expected = [[-2, 2], [0, 2], [2, 2], [-2, 0], [0, 0], [2, 0], [-2, -2], [0, -2], [2, -2]]
    np.testing.assert_array_equal(latent_points.lattice(3), expected)


def test_lattice_spans_its_extent():
    z = latent_points.lattice(50, extent=3.5)
    assert (z.shape, z.dtype) == ((2500, 2), np.float32)
    assert (z.min(), z.max()) == (-3.5, 3.5)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_lattice_without_extent_is_spaced_by_equal_prior_probability(n):
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    z = latent_points.lattice(n, extent=None).reshape(n, n, 2)
    # Both are rounded to float32 (relative 6e-8); 1e-7 absolute is for the median, which is 0.
    np.testing.assert_allclose(z[0, :, 0], quantiles, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(z[::-1, 0, 1], quantiles, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("n", "extent"), [(0, 2.0), (-1, None), (3, 0.0), (3, -1.0), (3, float("nan")), (3, float("inf"))]
)
def test_an_invalid_lattice_is_refused(n, extent):
    with pytest.raises(UserError, match=r"positive, finite extent|n to be a whole number of at least 1"):
        latent_points.lattice(n, extent)


# --- what lattices are made of


def test_rows_are_all_pairs_row_by_row_from_the_greatest_second_coordinate():
    expected = [[1, 30], [2, 30], [1, 20], [2, 20], [1, 10], [2, 10]]
    found = latent_points.rows(np.array([1, 2]), np.array([10, 20, 30]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("n", "expected"), [(1, [1.0]), (2, [-2.0, 4.0]), (3, [-2.0, 1.0, 4.0]), (4, [-2.0, 0.0, 2.0, 4.0])]
)
def test_spaced_points_reach_both_ends_and_one_alone_is_the_middle(n, expected):
    np.testing.assert_array_equal(latent_points.spaced(-2.0, 4.0, n), expected)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_normal_quantiles_split_the_normal_into_parts_of_equal_mass(n):
    found = latent_points.normal_quantiles(n)
    np.testing.assert_allclose(found, norm.ppf((np.arange(n) + 0.5) / n), rtol=1e-12, atol=1e-15)  # float64


# --- path, straight


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (5, 3), (2, 3, 4)], ids=str)
def test_path_starts_and_ends_at_its_ends(rng, shape, spherical):
    first, last = rng.normal(size=(2, *shape))
    points = latent_points.path(first, last, 4, spherical)
    np.testing.assert_allclose(points[0], first, **ROUNDING)
    np.testing.assert_allclose(points[-1], last, **ROUNDING)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("shape", [(2,), (5, 3), (2, 3, 4)], ids=str)
def test_path_has_its_steps_first(rng, shape, spherical):
    points = latent_points.path(*rng.normal(size=(2, *shape)), 6, spherical)
    assert (points.shape, points.dtype) == ((6, *shape), np.float32)


def test_path_has_ten_steps_by_default():
    assert latent_points.path([0.0], [1.0]).shape == (10, 1)


def test_straight_path_has_equal_steps():
    expected = [[0, 4], [1, 3], [2, 2], [3, 1], [4, 0]]  # exact in float32
    np.testing.assert_array_equal(latent_points.path([0, 4], [4, 0], 5), expected)


def test_straight_path_of_a_batch_is_that_of_each(rng):
    first, last = rng.normal(size=(2, 5, 3))
    one_by_one = [latent_points.path(first[i], last[i], 6) for i in range(5)]
    np.testing.assert_array_equal(latent_points.path(first, last, 6), np.stack(one_by_one, axis=1))


# --- path, spherical


@pytest.mark.parametrize("dimensions", [2, 3, 10])
def test_spherical_path_of_unit_ends_is_that_of_scipy(rng, dimensions):
    first, last = unit(rng, 2, dimensions)
    expected = geometric_slerp(first, last, np.linspace(0, 1, 7))
    np.testing.assert_allclose(latent_points.path(first, last, 7, spherical=True), expected, **ROUNDING)


@pytest.mark.parametrize("angle", [1e-3, 0.1, 1.0, 2.0, 3.0, 3.14])
def test_spherical_path_has_equal_angles(angle):
    points = latent_points.path([2.0, 0.0], [2 * math.cos(angle), 2 * math.sin(angle)], 5, spherical=True)
    found = np.arctan2(points[:, 1], points[:, 0])
    # The float32 coordinates are near 2 and give angles to 1e-7.
    np.testing.assert_allclose(found, np.linspace(0, angle, 5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3, 10])
def test_spherical_path_of_unit_ends_stays_on_the_sphere(rng, dimensions):
    points = latent_points.path(*unit(rng, 2, 50, dimensions), 9, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), 1.0, **ROUNDING)


def test_length_goes_linearly_from_one_end_to_the_other(rng):
    first, last = 2 * unit(rng, 3), 5 * unit(rng, 3)
    lengths = np.linalg.norm(latent_points.path(first, last, 4, spherical=True), axis=-1)
    np.testing.assert_allclose(lengths, [2, 3, 4, 5], **ROUNDING)


def test_direction_does_not_depend_on_the_lengths(rng):
    first, last = unit(rng, 2, 3)
    scaled = latent_points.path(2 * first, 5 * last, 4, spherical=True)
    directions = scaled / np.linalg.norm(scaled, axis=-1, keepdims=True)
    np.testing.assert_allclose(directions, latent_points.path(first, last, 4, spherical=True), **ROUNDING)


def test_spherical_path_of_a_batch_is_that_of_each(rng):
    first, last = rng.normal(size=(2, 5, 3))
    one_by_one = [latent_points.path(first[i], last[i], 6, spherical=True) for i in range(5)]
    np.testing.assert_allclose(
        latent_points.path(first, last, 6, spherical=True), np.stack(one_by_one, axis=1), **ROUNDING
    )


# One coordinate is 0, which opposite ends of float64 keep exactly; ends of one direction have a straight great circle.
WITHOUT_A_CIRCLE = {
    "opposite": ([3.0, 0.0, 4.0], [-3.0, 0.0, -4.0]),
    "opposite, other lengths": ([3.0, 0.0, 4.0], [-6.0, 0.0, -8.0]),
    "first zero": ([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]),
    "last zero": ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]),
    "both zero": ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    "the same": ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
    "one direction": ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]),
    "one dimension": ([1.0], [-2.0]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("first", "last"), WITHOUT_A_CIRCLE.values(), ids=WITHOUT_A_CIRCLE)
def test_ends_without_a_great_circle_get_the_straight_line(first, last):
    np.testing.assert_allclose(
        latent_points.path(first, last, 5, spherical=True), latent_points.path(first, last, 5), **ROUNDING
    )


def test_an_end_without_a_great_circle_leaves_the_rest_of_the_batch_alone(rng):
    first, last = unit(rng, 2, 3, 4)
    first[1] = -last[1]
    points = latent_points.path(first, last, 5, spherical=True)
    for row in (0, 2):
        np.testing.assert_allclose(
            points[:, row], geometric_slerp(first[row], last[row], np.linspace(0, 1, 5)), **ROUNDING
        )


# --- paths that cannot be


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(
    ("first", "last", "received"),
    [([0, 1], [0, 1, 2], r"\(2,\) and \(3,\)"), ([[0, 1]], [0, 1], r"\(1, 2\) and \(2,\)"), (1.0, 2.0, r"\(\) and")],
    ids=["other sizes", "other ranks", "numbers"],
)
def test_ends_of_different_shapes_are_refused(first, last, received, spherical):
    with pytest.raises(UserError, match=rf"two ends of the same shape \[\.\.\., D\]\. Received {received}"):
        latent_points.path(first, last, spherical=spherical)


@pytest.mark.parametrize("steps", [1, 0, -3])
def test_fewer_than_two_steps_are_refused(steps):
    with pytest.raises(UserError, match=rf"at least 2 steps, the two ends\. Received {steps}"):
        latent_points.path([0.0, 0.0], [1.0, 1.0], steps)


# --- what importing costs


def test_importing_latent_imports_no_tensorflow():
    code = "import sys, kvae.runtime.latent_points; print({'tensorflow', 'keras', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"
