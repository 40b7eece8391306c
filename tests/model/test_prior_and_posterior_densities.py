"""The priors and posteriors against truth: integrals, draws, Jacobians, and models whose every value is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import LinearModel
from scipy import stats
from small_models import built

from kvae.evaluation import elbo, evidence
from kvae.model import posteriors, priors
from kvae.model.posteriors.iaf import AutoregressiveStep
from kvae.model.priors.flow import Coupling
from kvae.noise import portable
from kvae.noise.keyed import TENSORFLOW, Keyed
from kvae.noise.streams import Stream

pytestmark = pytest.mark.usefixtures("without_xla")

SHAPE = (2, 2, 1)
PRIORS = {
    "standard_normal": priors.StandardNormal,
    "mixture": lambda: priors.Mixture(3),
    "vamp": lambda: priors.VampPrior(3),
    "flow": lambda: priors.Flow(3, 8),
    "hierarchical": lambda: priors.Hierarchical(1, 8),
}
POSTERIORS = {
    "diagonal_gaussian": posteriors.DiagonalGaussian,
    "full_covariance": posteriors.FullCovariance,
    "iaf": lambda: posteriors.IAF(2, 8, 3),
    "bottom_up": lambda: posteriors.BottomUp(1, 8),
}
TWO_LAYERS = ("hierarchical", "bottom_up")  # which need at least two dimensions
OF_VAMP = ("full_covariance", "iaf", "bottom_up")  # with which the prior vamp is looked at beside the Gaussian
MODELS = {
    **{name: lambda make=make: {"prior": make()} for name, make in PRIORS.items()},
    **{
        f"vamp of {name}": lambda name=name: {"prior": priors.VampPrior(3), "posterior": POSTERIORS[name]()}
        for name in OF_VAMP
    },
}
SEEDS = 20_000
OF_LATENT_SIZES = [(name, size) for name in MODELS for size in (1, 2) if size > 1 or not name.endswith(TWO_LAYERS)]
LEVEL = 1e-3  # of the chi-square tests, whose seeds are fixed


def made(name, latent_dim, shape=SHAPE, options=None):
    """A model with weights that are far from their initial values."""
    vae = built(shape, latent_dim=latent_dim, hidden_units=(6,), **(options or MODELS[name]()))
    rng = np.random.default_rng(latent_dim)
    for variable in vae.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.5, variable.shape))
    return vae


class Grid:
    """A density on the midpoints of the cells of a grid: `values` times the size of a cell sums to the integral."""

    def __init__(self, log_density, low, high, side):
        edges = [np.linspace(a, b, side + 1) for a, b in zip(low, high, strict=True)]
        middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
        points = np.meshgrid(*middles, indexing="ij")
        self.z = np.stack([part.ravel() for part in points], axis=-1).astype(np.float32)
        density = np.exp(np.float64(log_density(self.z)).reshape([side] * len(edges)))
        self.edges, self.shares = edges, density * np.prod([edge[1] - edge[0] for edge in edges])

    def chi_square(self, draws, bins):
        """The p value of draws `[N, D]` under the density, in bins of several cells each."""
        counts, _ = np.histogramdd(draws, bins=self.edges)
        size = len(self.edges[0]) // bins
        for axis in range(counts.ndim):
            starts = np.arange(0, bins * size, size)
            counts, self.shares = (np.add.reduceat(part, starts, axis=axis) for part in (counts, self.shares))
        expected = self.shares.ravel() * len(draws)
        few = expected < 10
        observed, expected = (np.append(part[~few], part[few].sum()) for part in (counts.ravel(), expected))
        observed[-1] += len(draws) - observed.sum()  # draws outside of the grid
        expected[-1] += len(draws) - expected.sum()
        return stats.chisquare(observed, expected).pvalue


def test_every_prior_and_posterior_is_looked_at():
    assert PRIORS.keys() == priors.PRIORS.keys()
    assert POSTERIORS.keys() == posteriors.POSTERIORS.keys()


@pytest.mark.parametrize(("name", "latent_dim"), OF_LATENT_SIZES)
def test_a_prior_integrates_to_one_and_is_what_it_draws(name, latent_dim):
    prior = made(name, latent_dim).prior
    grid = Grid(prior.log_prob, *prior.region(), 480)
    assert grid.shares.sum() == pytest.approx(1, abs=1e-3)  # the midpoint rule at 480 points per side
    z = np.asarray(prior.sample(portable.Portable(tf.constant(portable.seeds(SEEDS, 1)), TENSORFLOW)))
    assert grid.chi_square(z, 24) > LEVEL


@pytest.mark.parametrize(
    ("name", "latent_dim"), [(name, size) for name in POSTERIORS for size in (1, 2) if size > 1 or name != "bottom_up"]
)
def test_a_posterior_integrates_to_one_and_is_what_it_draws(name, latent_dim):
    vae = made(name, latent_dim, options={"posterior": POSTERIORS[name]()})
    q = vae.encode(np.full((1, *SHAPE), 0.7, np.float32))
    z, log_q = q.sample_and_log_prob(Keyed(0, Stream.EVALUATION, tf.zeros([1], tf.int32)), SEEDS)
    np.testing.assert_allclose(log_q, q.log_prob(z), rtol=1e-4, atol=1e-4)  # an inversion in float32
    z = np.asarray(z)[:, 0]
    margin = np.ptp(z, axis=0) / 4
    grid = Grid(lambda points: q.log_prob(points[:, None]), z.min(0) - margin, z.max(0) + margin, 480)
    assert grid.shares.sum() == pytest.approx(1, abs=1e-3)
    assert grid.chi_square(z, 24) > LEVEL


def coupling(rng, size, number):
    shapes = (size, 5), (5,), (5, 2 * size), (2 * size,)
    return Coupling(*(tf.constant(rng.normal(size=shape)) for shape in shapes), (np.arange(size) + number) % 2.0)


def step(rng, size):
    """A step with the masks of `IAF`, in float64."""
    family = posteriors.IAF(1, 7, 2)
    family.build(size)
    values = [rng.normal(size=shape) for shape in ((size, 7), (1, 7), (7, 2 * size), (2 * size,))]
    values[0] *= family._mask
    values[2] *= family._output_mask
    return AutoregressiveStep(*map(tf.constant, values))


FUNCTIONS = {
    "coupling": lambda rng, size: coupling(rng, size, 0),
    "next coupling": lambda rng, size: coupling(rng, size, 1),
    "autoregressive step": step,
}


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_log_determinant_of_a_flow_is_that_of_its_jacobian(name, size, rng):
    function, z = FUNCTIONS[name](rng, size), tf.constant(rng.normal(size=(4, size)))
    with tf.GradientTape() as tape:
        tape.watch(z)
        after, log_determinant = function.forward(z)
    jacobians = tape.batch_jacobian(after, z)
    np.testing.assert_allclose(log_determinant, np.linalg.slogdet(jacobians)[1], atol=1e-10)  # float64
    if name == "autoregressive step":
        assert np.array_equal(np.triu(jacobians[0], 1), np.zeros((size, size)))
        before = function.inverse(after)
    else:
        before, again = function.inverse(after)
        np.testing.assert_allclose(again, log_determinant, atol=1e-10)
    np.testing.assert_allclose(before, z, atol=1e-8)


def test_every_coordinate_of_an_autoregressive_step_depends_on_all_before_it(rng):
    function, z = step(rng, 4), tf.constant(rng.normal(size=(1, 4)))
    with tf.GradientTape() as tape:
        tape.watch(z)
        after, _ = function.forward(z)
    assert (tape.batch_jacobian(after, z).numpy()[0][np.tril_indices(4)] != 0).all()


def moved(options):
    """A model with these options and the encoder and decoder of `built` without options."""
    return built(latent_dim=3, hidden_units=(8,), **options)


def of_one_component():
    vae = moved({"prior": priors.Mixture(1), "kl": "sampled"})
    vae.prior.means.assign(tf.zeros([1, 3]))
    return vae


def without_correlations():
    """Its triangle has the log variances of the Gaussian on the diagonal."""
    vae, plain = moved({"posterior": "full_covariance", "kl": "sampled"}), moved({})
    kernel, bias = np.zeros((8, 6), np.float32), np.zeros(6, np.float32)
    kernel[:, [0, 2, 5]] = plain.encoder.scale_head.kernel
    vae.encoder.heads[1].set_weights([kernel, bias])
    return vae


LIMITS = {
    "a mixture of one component": of_one_component,
    "a flow without couplings": lambda: moved({"prior": priors.Flow(0), "kl": "sampled"}),
    "a flow before its training": lambda: moved({"prior": "flow", "kl": "sampled"}),
    "two layers before their training": lambda: moved(
        {"prior": "hierarchical", "posterior": "bottom_up", "kl": "sampled"}
    ),
    "an autoregressive flow without steps": lambda: moved({"posterior": posteriors.IAF(0), "kl": "sampled"}),
    "a covariance without correlations": without_correlations,
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_loss_is_that_of_the_gaussians_in_the_limit(name, rng):
    x = rng.integers(0, 2, (5, 6, 5, 1)).astype(np.float32)
    draws = [
        vae.draw(x, Keyed(0, Stream.EVALUATION, tf.range(5)), 3) for vae in (LIMITS[name](), moved({"kl": "sampled"}))
    ]
    found, expected = (draw.reconstruction + draw.kl for draw in draws)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(draws[0].log_weights, draws[1].log_weights, rtol=1e-5)


def exact_q(model, x):
    """p(z|x) of a linear model as a `CorrelatedGaussian`, `[B]` images."""
    each = [model.posterior(image) for image in x]
    factors = np.stack([np.linalg.cholesky(p.covariance) for p in each])
    parts = np.stack([p.mean for p in each]), 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)), np.tril(factors, -1)
    return posteriors.CorrelatedGaussian(*(tf.constant(part, tf.float32) for part in parts))


def linear_model(rng):
    return LinearModel(rng.normal(size=(6, 3)), rng.normal(size=6), 0.5, (3, 2, 1))


def test_with_full_covariance_the_bound_of_a_linear_model_is_tight(rng):
    model = linear_model(rng)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    q = exact_q(model, x)
    images = x.reshape(4, 3, 2, 1)
    draws = model.vae.draw(images, Keyed(0, Stream.EVALUATION, tf.range(4)), 7, q=q)
    evidence = [model.log_evidence(image) for image in x]
    # Every single draw has the weight p(x): sums of a few terms of up to 100 nats in float32.
    np.testing.assert_allclose(draws.log_weights, np.broadcast_to(evidence, (7, 4)), rtol=0, atol=2e-4)
    np.testing.assert_allclose(q.covariance[0], model.posterior(x[0]).covariance, atol=1e-6)


@pytest.mark.slow
def test_an_autoregressive_flow_learns_the_correlations_of_a_linear_model(rng):
    weights = np.array([[1.0, 1.0], [1.0, 0.8], [0.9, 1.0], [1.0, 0.9]])
    model = LinearModel(weights, np.zeros(4), 0.4, (2, 2, 1), posterior=posteriors.IAF(1, 16, 4))
    precision = np.linalg.inv(model.posterior(np.zeros(4)).covariance)
    # KL divergence of the best factorized Gaussian, whose variances are 1 / precision_ii.
    of_diagonal = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    z = rng.normal(size=(500, 2))
    x = (z @ weights.T + 0.4 * rng.normal(size=(500, 4))).astype(np.float32)
    model.vae.likelihood.support = (-np.inf, np.inf, False)
    model.vae.decoder.trainable = False
    model.vae.compile(keras.optimizers.Adam(1e-2))
    model.vae.fit(x.reshape(-1, 2, 2, 1), batch_size=100, epochs=200, verbose=0)
    model.vae.optimizer.learning_rate = 1e-3
    model.vae.fit(x.reshape(-1, 2, 2, 1), batch_size=100, epochs=60, verbose=0)
    bound = elbo(model.vae, x.reshape(-1, 2, 2, 1), draws=100).elbo.mean
    gap = np.mean([model.log_evidence(image) for image in x]) - bound
    assert of_diagonal > 0.4
    assert -0.02 < gap < of_diagonal / 5  # 0.02: the error of 50,000 draws, whose weights differ by a few tenths


def test_the_kl_term_of_a_full_covariance_is_that_of_the_formula(rng):
    model, x = linear_model(rng), rng.normal(size=(4, 6)).astype(np.float32)
    q, each = exact_q(model, x), [model.posterior(image) for image in x]
    # Kullback-Leibler divergence of two Gaussians, the second of which is standard normal.
    expected = [0.5 * (np.trace(p.covariance) + p.mean @ p.mean - 3 - np.linalg.slogdet(p.covariance)[1]) for p in each]
    np.testing.assert_allclose(q.kl(priors.StandardNormal()), expected, rtol=1e-5)
    assert q.kl(priors.Mixture(1)) is None


@pytest.mark.every_case
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*PRIORS, *(pytest.param(f"vamp of {name}", marks=pytest.mark.exhaustive) for name in OF_VAMP)]
)
def test_the_probabilities_of_all_images_of_nine_pixels_sum_to_one(name):
    """Those of kvae's quadrature; and each of them is that of NumPy on a grid."""
    vae = made(name, 2, shape=(3, 3, 1))
    x = np.indices([2] * 9).reshape(9, -1).T
    found = evidence.log_evidence(vae, x.reshape(-1, 3, 3, 1).astype(np.float32)).log_value
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-3)
    grid = Grid(vae.prior.log_prob, *vae.prior.region(), 200)
    logits = np.float64(vae.decode(grid.z)).reshape(-1, 9)
    # log p(x|z) = x . logits - sum log(1 + exp(logits)) of every image at every point
    log_likelihood = logits @ x.T - np.logaddexp(0, logits).sum(axis=1, keepdims=True)
    probabilities = grid.shares.ravel() @ np.exp(log_likelihood)
    # The midpoint rule at 200 points per side.
    np.testing.assert_allclose(found, np.log(probabilities), rtol=0, atol=3e-3)


def test_the_upper_layer_is_standard_normal_and_decides_the_lower_one():
    prior = made("hierarchical", 3, options={"prior": priors.Hierarchical(1, 8)}).prior
    z = np.asarray(prior.sample(portable.Portable(tf.constant(portable.seeds(SEEDS, 1)), TENSORFLOW)))
    assert stats.kstest(z[:, 2], "norm").pvalue > LEVEL
    kernel, bias, output, output_bias = (np.asarray(weight, np.float64) for weight in prior.weights)
    found = np.tanh(z[:, 2:] @ kernel[2:] + bias) @ output + output_bias
    scale, mean = np.exp(2 * np.tanh(found[:, :2] / 2)), found[:, 3:5]
    for lower in ((z[:, :2] - mean) / scale).T:
        assert stats.kstest(lower, "norm").pvalue > LEVEL
    expected = stats.norm.logpdf(z[:, :2], mean, scale).sum(axis=1) + stats.norm.logpdf(z[:, 2])
    np.testing.assert_allclose(prior.log_prob(z), expected, rtol=1e-4, atol=1e-4)  # float32


def test_bottom_up_draws_the_lower_layer_first():
    """q(z_1) does not depend on the coupling, and z_2 has another mean and variance for each z_1."""
    vae = made("bottom_up", 3, options={"posterior": posteriors.BottomUp(1, 8)})
    q = vae.encode(np.full((1, *SHAPE), 0.7, np.float32))
    z, log_q = q.sample_and_log_prob(Keyed(0, Stream.EVALUATION, tf.zeros([1], tf.int32)), 500)
    z, mean, deviation = np.asarray(z)[:, 0], q.start_mean[0].numpy(), np.exp(q.start_log_var[0].numpy() / 2)
    kernel, bias, output, output_bias = (np.asarray(weight, np.float64) for weight in vae.posterior.weights)
    found = np.tanh(z[:, :2] @ kernel[:2] + bias) @ output + output_bias
    scale, shift = np.exp(2 * np.tanh(found[:, 2] / 2)), found[:, 5]
    expected = stats.norm.logpdf(z[:, :2], mean[:2], deviation[:2]).sum(axis=1)
    expected += stats.norm.logpdf(z[:, 2], scale * mean[2] + shift, scale * deviation[2])
    np.testing.assert_allclose(log_q[:, 0], expected, rtol=1e-4, atol=1e-4)  # float32


def test_no_component_of_a_weight_of_zero_is_in_the_region():
    prior = priors.Mixture(2)
    prior.build(1)
    prior.means.assign([[0.0], [1000.0]])
    prior.logits.assign([0.0, -20.0])
    np.testing.assert_allclose(prior.region(), [[-7], [7]])


def test_the_weights_of_a_mixture_are_the_shares_of_its_components():
    prior = priors.Mixture(3)
    prior.build(1)
    prior.means.assign([[-100.0], [0.0], [100.0]])
    prior.logits.assign(np.log([0.2, 0.5, 0.3]))
    z = np.asarray(prior.sample(portable.Portable(tf.constant(portable.seeds(10_000, 0)), TENSORFLOW)))[:, 0]
    counts = np.histogram(z, [-150, -50, 50, 150])[0]
    assert stats.chisquare(counts, [2000, 5000, 3000]).pvalue > LEVEL
    assert priors.mixture.thresholds(prior.logits).numpy().tolist() == [3355443, 11744051, 2**24]
