"""Evaluations of a model that was trained on digits, against grids over its two latent dimensions.

Its posteriors have several modes, are curved, and lie where the encoder did not expect them: what the linear models of
the other tests do not have.
"""

import inspect
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
from oracles import mlp
from scipy import special, stats

from kvae import VAE, evaluation
from kvae.evaluation import annealed, defensive_estimate, evidence
from kvae.internal.tensorflow import tf

pytestmark = pytest.mark.slow

IMAGES = 16


@pytest.fixture(scope="module")
def trained():
    """The model and 16 test images, `[16, 28, 28, 1]`."""
    from kvae import data

    digits = data.load("mnist5k")
    vae = VAE(2, hidden_units=[100], seed=0)
    vae.compile(keras.optimizers.Adam(1e-3))
    vae.fit(digits.train, epochs=15, verbose=0)
    return vae, digits.images_at("test", np.arange(IMAGES))


@pytest.fixture(scope="module")
def exact(trained):
    """log p(x) by quadrature, `[16]`."""
    return evaluation.quadrature(*trained).quadrature.per_example


class Grid:
    """log p(x, z) at the points of a grid over [-6, 6]^2, by NumPy: `[G, B]` float64."""

    def __init__(self, vae, x, points=301):
        side = np.linspace(-6.0, 6.0, points)
        self.z = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        self.log_area = 2 * math.log(side[1] - side[0])
        flat, log_prior = np.float64(x).reshape(len(x), -1), stats.norm.logpdf(self.z).sum(axis=-1)
        chunks = [mlp(vae)(z) for z in np.array_split(self.z, 20)]
        pixels = [logits @ flat.T - np.logaddexp(0, logits).sum(axis=-1, keepdims=True) for logits in chunks]
        self.log_joint = np.concatenate(pixels) + log_prior[:, None]
        self.log_evidence = special.logsumexp(self.log_joint, axis=0) + self.log_area

    def expectation(self, log_density, values):
        """The sum of density times value over the area, `[G, B]`, `[G, B]` -> `[B]`."""
        return (np.exp(log_density + self.log_area) * values).sum(axis=0)

    def log_gaussian(self, mean, deviation):
        """The density of a Gaussian `[B, 2]` at the points, `[G, B]`."""
        return stats.norm.logpdf(self.z[:, None], mean, deviation).sum(axis=-1)


@pytest.fixture(scope="module")
def grid(trained):
    return Grid(*trained)


@pytest.fixture(scope="module")
def log_q(trained, grid):
    """log q(z|x) at the points of the grid, `[G, 16]`."""
    vae, x = trained
    q = vae.encode(tf.constant(x))
    return grid.log_gaussian(q.mean.numpy(), np.exp(q.log_var.numpy() / 2))


def within(found, exact, monte_carlo_error, errors=4):
    """Whether the mean is that of the exact values, within some of its stated errors and of those of the quadrature."""
    difference = found.mean - exact.mean()
    assert -errors * monte_carlo_error - 1e-3 < difference < errors * monte_carlo_error + 1e-3


def test_quadrature_is_the_sum_over_a_wide_and_fine_grid(grid, exact):
    np.testing.assert_allclose(exact, grid.log_evidence, rtol=0, atol=5e-3)


def test_defensive_agrees_within_its_error_and_flags_what_is_off(trained, exact):
    found = evaluation.defensive(*trained)
    within(found.defensive, exact, found.defensive_monte_carlo_error)
    off = np.abs(found.defensive.per_example - exact) > 0.5
    flagged = defensive_estimate.is_unreliable(
        found.defensive_effective_samples.per_example, found.pareto_k.per_example, 1000
    )
    assert not (off & ~flagged).any()
    assert flagged.mean() < 0.3


def test_annealing_agrees_within_its_error(trained, exact):
    found = evaluation.ais(*trained, temperatures=300)
    within(found.ais, exact, found.ais_monte_carlo_error)
    assert 0.3 < found.ais_acceptance.mean < 0.95


def test_both_sides_of_annealing_enclose_quadrature(trained):
    vae, x = trained
    found = evaluation.bdmc(vae, x, images=12, temperatures=300, seed=0)
    given = annealed.Images(tf.constant(x[:12]), None, tf.range(12), tf.constant(0))
    _, simulated = annealed._simulate(vae, given)
    known = evidence.log_evidence(vae, simulated.x.numpy()).log_value
    below, above = known - found.bdmc_lower.per_example, found.bdmc_upper.per_example - known
    assert below.mean() > -4 * stats.sem(below)
    assert above.mean() > -4 * stats.sem(above)
    assert max(np.abs(below).max(), np.abs(above).max()) < 2
    assert found.bdmc_gap.mean < 0.5


def test_the_bounds_rise_towards_log_p_and_never_pass_it(trained, exact):
    found = evaluation.bounds(*trained, sample_sizes=[1, 5, 50, 2000])
    means = [bound.mean for bound in found.bounds]
    assert evaluation.elbo(*trained, draws=256).elbo.mean < means[1]
    assert means == sorted(means)
    assert means[-1] < exact.mean() + 4 * found.bounds_monte_carlo_error


def test_the_gaps_are_the_divergences_from_the_exact_posterior(trained, grid, log_q):
    vae, x = trained
    found = evaluation.gaps(vae, x, draws=2048)
    log_posterior = grid.log_joint - grid.log_evidence
    of_encoder = found.approximation_gap.per_example + found.amortization_gap.per_example
    divergence = grid.expectation(log_q, log_q - log_posterior)  # KL(q(z|x) || p(z|x))
    assert of_encoder.mean() == pytest.approx(divergence.mean(), rel=0.05, abs=0.1)
    assert (found.approximation_gap.per_example > -0.2).all()  # no q is better than the posterior
    assert found.amortization_gap.mean > 0
    # The best q is at least as good as a q that was found in another way: with the moments of the largest mode.
    best = grid.z[grid.log_joint.argmax(axis=0)]
    near = np.square(grid.z[:, None] - best).sum(axis=-1) < 0.5**2
    weights = np.where(near, np.exp(log_posterior), 0)
    weights /= weights.sum(axis=0)
    mean = weights.T @ grid.z
    deviation = np.sqrt(weights.T @ np.square(grid.z) - np.square(mean))
    log_moments = grid.log_gaussian(mean, deviation)
    of_moments = grid.expectation(log_moments, log_moments - log_posterior)
    assert (found.approximation_gap.per_example < of_moments + 0.2).all()


def test_mutual_information_is_that_of_the_grid(trained, grid, log_q):
    vae, x = trained
    log_aggregate = special.logsumexp(log_q, axis=1, keepdims=True) - math.log(len(x))
    exact = grid.expectation(log_q, log_q - log_aggregate).mean()
    marginal = grid.expectation(log_q, log_aggregate - stats.norm.logpdf(grid.z).sum(axis=-1)[:, None]).mean()
    found = evaluation.information(vae, x, samples=1000)
    assert found.mutual_information.mean == pytest.approx(exact, abs=0.03)
    assert found.marginal_kl.mean == pytest.approx(marginal, abs=0.05)
    assert exact < math.log(len(x))


def test_a_permutation_permutes_what_has_no_random_numbers(trained, exact, rng):
    vae, x = trained
    order = rng.permutation(len(x))
    permuted = evaluation.quadrature(vae, x[order]).quadrature.per_example
    np.testing.assert_allclose(permuted, exact[order], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["elbo", "log_likelihood", "defensive"])
def test_a_permutation_changes_the_others_by_their_errors(trained, name, rng):
    """The random numbers of an image depend on its index."""
    vae, x = trained
    order = rng.permutation(len(x))
    before, after = (evaluation.evaluate(vae, each, only=[name])[name] for each in (x, x[order]))
    assert before == pytest.approx(after, abs=1.5 if name == "elbo" else 0.3)
    assert before != after


def numbers(vae, x):
    """The values of every image, by the name of the estimate."""
    found = {}
    for name in ("elbo", "bounds", "defensive", "quadrature"):
        options = {"sample_sizes": (1, 50)} if name == "bounds" else {}
        for key, value in evaluation.results_of(name, vae, x, **options).items():
            if isinstance(value, evaluation.Estimate):
                found[key] = value.per_example
    return found


TWO_WORKERS = f"""
import sys
import numpy as np
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kvae import evaluation
from kvae.runtime.keras import load_model

{inspect.getsource(numbers)}
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    vae = load_model("model.keras")
np.savez("two.npz", **numbers(vae, np.load("x.npy")))
"""


def test_two_workers_give_the_same_numbers(trained, tmp_path):
    vae, x = trained
    vae.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    subprocess.run([sys.executable, "-c", TWO_WORKERS], check=True, cwd=tmp_path)
    one = numbers(vae, x)
    with np.load(tmp_path / "two.npz") as two:
        assert set(two) == set(one) > {"elbo", "defensive", "quadrature"}
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-3, err_msg=name)
