"""What `completion.infer` says of its own convergence, and what completes an image where it diverged."""

import math

import numpy as np
import pytest
from completion_cases import SHORT, TOP, assert_within_standard_errors

from kvae import completion
from kvae.model.posteriors import Gaussian


def test_default_inference_converges(inferred):
    assert inferred.converged.all()


def test_estimated_gain_is_the_distance_of_the_loss_from_its_optimum(linear):
    mean, precision = linear.posteriors()
    deviation = 1 / np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    # Half a standard deviation beside a Gaussian posterior, and as wide as it is: each dimension lacks 1/2 (1/2)^2.
    start = mean + 0.5 * deviation, np.log(deviation)
    options = {"learning_rate": 1e-9, "optimizer": "gradient_descent", "steps": 1}
    found = completion.infer(linear.vae, linear.x, linear.observed, start=start, **options)
    # 64 draws leave some noise in the gradient of log sigma, whose square adds a little.
    np.testing.assert_allclose(found.predicted_decrease, 3 * 0.125, rtol=0.05)


def test_an_inference_that_hardly_moved_has_not_converged(vae, x):
    # Some images start at the optimum, others far out; the steps are too short for either to move.
    best = completion.infer(vae, x, TOP)
    mean = np.where(np.arange(6)[:, None] < 3, best.mean, [9.0, -9.0])
    options = {"start": (mean, best.q.log_var / 2), "learning_rate": 1e-6, "optimizer": "gradient_descent"}
    assert completion.infer(vae, x, TOP, **options, **SHORT).converged.tolist() == [True] * 3 + [False] * 3


def test_losses_that_are_not_finite_have_not_converged(vae, x):
    found = completion.infer(vae, x, TOP, learning_rate=1e6, optimizer="gradient_descent", **SHORT)
    assert not np.isfinite(found.losses[:, -1]).any()
    assert not found.converged.any()


@pytest.mark.filterwarnings("error")
def test_where_the_inference_diverged_the_prior_completes(vae, x):
    found = completion.infer(vae, x, TOP, learning_rate=1e6, optimizer="gradient_descent", **SHORT)
    completed = completion.complete(vae, x, TOP, inferred=found, samples=4000)
    exact = completion.quadrature_score(vae, x, TOP).log_value
    assert np.isfinite(completed.means).all()
    assert_within_standard_errors(completed.score.log_density, exact, completed.score.standard_error)


def test_where_one_inference_diverged_the_prior_completes_that_image_alone(vae, x, plane, inferred):
    mean, log_var = (part.copy() for part in inferred.q)
    mean[1], log_var[4, 0] = math.nan, math.inf
    found = completion.complete(vae, x, TOP, inferred=inferred._replace(q=Gaussian(mean, log_var)))
    sound = completion.complete(vae, x, TOP, inferred=inferred)
    others = np.isin(np.arange(6), [1, 4], invert=True)
    assert np.array_equal(found.means[others], sound.means[others])
    assert np.array_equal(found.draws[:, others], sound.draws[:, others])
    assert np.array_equal(found.score.log_density[others], sound.score.log_density[others])
    expected = plane.log_evidence() - plane.log_evidence(TOP.ravel())
    assert_within_standard_errors(found.score.log_density, expected, found.score.standard_error)
