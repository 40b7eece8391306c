"""`kvae.evaluation.ais` and `bdmc` against closed forms, quadrature, and SciPy's distributions."""

import math

import numpy as np
import pytest
from oracles import LinearModel, Plane
from scipy import special, stats
from small_models import built, scaled_decoder, tiny

from kvae import evaluation, likelihoods
from kvae.evaluation import annealed
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

SHORT = {"temperatures": 30, "chains": 8, "leapfrog_steps": 3}


def linear_model():
    """A linear model whose prior is not the standard normal, and whose posteriors are much narrower than the prior."""
    rng = np.random.default_rng(3)
    return LinearModel(rng.normal(size=(4, 2)), rng.normal(size=4), 0.5, (2, 2, 1), centre=[0.4, -0.2], scale=0.8)


@pytest.fixture(scope="module")
def linear():
    return linear_model()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(4).uniform(size=(6, 4)).astype(np.float32)


def shaped(x):
    return x.reshape(-1, 2, 2, 1)


def given(x, index=None, seed=0, condition=None):
    index = np.arange(len(x)) if index is None else index
    return annealed.Images(tf.constant(shaped(x)), condition, tf.constant(index, tf.int32), tf.constant(seed))


# --- forward


@pytest.mark.slow
def test_the_estimate_of_a_linear_model_is_exact_within_the_stated_errors(linear, images):
    found = evaluation.ais(linear.vae, shaped(images), **SHORT | {"chains": 64})
    expected = np.array([linear.log_evidence(image) for image in images])
    effective = found.ais_effective_chains.per_example
    error = np.sqrt((64 / effective - 1) / 63)  # of log mean w, by the delta method
    assert effective.min() > 10  # else the test would say little
    np.testing.assert_array_less(np.abs(found.ais.per_example - expected), 4 * error)
    assert abs(found.ais.mean - expected.mean()) < 4 * found.ais_monte_carlo_error
    assert found.ais_monte_carlo_error == pytest.approx(math.sqrt(np.square(error).sum()) / len(images), rel=1e-6)


@pytest.mark.slow
def test_the_estimate_of_a_bernoulli_model_is_that_of_a_grid(rng):
    vae = scaled_decoder(tiny(seed=1), (2, 2, 1), 3.0)
    x = rng.integers(0, 2, (5, 2, 2, 1)).astype(np.float32)
    found = evaluation.ais(vae, x, **SHORT | {"chains": 64})
    assert found.ais_monte_carlo_error < 0.05
    assert abs(found.ais.mean - Plane(vae, x).log_evidence().mean()) < 4 * found.ais_monte_carlo_error


@pytest.mark.slow
def test_the_monte_carlo_error_is_the_deviation_over_repetitions(linear, images):
    found = evaluation.ais(linear.vae, np.repeat(shaped(images[:1]), 400, axis=0), **SHORT | {"temperatures": 60})
    deviation = found.ais.per_example.std(ddof=1) / math.sqrt(400)  # the images are equal, their random numbers are not
    # The deviation of 400 has a relative error of 0.04. For 8 weights the delta method is right to about a tenth.
    assert 0.8 < deviation / found.ais_monte_carlo_error < 1.3


@pytest.mark.slow
def test_every_image_has_the_evidence_of_its_condition(images):
    weights, bias = [[0.5, 0.1], [-0.2, 0.4], [0.3, 0.3], [0.0, -0.6]], np.full(4, 0.5)
    model = LinearModel(weights, bias, 0.3, (2, 2, 1), [1.0, -1.0], 0.5, condition_shape=())
    conditions = np.array([0.0, 1.5, -1.0, 0.5, -2.0, 1.0], np.float32)
    expected = [
        LinearModel(weights, bias, 0.3, (2, 2, 1), model.centre + c, 0.5).log_evidence(image)
        for image, c in zip(images, conditions, strict=True)
    ]
    found = evaluation.ais(model.vae, (shaped(images), conditions), temperatures=200, chains=64)
    assert found.ais_monte_carlo_error < 0.1
    np.testing.assert_allclose(found.ais.per_example, expected, rtol=0, atol=1)  # 10 nats between conditions
    assert abs(found.ais.mean - np.mean(expected)) < 4 * found.ais_monte_carlo_error
    both = evaluation.bdmc(model.vae, (shaped(images), conditions), **SHORT)
    assert len(both.bdmc_gap.per_example) == len(images)


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow", "hierarchical"])
def test_the_estimate_under_a_learned_prior_is_that_of_quadrature(rng, prior):
    vae = scaled_decoder(tiny(seed=1, prior=prior), (2, 2, 1), 3.0)
    vae.prior.set_weights([weight + 0.5 * rng.normal(size=weight.shape) for weight in vae.prior.get_weights()])
    x = rng.integers(0, 2, (5, 2, 2, 1)).astype(np.float32)
    found, exact = evaluation.ais(vae, x, **SHORT | {"chains": 64}), evaluation.quadrature(vae, x)
    assert abs(found.ais.mean - exact.quadrature.mean) < 4 * found.ais_monte_carlo_error + exact.quadrature_error


# --- transitions


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_a_transition_leaves_the_tempered_posterior_invariant(linear, images, beta):
    chains, seed = 20_000, np.random.default_rng(5)
    precision = np.eye(2) / linear.scale**2 + beta * linear.weights.T @ linear.weights / linear.s**2
    covariance = np.linalg.inv(precision)
    difference = np.float64(images[0]) - linear.bias - linear.weights @ linear.centre
    mean = linear.centre + beta * covariance @ linear.weights.T @ difference / linear.s**2
    z = tf.constant(seed.multivariate_normal(mean, covariance, chains)[:, None], tf.float32)
    few = given(images[:1])
    point = annealed._Point.at(linear.vae, few, z)
    step = tf.constant([1.35 * math.sqrt(np.linalg.eigvalsh(covariance)[0])])
    noise = few.noise(annealed.FORWARD, 1, tf.range(chains))
    after, probability = annealed._transition(linear.vae, few, point, tf.constant(beta), step, noise, 3)
    assert 0.5 < probability.numpy().mean() < 0.95  # some are rejected
    whitened = (after.z.numpy()[:, 0] - mean) @ np.linalg.cholesky(precision)
    assert np.abs(whitened.mean(axis=0)).max() < 4 / math.sqrt(chains)
    assert np.abs(whitened.T @ whitened / chains - np.eye(2)).max() < 4 * math.sqrt(2 / chains)
    moved = np.abs(after.z.numpy() - z.numpy()).max(axis=(1, 2)) > 0
    assert moved.mean() == pytest.approx(probability.numpy().mean(), abs=4 * math.sqrt(0.25 / chains))


@pytest.mark.slow
def test_the_warm_up_adapts_the_acceptance(linear, images):
    found = evaluation.ais(linear.vae, shaped(images), **SHORT | {"temperatures": 200})
    np.testing.assert_allclose(found.ais_acceptance.per_example, 0.65, rtol=0, atol=0.15)


@pytest.mark.parametrize(("size", "low", "high"), [(100.0, 0.0, 0.01), (1e-4, 0.999, 1.0)])
def test_step_sizes_are_fixed_while_it_measures(linear, images, monkeypatch, size, low, high):
    monkeypatch.setattr(annealed, "_step_sizes", lambda *_: tf.fill([99, len(images)], size))
    found = evaluation.ais(linear.vae, shaped(images), **SHORT | {"temperatures": 100})
    assert low <= found.ais_acceptance.per_example.min() <= found.ais_acceptance.per_example.max() <= high


@pytest.mark.slow
def test_a_chain_depends_neither_on_the_other_chains_nor_on_the_other_images(linear, images):
    whole = annealed._Settings(30, 8, 3, 0)
    path = whole.path(linear.vae, given(images))
    expected = whole.forward(linear.vae, given(images), path).log_weights
    order = np.array([4, 0, 2])
    some = path._replace(step_sizes=tf.gather(path.step_sizes, order, axis=1))
    found = whole._replace(chains=3).forward(linear.vae, given(images[order], order), some).log_weights
    difference = np.abs(found - expected[:3, order])
    assert np.median(difference) < 1e-3  # rounding, in 29 transitions; seldom it decides whether one is accepted


def test_schedule_is_that_of_wu_et_al():
    sigmoid = special.expit(4 * (2 * np.arange(11) / 10 - 1))
    np.testing.assert_allclose(annealed.schedule(10), (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0]), atol=1e-12)


# --- rate and distortion


@pytest.mark.slow
def test_rate_and_distortion_of_a_linear_model_are_those_of_its_tempered_posteriors(linear, images):
    betas, evidence = (0.02, 0.3, 1.0), linear.weights.T @ linear.weights / linear.s**2
    found = evaluation.ais(linear.vae, shaped(images), **SHORT | {"temperatures": 60, "chains": 500}, betas=betas)
    for beta, rates, distortions in zip(betas, found.ais_rates, found.ais_distortions, strict=True):
        covariance = np.linalg.inv(np.eye(2) / linear.scale**2 + beta * evidence)
        for image, rate, distortion in zip(images, rates.per_example, distortions.per_example, strict=True):
            far = np.float64(image) - linear.bias - linear.weights @ linear.centre
            moved = beta * covariance @ linear.weights.T @ far / linear.s**2  # the mean, from the centre of the prior
            spread = np.trace(covariance) + moved @ moved
            kl = (spread / linear.scale**2 - 2 - np.linalg.slogdet(covariance / linear.scale**2)[1]) / 2
            squares = np.sum((far - linear.weights @ moved) ** 2) / linear.s**2 + np.trace(covariance @ evidence)
            expected = squares / 2 + 4 * math.log(linear.s * math.sqrt(2 * math.pi))
            assert rate == pytest.approx(kl, rel=0.2, abs=0.03)  # three Monte-Carlo errors, or more
            assert distortion == pytest.approx(expected, rel=0.04)
            assert rate + beta * distortion == pytest.approx(kl + beta * expected, rel=0.04)  # -log Z
    ends = found.ais_rates[-1].per_example + found.ais_distortions[-1].per_example
    np.testing.assert_allclose(ends, -found.ais.per_example, rtol=1e-9)


@pytest.mark.slow
def test_betas_change_nothing_else_and_need_not_be_temperatures(linear, images):
    some, none = (evaluation.ais(linear.vae, shaped(images), **SHORT, betas=betas) for betas in ([0.4, 0.401, 0.5], ()))
    np.testing.assert_array_equal(some.ais.per_example, none.ais.per_example)
    assert none.ais_rates == none.ais_distortions == []
    first, second, third = (each.per_example for each in some.ais_distortions)
    assert np.all(first > second)  # the same chains, with almost the same weights
    np.testing.assert_allclose(first, second, rtol=0, atol=0.05)
    assert first.mean() > third.mean()
    result = evaluation.evaluate(linear.vae, shaped(images), only=["ais(temperatures=5, betas=[0.5, 1])"])
    assert (len(result["ais_rates"]), len(result["ais_distortions"])) == (2, 2)
    assert result["protocol"]["ais_betas"] == [0.5, 1]


# --- from both sides


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_log_p_is_between_the_bounds(linear, seed):
    few = {"temperatures": 5, "chains": 2, "leapfrog_steps": 2}  # so that the bounds are not tight
    count = 300
    found = evaluation.bdmc(linear.vae, np.zeros([count, 2, 2, 1]), images=1000, seed=seed, **few)
    _, simulated = annealed._simulate(linear.vae, given(np.zeros([count, 4], np.float32), seed=seed))
    exact = np.array([linear.log_evidence(x) for x in simulated.x.numpy().reshape(count, 4)])
    lower, upper = found.bdmc_lower.per_example, found.bdmc_upper.per_example
    assert (exact - lower).mean() > 4 * stats.sem(exact - lower)
    assert (upper - exact).mean() > 4 * stats.sem(upper - exact)
    np.testing.assert_allclose(found.bdmc_gap.per_example, upper - lower, rtol=1e-6)


@pytest.mark.slow
def test_the_bounds_meet(linear):
    found = evaluation.bdmc(linear.vae, np.zeros([40, 2, 2, 1]), images=20, **SHORT | {"temperatures": 200})
    assert len(found.bdmc_gap.per_example) == 20
    assert abs(found.bdmc_gap.mean) < 4 * found.bdmc_gap.standard_error < 0.5
    assert 0.3 < found.bdmc_acceptance.mean < 0.95


@pytest.mark.slow
def test_weights_of_both_directions_are_unbiased(linear, images):
    settings = annealed._Settings(30, 2000, 3, 0)
    few = given(images[:1])
    path, posterior = settings.path(linear.vae, few), linear.posterior(images[0])
    forward = settings.forward(linear.vae, few, path).log_weights[:, 0]
    z = np.random.default_rng(6).multivariate_normal(*posterior, 2000).astype(np.float32)
    many = given(np.repeat(images[:1], 2000, axis=0))
    path = path._replace(step_sizes=tf.repeat(path.step_sizes, 2000, axis=1))
    backward = settings._replace(chains=2).backward(linear.vae, many, path, tf.constant(z)).log_weights[0]
    for sign, log_weights in ((1, forward), (-1, backward)):  # E[w / p] = 1 and E[p / w] = 1
        ratios = np.exp(sign * (log_weights - linear.log_evidence(images[0])))
        assert abs(ratios.mean() - 1) < 4 * stats.sem(ratios)
        assert stats.sem(ratios) < 0.15


PIXELS = {
    "gaussian": (likelihoods.Gaussian(0.5), stats.norm(0, math.sqrt(0.5))),
    "laplace": (likelihoods.Laplace(0.5), stats.laplace(0, 0.5)),  # the variance is 2 s^2
    "student_t": (likelihoods.StudentT(0.5, degrees=4.0), stats.t(4, 0, 0.5)),  # the variance is s^2 n / (n - 2)
    "gaussian_per_pixel": (likelihoods.GaussianPerPixel(0.25), stats.norm(0, math.sqrt(0.5))),  # at the parameter 0
}


@pytest.mark.parametrize(("likelihood", "expected"), PIXELS.values(), ids=PIXELS)
def test_simulated_pixels_have_the_density_of_the_likelihood(likelihood, expected):
    parameters = tf.zeros([40, *likelihood.parameters_shape((10, 10, 1))])
    noise = Keyed(0, Stream.ANNEALING, np.arange(40, dtype=np.int32))
    x = likelihood.unclipped_sample(parameters, noise).numpy() - 0.5  # the mean of the parameter 0
    assert stats.kstest(x.ravel(), expected.cdf).pvalue > 1e-3
    clipped = likelihood.sample(parameters, noise).numpy()
    assert 0 <= clipped.min() < clipped.max() <= 1 < x.max() + 0.5


# --- as an evaluation


@pytest.mark.slow
@pytest.mark.parametrize("pairs_at_once", [3, 16, 1000])
def test_it_depends_neither_on_the_chunks_nor_on_the_batches(images, monkeypatch, pairs_at_once):
    # The adaptation of the step sizes amplifies the rounding in which chunks differ, until it decides whether
    # transitions are accepted, by other amounts on other processors. With fixed step sizes rounding stays rounding.
    monkeypatch.setattr(annealed, "GAIN", 0.0)
    linear = linear_model()  # another would keep what was compiled with the usual gain
    expected, other = (
        evaluation.ais(linear.vae, shaped(images), **SHORT, seed=seed).ais.per_example for seed in (0, 1)
    )
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 4 * annealed.CACHED * pairs_at_once)
    data = tf.data.Dataset.from_tensor_slices(shaped(images)).batch(4)
    found = evaluation.ais(linear.vae, data, **SHORT, seed=0).ais.per_example
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert np.abs(other - expected).min() > 0.01  # so much other random numbers would change


def test_seeds_give_other_numbers(linear, images):
    one, other = (evaluation.ais(linear.vae, shaped(images), **SHORT, seed=seed).ais.per_example for seed in (0, 1))
    assert np.abs(one - other).min() > 1e-4


@pytest.mark.slow
def test_they_are_evaluations_by_name(monkeypatch, rng):
    monkeypatch.setitem(annealed.ais.__kwdefaults__, "temperatures", 3)
    monkeypatch.setitem(annealed.bdmc.__kwdefaults__, "temperatures", 4)
    monkeypatch.setitem(annealed.bdmc.__kwdefaults__, "images", 2)
    x = rng.integers(0, 2, (3, 6, 5, 1)).astype(np.float32)
    result = evaluation.evaluate(built(latent_dim=2, hidden_units=(4,)), x, only=["ais", "bdmc"])
    protocol = result["protocol"]
    assert (protocol["ais_temperatures"], protocol["bdmc_temperatures"], protocol["bdmc_images"]) == (3, 4, 2)
    assert protocol["examples"] == 3
    assert max(result["bdmc_lower"], result["bdmc_upper"], result["ais"]) < 0 < result["ais_monte_carlo_error"]


@pytest.mark.parametrize(
    "option",
    [
        *[{"temperatures": 1}, {"temperatures": 2.5}, {"chains": 1}, {"leapfrog_steps": 0}, {"seed": -1}],
        *[{"betas": betas} for betas in (0.5, "1", [0.0, 1.0], [0.5, 0.5], [1.0, 0.5], [1.1], [math.nan], ["0.5"])],
    ],
    ids=str,
)
def test_other_options_are_refused(linear, images, option):
    with pytest.raises(UserError, match=next(iter(option))):
        evaluation.ais(linear.vae, shaped(images), **option)
    with pytest.raises(UserError, match="images"):
        evaluation.bdmc(linear.vae, shaped(images), images=0)
