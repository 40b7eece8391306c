"""`kvae.evaluation.information` against quadrature and closed forms, for encoders that give any q."""

import json
import math

import keras
import numpy as np
import pytest
from oracles import LinearGaussian, Moved
from own_parts import GumbelPosterior
from scipy import special, stats
from small_models import tiny_built

import kvae
from kvae import evaluation
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model import posteriors
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

pytestmark = pytest.mark.usefixtures("without_xla")


class AnyPixel(LinearGaussian):
    support = (-np.inf, np.inf, False)


class Given(keras.Model):
    """An encoder for images that are the parameters of q, in parts of these widths."""

    def __init__(self, *widths):
        super().__init__()
        self.widths = widths

    def call(self, x):
        return tuple(tf.split(tf.reshape(x, [-1, sum(self.widths)]), self.widths, axis=-1))


def model(*widths, **options):
    decoder = keras.Sequential([keras.Input(widths[:1]), keras.layers.Dense(sum(widths))])
    vae = kvae.VAE(encoder=Given(*widths), decoder=decoder, likelihood=AnyPixel(1.0), seed=0, **options)
    vae.build((None, sum(widths)))
    return vae


def images(*parts):
    """The images of which `Given` makes the parts, each `[N, width]`."""
    return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)


MEANS = np.array([[-1.0, 0.5], [-0.3, -0.6], [0.1, 0.9], [0.8, 0.8], [1.6, -0.2]])
DEVIATIONS = np.array([[0.4, 0.3], [0.7, 0.5], [0.3, 0.9], [1.1, 0.6], [0.5, 0.5]])
CORRELATIONS = np.array([0.8, -0.5, 0.0, 0.6, 0.3])
DRAWS = 1000


def full_covariance():
    """A model with these q of all covariances, its images, and the covariances `[N, 2, 2]`."""
    rho, (a, b) = CORRELATIONS, DEVIATIONS.T
    triangle = np.stack([2 * np.log(a), rho * b, np.log(b**2 * (1 - rho**2))], axis=1)
    covariances = np.array([[[s * s, r * s * t], [r * s * t, t * t]] for r, s, t in zip(rho, a, b, strict=True)])
    prior = Moved(np.array([0.3, -0.2]), 1.5)
    return model(2, 3, posterior="full_covariance", prior=prior), images(MEANS, triangle), covariances


def diagonal():
    prior = Moved(np.array([0.3, -0.2]), 1.5)
    covariances = np.array([np.diag(each**2) for each in DEVIATIONS])
    return model(2, 2, prior=prior), images(MEANS, 2 * np.log(DEVIATIONS)), covariances


def on_grid(covariances):
    """Weights q(z|x_i) times the area of a cell `[N, G]`, and the integrands `[N, G]` of the four results, by SciPy.

    The trapezoidal rule of a smooth integrand that vanishes at the edges (1e-10 here) errs very little.
    """
    side = np.linspace(-8.0, 8.0, 321)
    z = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    each = np.array([stats.multivariate_normal(m, c).logpdf(z) for m, c in zip(MEANS, covariances, strict=True)])
    joint = special.logsumexp(each, axis=0) - math.log(len(each))
    marginals = sum(
        special.logsumexp(stats.norm.logpdf(z[:, d, None], MEANS[:, d], DEVIATIONS[:, d]), axis=1) - math.log(len(each))
        for d in range(2)
    )
    others = np.array([special.logsumexp(np.delete(each, i, axis=0), axis=0) for i in range(len(each))])
    log_prior = stats.norm.logpdf(z, (0.3, -0.2), 1.5).sum(axis=1)
    integrands = {
        "mutual_information": each - joint,
        "mutual_information_upper": each - others + math.log(len(each) - 1),
        "marginal_kl": np.tile(joint - log_prior, (len(each), 1)),
        "total_correlation": np.tile(joint - marginals, (len(each), 1)),
    }
    return np.exp(each) * (side[1] - side[0]) ** 2, integrands


@pytest.mark.parametrize("case", [full_covariance, diagonal])
def test_each_image_has_the_integrals_of_quadrature(case):
    vae, x, covariances = case()
    found = evaluation.information(vae, x, samples=DRAWS)
    weights, integrands = on_grid(covariances)
    for name, integrand in integrands.items():
        expected = (weights * integrand).sum(axis=1)
        error = np.sqrt(((weights * integrand**2).sum(axis=1) - expected**2) / DRAWS)
        # Four standard errors of a mean of draws; the seed is fixed.
        np.testing.assert_array_less(np.abs(getattr(found, name).per_example - expected), 4 * error + 1e-4, name)


def test_a_large_sample_of_a_gaussian_population_has_its_information_between_the_bounds(rng):
    # x ~ N(0, 1) and q(z|x) = N(x, s^2), so q(z) = N(0, 1 + s^2) and I = 1/2 log(1 + 1 / s^2).
    s, count = 0.2, 400
    vae = model(1, 1, prior=Moved(1.0, 1.0))
    replicates = []
    for seed in range(20):
        x = images(rng.normal(size=(count, 1)), np.full((count, 1), 2 * math.log(s)))
        replicates.append(evaluation.information(vae, x, seed=seed))
    exact = 0.5 * math.log(1 + 1 / s**2)
    lower, upper = (
        np.array([getattr(each, name).mean for each in replicates])
        for name in ("mutual_information", "mutual_information_upper")
    )
    assert exact - 0.05 < lower.mean() < exact < upper.mean() < exact + 0.1
    marginal = np.array([each.marginal_kl.mean for each in replicates])
    # KL(N(0, 1 + s^2) || N(1, 1)), and what the lower bound lacks; the mean has a standard error of 0.01
    divergence = 0.5 * (s**2 - math.log1p(s**2) + 1)
    assert marginal.mean() == pytest.approx(divergence + exact - lower.mean(), abs=0.04)
    for values, name in ((lower, "mutual_information"), (marginal, "marginal_kl")):
        stated = np.mean([getattr(each, name).standard_error for each in replicates])
        assert 0.6 < values.std(ddof=1) / stated < 1.5, name  # the deviation of 20 has a relative error of 0.16


def test_the_parts_sum_to_the_kl_term():
    x = images(np.repeat(MEANS, 40, axis=0), np.repeat(2 * np.log(DEVIATIONS), 40, axis=0))
    vae = model(2, 2)
    found, kl = evaluation.information(vae, x, samples=20), evaluation.elbo(vae, x, draws=1).kl
    difference = found.mutual_information.per_example + found.marginal_kl.per_example - kl.per_example
    assert abs(difference.mean()) < 4 * stats.sem(difference)  # the seed is fixed
    assert stats.sem(difference) < 0.02


def test_a_collapsed_posterior_has_no_information():
    found = evaluation.information(model(3, 3), images(np.zeros((50, 3)), np.zeros((50, 3))))
    for estimate in found:
        np.testing.assert_allclose(estimate.per_example, 0, atol=1e-5)  # rounding of log densities of some nats


def test_posteriors_that_are_far_apart_have_log_n_nats_and_not_one_more():
    x = images(100 * np.arange(8)[:, None], np.zeros((8, 1)))
    found = evaluation.information(model(1, 1), x)
    np.testing.assert_allclose(found.mutual_information.per_example, math.log(8), rtol=1e-12)
    assert found.mutual_information_upper.mean > 1000


def test_an_aggregate_that_is_a_product_has_no_total_correlation():
    corners = np.array([[a, b] for a in (-1.0, 1.0) for b in (-2.0, 0.0, 2.0)])
    found = evaluation.information(model(2, 2), images(corners, np.full(corners.shape, -1.0)), samples=50)
    np.testing.assert_allclose(found.total_correlation.per_example, 0, atol=1e-5)
    assert found.mutual_information.mean > 0.5


def test_the_total_correlation_of_a_correlated_gaussian_is_known():
    rho, count = 0.9, 30
    triangle = np.tile([0.0, rho, math.log(1 - rho**2)], (count, 1))
    vae = model(2, 3, posterior="full_covariance")
    found = evaluation.information(vae, images(np.zeros((count, 2)), triangle), samples=500)
    error = rho / math.sqrt(count * 500)  # the variance of log q(z) - log q(z_1) q(z_2) is rho^2
    assert found.total_correlation.mean == pytest.approx(-0.5 * math.log(1 - rho**2), abs=4 * error)
    assert found.mutual_information.mean == pytest.approx(0, abs=1e-5)


POSTERIORS = ["diagonal_gaussian", "full_covariance", "iaf", "bottom_up", "gumbel"]


@pytest.mark.slow
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_it_is_that_of_the_densities_of_all_pairs(posterior, rng):
    options = {} if posterior == "bottom_up" else {"prior": "mixture", "condition": 3}
    vae = tiny_built(posterior=GumbelPosterior() if posterior == "gumbel" else posterior, **options)
    x, y = rng.uniform(size=(6, 6, 5, 1)).astype(np.float32), np.arange(6) % 3
    condition = y if options else None
    found = evaluation.information(vae, (x, y), samples=3)
    noise = Keyed(0, Stream.INFORMATION, tf.range(6))
    draws = vae.draw(x, noise, 3, condition)
    points = tf.broadcast_to(tf.reshape(draws.z, [18, 1, 2]), [18, 6, 2])
    each = np.float64(vae.encode(x, condition).log_prob(points)).T.reshape(6, 3, 6)  # [j, K, i]
    joint = special.logsumexp(each, axis=0) - math.log(6)
    expected = (np.float64(draws.log_q) - joint).mean(axis=0)
    np.testing.assert_allclose(found.mutual_information.per_example, expected, atol=1e-4)  # float32, of some nats
    others = np.where(np.eye(6, dtype=bool)[:, None], -np.inf, each)
    upper = (np.float64(draws.log_q) - special.logsumexp(others, axis=0) + math.log(5)).mean(axis=0)
    np.testing.assert_allclose(found.mutual_information_upper.per_example, upper, atol=1e-4)
    np.testing.assert_allclose(
        found.marginal_kl.per_example, (joint - np.float64(draws.log_prior)).mean(axis=0), atol=1e-4
    )
    assert (found.total_correlation is None) == (posterior not in POSTERIORS[:2])


@pytest.mark.slow
@pytest.mark.parametrize(("components", "points"), [(1, 1), (2, 7), (4, 100), (500, 1)])
def test_it_depends_neither_on_the_chunks_nor_on_the_batches(components, points, monkeypatch):
    vae, x, _ = diagonal()
    expected = evaluation.information(vae, x, samples=4)
    monkeypatch.setattr("kvae.evaluation.code_use.COMPONENTS", components)
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 4 * min(components, len(x)) * 2 * points)
    found = evaluation.information(vae, tf.data.Dataset.from_tensor_slices(x).batch(2), samples=4)
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual.per_example, wanted.per_example, atol=1e-5)  # sums in another order


def test_another_seed_gives_other_draws():
    vae, x, _ = diagonal()
    first, second = (evaluation.information(vae, x, seed=seed).marginal_kl.per_example for seed in (0, 1))
    assert not np.isin(first, second).any()


@pytest.mark.parametrize(("posterior", "known"), [("diagonal_gaussian", True), ("bottom_up", False)])
def test_it_is_an_evaluation_by_name(posterior, known, rng):
    result = evaluation.evaluate(
        tiny_built(posterior=posterior), rng.uniform(size=(4, 6, 5, 1)), only=["information"], samples=2
    )
    assert json.loads(json.dumps(result)) == result
    assert result["protocol"]["information_samples"] == 2
    assert {"mutual_information", "marginal_kl_standard_error"} <= result.keys()
    assert ("total_correlation" in result) == known


def test_what_cannot_be_measured_is_refused_in_words():
    vae, x, _ = diagonal()
    with pytest.raises(UserError, match="at least two images"):
        evaluation.information(vae, x[:1])
    with pytest.raises(UserError, match="samples"):
        evaluation.information(vae, x, samples=0)

    class Unknown(posteriors.Distribution):
        def __init__(self, q):
            self.q = q

        def sample_and_log_prob(self, noise, samples):
            return self.q.sample_and_log_prob(noise, samples)

    class Drawn(posteriors.DiagonalGaussian):
        def distribution(self, parameters):
            return Unknown(super().distribution(parameters))

    with pytest.raises(UserError, match="no method log_prob"):
        evaluation.information(model(2, 2, posterior=Drawn()), x)
