"""The principal axes of a scatter of more than two latent dimensions."""

import numpy as np
import pytest

from kvae.internal.errors import UserError
from kvae.plotting.drawing import principal_components


def points(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Points whose variance differs in all directions, `[count, dimensions]` float32."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions)) + 5).astype(np.float32)


@pytest.mark.parametrize(("count", "dimensions"), [(500, 3), (40, 50), (3, 4), (2, 3)])
def test_the_coordinates_are_those_of_the_singular_value_decomposition(count, dimensions):
    x = points(count, dimensions)
    found, fractions = principal_components(x)
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    # The second axis of 2 points is arbitrary, and all are 0 on it. The covariance has half of the digits of float64.
    np.testing.assert_allclose(np.abs(found), np.abs(centred @ axes[:2].T), rtol=0, atol=1e-6)
    np.testing.assert_allclose(fractions, (singular**2 / (singular**2).sum())[:2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dimensions", [3, 10])
def test_the_largest_entry_of_each_axis_is_positive(seed, dimensions):
    x = points(200, dimensions, seed)
    found, _ = principal_components(x)
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    axes = np.linalg.lstsq(centred, found, rcond=None)[0]
    assert (axes[np.abs(axes).argmax(axis=0), [0, 1]] > 0).all()


def test_the_signs_are_those_that_scikit_learn_drew():
    # PCA(n_components=2).fit_transform of scikit-learn 1.9.1 for the same points
    expected = [[-3.1022, -6.0325], [0.0274, 2.6739], [0.5396, -1.585]]
    np.testing.assert_allclose(
        principal_components(points(200, 5, 3))[0][:3], expected, rtol=0, atol=1e-4
    )  # 4 decimals


def test_the_order_of_the_points_does_not_matter():
    x = points(300, 6)
    order = np.random.default_rng(1).permutation(300)
    np.testing.assert_allclose(principal_components(x[order])[0], principal_components(x)[0][order], atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_are_not_finite_are_refused(value):
    x = points(10, 4)
    x[3, 2] = value
    with pytest.raises(UserError, match="Expected finite posterior means"):
        principal_components(x)
