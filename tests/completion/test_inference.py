"""`kvae.completion` against closed forms of a linear model, and against a grid over the latent plane of others.

Every draw is fixed by its seed, so a test that allows four standard errors fails for a mistake alone.
"""

import json
import math

import numpy as np
import pytest
from oracles import LinearGaussian, LinearModel, Plane, bernoulli_log_density, continuous_bernoulli_mean, mlp
from own_parts import Gumbel, TwoNumberGaussian
from scipy import optimize, special, stats

import kvae
from kvae import completion
from kvae.completion import masked as images_
from kvae.completion import masks, proposals
from kvae.completion.variational import CANDIDATES, OPTIMIZERS
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model import assembly, networks
from kvae.model.posteriors import Gaussian
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

TOP = masks.named("top", (4, 4, 1))
SHORT = {"steps": 20}  # where it is not the quality of q that is tested

# What is computed in batches or chunks of another size may be rounded otherwise: some eps of 10 nats in float32.
ROUNDING = {"rtol": 0, "atol": 1e-4}


def untrained(image_shape=(4, 4, 1), latent_dim=2, likelihood="bernoulli"):
    """A model whose pixels depend visibly, but smoothly, on z: the posterior given some is nearly Gaussian."""
    return varied(kvae.VAE(latent_dim, hidden_units=(8,), likelihood=likelihood, seed=1), image_shape)


def convolutional(image_shape):
    encoder = networks.ConvEncoder(2, filters=(4,), dense_units=8, activation="tanh", seed=1)
    return varied(kvae.VAE(encoder=encoder, seed=1), image_shape)


def varied(vae, image_shape):
    vae.build((None, *image_shape))
    vae.decoder.set_weights([1.5 * weight for weight in vae.decoder.get_weights()])
    return vae


class Case:
    """A model, images that it generated, a mask of its own for each, and the grid."""

    def __init__(self, vae, likelihood="bernoulli"):
        self.vae, self.likelihood = vae, likelihood
        self.x = vae.generate(4, seed=3).numpy()
        self.mask = np.random.default_rng(5).uniform(size=self.x.shape) < 0.6
        self.flat_mask = self.mask.reshape(4, -1)
        dense = isinstance(vae.decoder, networks.MLPDecoder)
        self.plane = Plane(vae, self.x, likelihood, None if dense else self.decode)

    def decode(self, z):
        return np.float64(self.vae.decode(z)).reshape(len(z), -1)


CASES = {
    "colour, odd size": lambda: Case(untrained((3, 5, 3))),
    "continuous Bernoulli": lambda: Case(untrained((5, 3, 1), 2, "continuous_bernoulli"), "continuous_bernoulli"),
    "Gaussian": lambda: Case(untrained((3, 4, 1), 2, "gaussian"), "gaussian"),
    "convolutions": lambda: Case(convolutional((5, 3, 2))),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]()


@pytest.fixture(scope="module")
def completed(case):
    return completion.complete(case.vae, case.x, case.mask)


@pytest.fixture(scope="module")
def vae():
    return untrained()


@pytest.fixture(scope="module")
def x(vae):
    """Six images that the model generated, `[6, 4, 4, 1]`, each 0 or 1."""
    return vae.generate(6, seed=3).numpy()


@pytest.fixture(scope="module")
def plane(vae, x):
    return Plane(vae, x)


@pytest.fixture(scope="module")
def inferred(vae, x):
    return completion.infer(vae, x, TOP)


class LinearCase:
    """A linear model of 3 latent dimensions whose posterior given the left half is factorized, and 4 images."""

    observed = np.array([[1, 0]] * 4, bool)[..., None]  # of images (4, 2, 1)

    def __init__(self):
        rng = np.random.default_rng(0)
        self.pixels = self.observed.ravel()
        weights = 0.4 * rng.normal(size=(8, 3))
        orthogonal, _ = np.linalg.qr(rng.normal(size=(4, 3)))
        weights[self.pixels] = orthogonal * [0.5, 0.3, 0.1]
        self.model = LinearModel(weights, np.full(8, 0.5), 0.3, (4, 2, 1))
        self.vae = self.model.vae
        flat = self.model.bias + rng.normal(size=(4, 3)) @ weights.T + 0.3 * rng.normal(size=(4, 8))
        self.flat = np.clip(flat, 0, 1).astype(np.float32)
        self.x = self.flat.reshape(-1, 4, 2, 1)

    def posteriors(self, pixels=None):
        """Means `[4, 3]` and precisions `[4, 3, 3]` given these pixels."""
        found = [self.model.posterior(flat, self.pixels if pixels is None else pixels) for flat in self.flat]
        return np.stack([part.mean for part in found]), np.linalg.inv([part.covariance for part in found])

    def log_evidence(self, pixels=None):
        return np.array(
            [self.model.log_evidence(flat, self.pixels if pixels is None else pixels) for flat in self.flat]
        )


@pytest.fixture(scope="module")
def linear():
    return LinearCase()


def repeated(x, times):
    """Every image `times` times: independent estimates, since the draws depend on the place."""
    return np.repeat(x, times, axis=0)


def alike_for_all(count, mean, log_var):
    """q of so many images, one of them as the other and both dimensions alike."""
    return Gaussian(np.full((count, 2), mean, np.float32), np.full((count, 2), log_var, np.float32))


def assert_within_standard_errors(found, expected, standard_error):
    np.testing.assert_array_less(np.abs(found - expected), 4 * standard_error)


def assert_alike(found, expected):
    """Two completions that only rounding may tell apart."""
    np.testing.assert_allclose(found.inferred.mean, expected.inferred.mean, **ROUNDING)
    np.testing.assert_allclose(found.means, expected.means, **ROUNDING)
    np.testing.assert_allclose(found.score.log_density, expected.score.log_density, **ROUNDING)
    # Of pixels that are 0 or 1, rounding could flip one in 10^5.
    assert np.array_equal(found.draws, expected.draws)


# --- infer: q against the exact posterior


def test_q_is_the_posterior_where_that_is_factorized(linear):
    found = completion.infer(linear.vae, linear.x, linear.observed)
    mean, precision = linear.posteriors()
    deviation = 1 / np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    # The gradient has no noise there: what is left is what 100 steps of Adam leave, a hundredth of a deviation.
    np.testing.assert_allclose((found.mean - mean) / deviation, 0, atol=0.02)
    np.testing.assert_allclose(np.exp(found.q.log_var / 2) / deviation, 1, atol=0.02)


def test_q_has_the_exact_mean_and_conditional_variances_where_the_posterior_is_correlated(linear):
    pixels = np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)
    found = completion.infer(linear.vae, repeated(linear.x, 25), pixels.reshape(4, 2, 1))
    mean, precision = linear.posteriors(pixels)
    # Bishop, "Pattern Recognition and Machine Learning" (2006), equation 10.15.
    deviation = 1 / np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    means = (found.mean.reshape(4, 25, 3) - mean[:, None]) / deviation[:, None]
    sigmas = np.exp(found.q.log_var / 2).reshape(4, 25, 3) / deviation[:, None]
    # With 8 draws per step there is some noise; the learning rate's fall to 0 averages it to 0.04 deviations or so.
    np.testing.assert_array_less(means.std(axis=1), 0.06)
    np.testing.assert_array_less(sigmas.std(axis=1), 0.06)
    # Four standard errors of the mean of 25 are 0.03; 100 steps of Adam leave a hundredth.
    np.testing.assert_allclose(means.mean(axis=1), 0, atol=0.05)
    np.testing.assert_allclose(sigmas.mean(axis=1), 1, atol=0.05)


def test_last_losses_are_minus_log_evidence_plus_what_a_factorized_q_lacks(linear):
    pixels = np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)
    found = completion.infer(linear.vae, linear.x, pixels.reshape(4, 2, 1))
    _, precision = linear.posteriors(pixels)
    # KL(q || posterior) of the best factorized q: half the log of the diagonal's product over the determinant.
    lacking = (np.log(np.diagonal(precision, axis1=1, axis2=2)).sum(axis=1) - np.linalg.slogdet(precision)[1]) / 2
    last = found.losses[:, -50:]
    assert_within_standard_errors(last.mean(axis=1), lacking - linear.log_evidence(pixels), stats.sem(last, axis=1))


def test_loss_of_the_exact_posterior_is_minus_log_evidence_at_every_draw(linear):
    mean, precision = linear.posteriors()
    start = mean, -np.log(np.diagonal(precision, axis1=1, axis2=2)) / 2
    found = completion.infer(linear.vae, linear.x, linear.observed, start=start, **SHORT)
    np.testing.assert_allclose(found.losses[:, 0], -linear.log_evidence(), **ROUNDING)


def test_gradients_leave_out_the_score_of_q_and_so_stay_at_the_exact_posterior(linear):
    mean, precision = linear.posteriors()
    log_sigma = -np.log(np.diagonal(precision, axis1=1, axis2=2)) / 2
    found = completion.infer(
        linear.vae,
        linear.x,
        linear.observed,
        start=(mean, log_sigma),
        optimizer="gradient_descent",
        learning_rate=0.01,
        **SHORT,
    )
    # With the score, 20 steps of 0.01 with 8 draws each would wander by about 0.01 sqrt(20 / 8) = 0.02 deviations.
    np.testing.assert_allclose(found.mean, mean, atol=1e-4)
    np.testing.assert_allclose(found.q.log_var, 2 * log_sigma, atol=1e-4)


def test_q_is_near_a_nearly_gaussian_posterior(plane, inferred):
    posterior = plane.posterior(TOP.ravel())
    mean = posterior @ plane.z
    variance = posterior @ plane.z**2 - mean**2
    # The posterior is a little skewed and correlated, which a factorized Gaussian cannot follow.
    np.testing.assert_allclose((inferred.mean - mean) / np.sqrt(variance), 0, atol=0.1)
    np.testing.assert_allclose(np.exp(inferred.q.log_var) / variance, 1, atol=0.15)


def test_posteriors_of_that_test_are_not_the_prior(plane):
    # Else it would say little: q = p(z) would pass it.
    mean = plane.posterior(TOP.ravel()) @ plane.z
    assert np.abs(mean).max() > 0.5


def test_last_losses_lie_just_above_minus_log_evidence(plane, inferred):
    gap = inferred.losses[:, -50:].T + plane.log_evidence(TOP.ravel())
    # Above but for noise, since the loss is a bound; within a tenth of a nat, since the posterior is nearly Gaussian.
    np.testing.assert_array_less(-4 * stats.sem(gap), gap.mean(axis=0))
    np.testing.assert_array_less(gap.mean(axis=0), 0.1)


def test_loss_is_the_negative_elbo_of_the_observed_pixels(vae, x, plane):
    mean, log_sigma = np.array([0.5, -1.0]), np.array([-0.5, 0.2])
    first = completion.infer(vae, repeated(x, 50), TOP, start=(mean, log_sigma), **SHORT).losses[:, 0].reshape(6, 50)
    log_q = plane.log_q(mean[None], 2 * log_sigma[None])
    expected = (np.exp(log_q + plane.log_cell) * (log_q - plane.log_joint(TOP.ravel()))).sum(axis=1)
    assert_within_standard_errors(first.mean(axis=1), expected, stats.sem(first, axis=1))


def test_inference_in_one_dimension(rng):
    linear = LinearModel(rng.normal(size=(6, 1)), np.full(6, 0.5), 0.5, (3, 2, 1))
    x, pixels = rng.uniform(size=6).astype(np.float32), np.array([1, 0, 1, 0, 1, 1], bool)
    found = completion.infer(linear.vae, x.reshape(1, 3, 2, 1), pixels.reshape(3, 2, 1))
    mean, covariance = linear.posterior(x, pixels)
    # As where the posterior is factorized: a hundredth of a deviation of 0.3.
    np.testing.assert_allclose(found.mean[0], mean, atol=0.01)
    np.testing.assert_allclose(np.exp(found.q.log_var), covariance, rtol=0.04)


# --- infer: where it starts and how it goes


def test_default_start_is_the_most_probable_candidate(vae, x, inferred):
    candidates = vae.prior.sample(Keyed(0, Stream.START, tf.range(CANDIDATES))).numpy()
    logits, log_prior = mlp(vae), stats.norm(0, 1).logpdf
    for image, start in zip(x, inferred.start.mean, strict=True):
        guess = vae.encode(np.where(TOP, image, 0)[None]).mean.numpy()
        z = np.concatenate([candidates, guess])
        log_joint = bernoulli_log_density(image.ravel(), logits(z))[:, TOP.ravel()].sum(axis=1)
        assert np.array_equal(start, z[np.argmax(log_joint + log_prior(z).sum(axis=1))])


def test_default_start_is_the_encoders_guess_where_that_is_better(rng):
    # A posterior of deviation 0.01: no draw of the prior comes as near as a guess right at its mean.
    linear = LinearModel([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], np.full(3, 0.5), 0.01, (3, 1, 1))
    x, pixels = np.array([0.8, 0.1, 0.5], np.float32), np.array([True, True, False])
    guess = linear.posterior(x, pixels).mean
    linear.vae.encoder.set_weights([np.zeros((3, 2)), guess, np.zeros((3, 2)), np.zeros(2)])
    found = completion.infer(linear.vae, x.reshape(1, 3, 1, 1), pixels.reshape(3, 1, 1), **SHORT)
    assert np.array_equal(found.start.mean[0], np.float32(guess))


def test_default_start_has_log_sigma_minus_one(inferred):
    assert np.array_equal(inferred.start.log_var, np.full((6, 2), -2.0))


def test_default_start_does_not_look_at_missing_pixels(vae, x):
    starts = [completion.infer(vae, np.where(TOP, x, value), TOP, **SHORT).start.mean for value in (0, 1)]
    assert np.array_equal(*starts)


@pytest.mark.parametrize("shape", [(2,), (6, 2)], ids=str)
def test_given_start_is_recorded(vae, x, rng, shape):
    mean, log_sigma = rng.normal(size=(2, *shape)).astype(np.float32)
    found = completion.infer(vae, x, TOP, start=(mean, log_sigma), **SHORT)
    assert np.array_equal(found.start.mean, np.broadcast_to(mean, (6, 2)))
    assert np.array_equal(found.start.log_var, np.broadcast_to(2 * log_sigma, (6, 2)))


def test_one_start_for_all_is_that_start_for_each(vae, x):
    one = completion.infer(vae, x, TOP, start=([1.0, 2.0], [0.0, -1.0]), **SHORT)
    each = completion.infer(vae, x, TOP, start=([[1.0, 2.0]] * 6, [[0.0, -1.0]] * 6), **SHORT)
    assert np.array_equal(one.mean, each.mean)


def test_losses_fall_from_a_start_far_away(vae, x):
    losses = completion.infer(vae, x, TOP, start=([4.0, -4.0], [-2.0, -2.0]), **SHORT).losses
    assert (losses[:, -5:].mean(axis=1) < losses[:, :5].mean(axis=1)).all()


@pytest.fixture(scope="module")
def beside(linear):
    """A start beside the posterior and as wide as it is, where draws cancel out of the mean's gradient: the start, and
    that gradient, precision (mean - exact mean)."""
    mean, precision = linear.posteriors()
    variance = 1 / np.diagonal(precision, axis1=1, axis2=2)
    start = np.float32(mean + np.array([0.3, -0.2, 0.5]))
    return (start, np.log(variance) / 2), (start - mean) / variance


def test_gradient_descent_takes_the_gradient_times_the_rate(linear, beside):
    start, gradient = beside
    options = {"start": start, "learning_rate": 0.01, "optimizer": "gradient_descent", "steps": 1}
    found = completion.infer(linear.vae, linear.x, linear.observed, **options)
    np.testing.assert_allclose(found.mean, start[0] - 0.01 * gradient, rtol=0, atol=1e-5)  # float32


def test_adam_takes_the_sign_of_the_gradient_times_the_rate_at_first(linear, beside):
    start, gradient = beside
    found = completion.infer(linear.vae, linear.x, linear.observed, start=start, learning_rate=0.01, steps=1)
    np.testing.assert_allclose(found.mean, start[0] - 0.01 * np.sign(gradient), rtol=0, atol=1e-5)  # float32


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_zero_gradient_moves_nothing(optimizer):
    # Pixels that do not depend on z: the posterior is the prior.
    vae = untrained()
    vae.decoder.set_weights([np.zeros_like(weight) for weight in vae.decoder.get_weights()])
    start = ([0.0, 0.0], [0.0, 0.0])
    found = completion.infer(vae, np.ones((1, 4, 4, 1)), TOP, start=start, optimizer=optimizer, **SHORT)
    assert (found.mean.tolist(), found.q.log_var.tolist()) == ([[0.0, 0.0]], [[0.0, 0.0]])


def test_one_loss_a_step_and_an_image(inferred):
    assert inferred.losses.shape == (6, 100)


def test_everything_else_is_one_row_an_image(inferred):
    for q in (inferred.q, inferred.start):
        assert {name: part.shape for name, part in q._asdict().items()} == {"mean": (6, 2), "log_var": (6, 2)}
    assert (inferred.mean.shape, inferred.to_gain.shape, inferred.converged.shape) == ((6, 2), (6,), (6,))


def test_all_that_was_inferred_is_numpys(inferred):
    for part in (inferred.mean, *inferred.q, *inferred.start, inferred.losses, inferred.to_gain):
        assert isinstance(part, np.ndarray)


@pytest.mark.parametrize(
    ("images", "expected"),
    [(slice(2), [0, 1]), (slice(1, 6, 2), [1, 3, 5]), ([4, 0], [4, 0]), (np.array([5, 5]), [5, 5])],
    ids=["a slice", "a slice with steps", "places", "an array of places"],
)
def test_some_of_the_images_have_what_was_inferred_for_them(inferred, images, expected):
    some = inferred.of(images)
    parts = [*zip((*some.q, *some.start), (*inferred.q, *inferred.start), strict=True)]
    parts += [(some.losses, inferred.losses), (some.to_gain, inferred.to_gain), (some.mean, inferred.mean)]
    for part, whole in parts:
        assert np.array_equal(part, whole[expected])


# --- converged


def test_default_inference_converges(inferred):
    assert inferred.converged.all()


def test_what_is_left_to_gain_is_what_the_loss_lacks_near_the_optimum(linear):
    mean, precision = linear.posteriors()
    deviation = 1 / np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    # Half a standard deviation beside a Gaussian posterior, and as wide as it is: each dimension lacks 1/2 (1/2)^2.
    start = mean + 0.5 * deviation, np.log(deviation)
    options = {"learning_rate": 1e-9, "optimizer": "gradient_descent", "steps": 1}
    found = completion.infer(linear.vae, linear.x, linear.observed, start=start, **options)
    # 64 draws leave some noise in the gradient of log sigma, whose square adds a little.
    np.testing.assert_allclose(found.to_gain, 3 * 0.125, rtol=0.05)


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


# --- proposals


def proposed(vae, components, samples=40, seed=2):
    """All the draws of the mixture of these q and the prior, `[K, B, 2]`, and their log density, `[K, B]`."""
    place = np.arange(5, 5 + len(components[0].mean), dtype=np.int32)
    parts = [*proposals.draws(vae, components, place, samples, seed, Stream.SCORE)]
    return np.concatenate([some.z for some in parts]), np.concatenate([some.log_proposal for some in parts])


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("samples", [4, 17, 500])
def test_the_prior_gets_a_tenth_of_the_draws_and_the_components_what_is_left_in_like_shares(components, samples):
    *shares, prior = proposals.counts(components, samples)
    assert len(shares) == components
    assert sum(shares) + prior == samples
    assert prior == max(1, round(samples / 10))
    assert 1 <= min(shares) <= max(shares) <= min(shares) + 1


def test_log_proposal_is_the_density_of_the_mixture(vae, rng):
    components = [Gaussian(*rng.normal(size=(2, 4, 2)).astype(np.float32)) for _ in range(2)]
    z, log_proposal = proposed(vae, components)
    members = [*((q.mean, np.exp(q.log_var / 2)) for q in components), (0, 1)]
    log_densities = [stats.norm.logpdf(z, mean, deviation).sum(axis=-1) for mean, deviation in members]
    expected = special.logsumexp(log_densities, axis=0, b=np.array([18, 18, 4])[:, None, None] / 40)
    np.testing.assert_allclose(log_proposal, expected, **ROUNDING)


def test_every_component_draws_its_share_and_the_prior_the_rest(vae):
    z, _ = proposed(vae, [alike_for_all(4, 30.0, -4.0), alike_for_all(4, -20.0, -4.0)])
    # Deviations of 0.14 about 30 and -20; no draw of kvae lies farther than 5.3 of them from its mean.
    owners = np.select([np.abs(z - 30) < 1, np.abs(z + 20) < 1, np.abs(z) < 6], [0, 1, 2], default=3)
    assert np.array_equal(owners, np.broadcast_to(np.repeat([0, 1, 2], [18, 18, 4])[:, None, None], z.shape))


@pytest.mark.parametrize("chunk", [1, 7, 20, 39])
def test_draws_of_a_mixture_do_not_depend_on_how_many_are_made_at_once(monkeypatch, vae, rng, chunk):
    components = [Gaussian(*rng.normal(size=(2, 4, 2)).astype(np.float32)) for _ in range(2)]
    whole = proposed(vae, components)
    monkeypatch.setattr(assembly, "VALUES_AT_ONCE", 16 * 4 * chunk)
    for part, expected in zip(proposed(vae, components), whole, strict=True):
        np.testing.assert_allclose(part, expected, **ROUNDING)


DIVERGED = {  # mean and log variance of the first dimension
    "a mean that is NaN": (math.nan, 0.0),
    "an infinite mean": (-math.inf, 0.0),
    "a mean absurdly far off": (1e4, 0.0),
    "a variance that is NaN": (0.5, math.nan),
    "an infinite variance": (0.5, math.inf),
    "a variance beyond float32": (0.5, 100.0),
    "no variance": (0.5, -math.inf),
    "both": (math.nan, math.inf),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("mean", "log_var"), DIVERGED.values(), ids=DIVERGED)
def test_a_component_that_diverged_is_replaced_by_the_prior_for_that_image_alone(vae, rng, mean, log_var):
    first, second = (Gaussian(*rng.normal(size=(2, 4, 2)).astype(np.float32)) for _ in range(2))
    diverged = Gaussian(first.mean.copy(), first.log_var.copy())
    diverged.mean[2, 0], diverged.log_var[2, 0] = mean, log_var
    z, log_proposal = proposed(vae, [diverged, second])
    sound_z, sound_log_proposal = proposed(vae, [first, second])
    others = np.arange(4) != 2
    assert np.array_equal(z[:, others], sound_z[:, others])
    assert np.array_equal(log_proposal[:, others], sound_log_proposal[:, others])
    # Of that image, the first component's share, draws 0 to 17, are the prior's draws with these numbers; the density
    # is that of the second component, 18 of 40, and of the prior.
    own = vae.prior.sample(Keyed(2, Stream.SCORE, np.full(18, 5 + 2), np.arange(18)))
    assert np.array_equal(z[:18, 2], own)
    assert np.array_equal(z[18:, 2], sound_z[18:, 2])
    log_q = stats.norm.logpdf(z[:, 2], second.mean[2], np.exp(second.log_var[2] / 2)).sum(axis=-1)
    log_prior = stats.norm.logpdf(z[:, 2]).sum(axis=-1)
    expected = special.logsumexp([log_q, log_prior], axis=0, b=[[18 / 40], [22 / 40]])
    np.testing.assert_allclose(log_proposal[:, 2], expected, **ROUNDING)


def test_a_component_whose_covariance_is_not_known_is_replaced_where_its_mean_is_no_number(vae):
    location = np.array([[0.5, -1.0], [math.nan, 0.0], [1.0, 2.0]], np.float32)
    z, log_proposal = proposed(vae, [Gumbel(location, np.zeros((3, 2), np.float32))])
    log_prior = stats.norm.logpdf(z).sum(axis=-1)
    log_q = stats.gumbel_r.logpdf(z, location).sum(axis=-1)
    expected = special.logsumexp([log_q, log_prior], axis=0, b=np.array([36, 4])[:, None, None] / 40)
    np.testing.assert_allclose(log_proposal[:, [0, 2]], expected[:, [0, 2]], **ROUNDING)
    np.testing.assert_allclose(log_proposal[:, 1], log_prior[:, 1], **ROUNDING)


# --- plain


def test_plain_is_the_inference_of_the_article(vae):
    assert completion.article_options(vae) == {
        "start": ((2.0, -2.0), (0.5, 0.0)),
        "steps": 200,
        "learning_rate": 0.01,
        "gradient_samples": 10,
        "optimizer": "gradient_descent",
    }


@pytest.fixture(scope="module")
def plainly(vae, x):
    return completion.infer(vae, x, TOP, **completion.article_options(vae))


def test_plain_start_is_recorded(plainly):
    assert np.array_equal(plainly.start.mean, [[2.0, -2.0]] * 6)
    assert np.array_equal(plainly.start.log_var, [[1.0, 0.0]] * 6)


def test_plain_losses_fall(plainly):
    assert plainly.losses.shape == (6, 200)
    assert (plainly.losses[:, -50:].mean(axis=1) < plainly.losses[:, :50].mean(axis=1)).all()


def test_plain_steps_approach_the_posterior(plane, plainly):
    mean = plane.posterior(TOP.ravel()) @ plane.z
    # The posterior is no wider than the prior, so each step takes 0.01 of what is left, or more: (1 - 0.01)^200 = 0.13.
    left = np.linalg.norm(plainly.mean - mean, axis=1) / np.linalg.norm([2.0, -2.0] - mean, axis=1)
    np.testing.assert_array_less(left, 0.2)


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_plain_needs_a_plane(latent_dim):
    with pytest.raises(UserError, match=f"2 latent dimensions.*This model has {latent_dim}"):
        completion.article_options(untrained(latent_dim=latent_dim))


# --- complete: scores


def test_score_is_the_closed_form_of_a_linear_model(linear):
    score = completion.complete(linear.vae, linear.x, linear.observed).score
    expected = [
        stats.multivariate_normal(*linear.model.predictive(flat, linear.pixels)).logpdf(flat[~linear.pixels])
        for flat in linear.flat
    ]
    assert_within_standard_errors(score.log_density, expected, score.standard_error)


def test_score_is_that_of_the_grid(case, completed):
    expected = case.plane.log_evidence() - case.plane.log_evidence(case.flat_mask)
    assert_within_standard_errors(completed.score.log_density, expected, completed.score.standard_error)


def test_standard_error_of_a_score_is_small(completed):
    # 500 draws of a proposal near the posterior.
    assert completed.score.standard_error.max() < 0.15


@pytest.fixture(scope="module")
def many_scores(vae, x):
    """50 independent scores of every image, and their standard errors: `[6, 50]` each."""
    found = completion.complete(vae, repeated(x, 50), TOP, samples=300, draws=1, **SHORT).score
    return found.log_density.reshape(6, 50), found.standard_error.reshape(6, 50)


def test_stated_standard_error_is_the_spread_over_independent_estimates(many_scores):
    scores, errors = many_scores
    ratio = scores.std(axis=1, ddof=1) / errors.mean(axis=1)
    # The spread of 50 values is known to 1 / sqrt(2 * 49) = 10 %: four of those for an image, and for the mean of 6
    # four of 4 %.
    np.testing.assert_allclose(ratio, 1, atol=0.4)
    assert ratio.mean() == pytest.approx(1, abs=0.16)


def test_spread_over_seeds_is_the_stated_standard_error_too(vae, x, inferred):
    found = [
        completion.complete(vae, x, TOP, inferred=inferred, samples=300, draws=1, seed=seed).score for seed in range(30)
    ]
    spread = np.std([score.log_density for score in found], axis=0, ddof=1)
    ratio = spread / np.mean([score.standard_error for score in found], axis=0)
    # As above; 30 values give 1 / sqrt(2 * 29) = 13 %, and the mean of 6 images 5 %.
    np.testing.assert_allclose(ratio, 1, atol=0.52)
    assert ratio.mean() == pytest.approx(1, abs=0.2)


def test_mean_of_independent_scores_is_that_of_the_grid(many_scores, plane):
    scores, _ = many_scores
    expected = plane.log_evidence() - plane.log_evidence(TOP.ravel())
    # The log of a ratio is biased by half its relative variance, 0.06^2 / 2 at most: less than the tolerance of
    # 4 * 0.06 / sqrt(50) by far.
    assert_within_standard_errors(scores.mean(axis=1), expected, stats.sem(scores, axis=1))


def test_more_samples_halve_the_standard_error(vae, x, inferred):
    few, many = (
        completion.complete(vae, x, TOP, inferred=inferred, draws=1, samples=samples).score.standard_error.mean()
        for samples in (500, 2000)
    )
    # Both are estimates, each to some per cent.
    assert few / many == pytest.approx(2, rel=0.2)


def test_a_q_that_misses_the_posterior_costs_samples_but_no_truth(vae, x, plane, inferred):
    far = inferred._replace(q=alike_for_all(6, 6.0, -6.0))
    score = completion.complete(vae, x, TOP, inferred=far, draws=1).score
    expected = plane.log_evidence() - plane.log_evidence(TOP.ravel())
    assert_within_standard_errors(score.log_density, expected, score.standard_error)
    # The draws of that q, nine in twenty, are worth nothing.
    assert score.effective_samples.max() <= 0.55 * 500


def test_effective_samples_are_among_the_samples(completed):
    effective = completed.score.effective_samples
    assert (effective >= 1).all()
    assert (effective <= 500).all()


# --- complete: means and draws


def test_means_are_the_closed_form_of_a_linear_model(linear):
    found = completion.complete(linear.vae, linear.x, linear.observed)
    for i, flat in enumerate(linear.flat):
        expected = linear.model.predictive(flat, linear.pixels)
        # Deviation of the decoded z alone, without the pixel's own noise, over the root of the effective samples.
        deviation = np.sqrt(np.diag(expected.covariance) - linear.model.s**2)
        standard_error = deviation / np.sqrt(found.score.effective_samples[i])
        assert_within_standard_errors(found.means[i].ravel()[~linear.pixels], expected.mean, standard_error)


def test_means_are_those_of_the_grid(case, completed):
    posterior = case.plane.posterior(case.flat_mask)
    expected = posterior @ case.plane.means
    variance = posterior @ case.plane.means**2 - expected**2
    standard_error = np.sqrt(variance / completed.score.effective_samples[:, None])
    found = completed.means.reshape(len(expected), -1)
    assert_within_standard_errors(found[~case.flat_mask], expected[~case.flat_mask], standard_error[~case.flat_mask])


def test_means_keep_the_observed_pixels(case, completed):
    assert np.array_equal(completed.means[case.mask], case.x[case.mask])


def test_draws_keep_the_observed_pixels(case, completed):
    for draw in completed.draws:
        assert np.array_equal(draw[case.mask], case.x[case.mask])


def test_draws_are_images_of_the_likelihood(case, completed):
    assert (completed.draws.shape, completed.draws.dtype) == ((3, *case.x.shape), np.float32)
    if case.likelihood == "bernoulli":
        assert np.isin(completed.draws, [0, 1]).all()
    else:
        assert ((completed.draws >= 0) & (completed.draws <= 1)).all()


@pytest.fixture(scope="module")
def many_draws(linear):
    """1000 draws of the missing pixels of the first image, `[1000, 4]`, 20 at each of 50 places."""
    found = completion.complete(linear.vae, repeated(linear.x[:1], 50), linear.observed, draws=20)
    return found.draws[:, :, ~linear.observed].reshape(1000, -1)


def test_draws_have_the_predictive_mean(linear, many_draws):
    expected = linear.model.predictive(linear.flat[0], linear.pixels)
    # 20 of 1000 weighted points at each place: nearly independent.
    standard_error = np.sqrt(np.diag(expected.covariance) / 1000)
    assert_within_standard_errors(many_draws.mean(axis=0), expected.mean, standard_error)


def test_draws_have_the_predictive_covariance(linear, many_draws):
    expected = linear.model.predictive(linear.flat[0], linear.pixels)
    white = np.linalg.solve(np.linalg.cholesky(expected.covariance), (many_draws - expected.mean).T)
    # Of 1000 standard normal vectors, an element has a standard error of at most sqrt(2 / 1000).
    np.testing.assert_allclose(white @ white.T / 1000, np.eye(4), atol=4 * math.sqrt(2 / 1000))


def test_missing_pixels_of_one_draw_belong_together(linear):
    # Were z drawn anew for every pixel, the missing pixels would not be correlated: the test above would fail.
    covariance = linear.model.predictive(linear.flat[0], linear.pixels).covariance
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.abs(correlation - np.eye(4)).max() > 4 * math.sqrt(2 / 1000)


def test_draws_are_of_the_posterior_of_their_image_whatever_was_proposed(vae, x, plane, inferred):
    # Proposed is the prior for all, so that only the weights of each image make its draws.
    prior = inferred._replace(q=alike_for_all(300, 0.0, 0.0))
    found = completion.complete(vae, repeated(x, 50), TOP, inferred=prior, samples=300, draws=10)
    expected = (plane.posterior(TOP.ravel()) @ plane.means)[:, ~TOP.ravel()]
    share = found.draws[:, :, ~TOP].reshape(10, 6, 50, -1).mean(axis=(0, 2))
    # Ten of 300 weighted points at each of 50 places: nearly independent pixels.
    assert_within_standard_errors(share, expected, np.sqrt(expected * (1 - expected) / 500))


def test_draws_of_one_image_differ(completed):
    assert not np.array_equal(completed.draws[0], completed.draws[1])


def test_number_of_draws_is_that_asked_for(vae, x, inferred):
    assert completion.complete(vae, x, TOP, inferred=inferred, draws=5).draws.shape == (5, 6, 4, 4, 1)


def test_observed_pixels_are_returned_as_a_mask_of_every_image(vae, x):
    found = completion.complete(vae, x, TOP[..., 0], **SHORT)
    assert np.array_equal(found.observed, np.broadcast_to(TOP, x.shape))


# --- another prior, and a condition


class MovedCase:
    """A linear model with the prior N(m + c, 2^2 I), c being the condition of an image, and the closed form of each."""

    centre, conditions = np.array([3.0, -5.0]), np.array([0.0, 2.0, -4.0], np.float32)
    pixels = np.array([1, 1, 0, 1, 0, 1], bool)
    observed = pixels.reshape(3, 2, 1)

    def __init__(self):
        rng = np.random.default_rng(0)
        weights, _ = np.linalg.qr(rng.normal(size=(6, 2)))
        weights[self.pixels] = np.linalg.qr(rng.normal(size=(4, 2)))[0] * [0.4, 0.2]  # a posterior that is factorized
        bias = 0.5 - weights @ self.centre  # pixels about 0.5 where there is no condition
        given = weights, bias, 0.3, (3, 2, 1)
        self.vae = LinearModel(*given, self.centre, 2.0, condition_shape=()).vae
        self.models = [LinearModel(*given, self.centre + c, 2.0) for c in self.conditions]
        self.flat = rng.uniform(size=(3, 6)).astype(np.float32)
        self.x = self.flat.reshape(3, 3, 2, 1)

    def each(self, measure, *arguments):
        """A closed form of every image, under the prior of its condition."""
        return [getattr(model, measure)(flat, *arguments) for model, flat in zip(self.models, self.flat, strict=True)]

    def log_missing(self):
        return [
            stats.multivariate_normal(*predictive).logpdf(flat[~self.pixels])
            for predictive, flat in zip(self.each("predictive", self.pixels), self.flat, strict=True)
        ]


@pytest.fixture(scope="module")
def moved():
    return MovedCase()


@pytest.fixture(scope="module")
def moved_completed(moved):
    return completion.complete(moved.vae, moved.x, moved.observed, condition=moved.conditions)


def test_q_is_the_posterior_under_the_prior_of_the_condition(moved, moved_completed):
    expected = moved.each("posterior", moved.pixels)
    deviation = np.sqrt([np.diag(part.covariance) for part in expected])
    found = moved_completed.inferred
    # As under the standard normal: a hundredth of a deviation is what 100 steps of Adam leave.
    np.testing.assert_allclose((found.mean - [part.mean for part in expected]) / deviation, 0, atol=0.02)
    np.testing.assert_allclose(np.exp(found.q.log_var / 2) / deviation, 1, atol=0.02)


def test_default_start_is_a_draw_of_the_prior_of_the_condition(moved, moved_completed):
    # Deviations of 2 about a mean of its own: the best of 256 draws lies within 3 of them.
    away = moved_completed.inferred.start.mean - (moved.centre + moved.conditions[:, None])
    np.testing.assert_array_less(np.abs(away), 6)
    assert not np.array_equal(away[0], away[1])


def test_score_is_the_closed_form_under_the_prior_of_the_condition(moved, moved_completed):
    score = moved_completed.score
    assert_within_standard_errors(score.log_density, moved.log_missing(), score.standard_error)
    assert score.standard_error.max() < 0.15  # as above


def test_quadrature_score_is_the_closed_form_under_the_prior_of_the_condition(moved):
    found = completion.quadrature_score(moved.vae, moved.x, moved.observed, moved.conditions)
    np.testing.assert_allclose(found.log_value, moved.log_missing(), rtol=0, atol=1e-4)  # as above


def test_means_are_the_closed_form_under_the_prior_of_the_condition(moved, moved_completed):
    for i, expected in enumerate(moved.each("predictive", moved.pixels)):
        deviation = np.sqrt(np.diag(expected.covariance) - 0.3**2)
        standard_error = deviation / np.sqrt(moved_completed.score.effective_samples[i])
        found = moved_completed.means[i].ravel()[~moved.pixels]
        assert_within_standard_errors(found, expected.mean, standard_error)


def test_conditions_stay_with_their_images_in_batches(monkeypatch, moved, moved_completed):
    monkeypatch.setattr(images_, "BATCH", 2)
    found = completion.complete(moved.vae, moved.x, moved.observed, condition=moved.conditions)
    np.testing.assert_allclose(found.inferred.mean, moved_completed.inferred.mean, **ROUNDING)
    np.testing.assert_allclose(found.means, moved_completed.means, **ROUNDING)
    np.testing.assert_allclose(found.draws, moved_completed.draws, **ROUNDING)
    np.testing.assert_allclose(found.score.log_density, moved_completed.score.log_density, **ROUNDING)


def test_zero_filled_baseline_is_the_closed_form_under_the_prior_of_the_condition(moved):
    given = repeated(moved.x, 20), moved.observed
    estimates = completion.zero_filled_baseline(moved.vae, *given, condition=np.repeat(moved.conditions, 20))
    q = moved.vae.encode(np.where(moved.observed, moved.x, 0), moved.conditions)
    w, bias = moved.models[0].weights[~moved.pixels], moved.models[0].bias[~moved.pixels]
    expected = [
        stats.multivariate_normal(w @ mean + bias, w @ np.diag(np.exp(log_var)) @ w.T + 0.3**2 * np.eye(2)).logpdf(flat)
        for mean, log_var, flat in zip(*np.float64(q), moved.flat[:, ~moved.pixels], strict=True)
    ]
    estimates = estimates.reshape(3, 20)
    # The mean of 20 unbiased estimates, whose logarithms err alike as long as they err little.
    found, standard_error = special.logsumexp(estimates, axis=1) - math.log(20), stats.sem(estimates, axis=1)
    assert standard_error.max() < 0.1
    assert_within_standard_errors(found, expected, standard_error)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_another_number_of_conditions_is_refused(moved, count):
    with pytest.raises(UserError, match=rf"Expected a condition \[3\]\. Received \[{count}\]"):
        completion.complete(moved.vae, moved.x, moved.observed, condition=np.zeros(count))


def test_a_model_with_a_condition_needs_it(moved):
    with pytest.raises(UserError, match=r"Expected a condition \[\d\] for this model. Received none"):
        completion.complete(moved.vae, moved.x, moved.observed)


@pytest.mark.parametrize("shape", [(3, 1), (3, 2)], ids=str)
def test_a_condition_of_another_shape_is_refused(moved, shape):
    with pytest.raises(UserError, match=rf"Expected a condition \[3\]\. Received \[3, {shape[1]}\]"):
        completion.complete(moved.vae, moved.x, moved.observed, condition=np.zeros(shape))


def test_a_model_without_a_condition_refuses_one(vae, x):
    with pytest.raises(UserError, match="Expected no condition"):
        completion.complete(vae, x, TOP, condition=np.zeros(6))


# --- what a result may not depend on


@pytest.fixture(scope="module")
def short(vae, x):
    return completion.complete(vae, x, TOP, samples=50, **SHORT)


def test_the_same_seed_gives_the_same_completions(vae, x, short):
    again = completion.complete(vae, x, TOP, samples=50, **SHORT)
    assert np.array_equal(again.draws, short.draws)
    assert np.array_equal(again.score.log_density, short.score.log_density)
    assert np.array_equal(again.inferred.losses, short.inferred.losses)


def test_another_seed_gives_other_draws_everywhere(vae, x, short):
    other = completion.complete(vae, x, TOP, samples=50, seed=1, **SHORT)
    assert not np.isin(other.score.log_density, short.score.log_density).any()
    assert not np.isin(other.inferred.losses, short.inferred.losses).any()
    assert not np.array_equal(other.draws, short.draws)


def test_completions_do_not_depend_on_how_many_images_there_are(vae, x, short):
    assert_alike(completion.complete(vae, x[:2], TOP, samples=50, **SHORT), short.head(2))


def test_completions_do_not_depend_on_the_other_images(vae, x, short):
    others = np.concatenate([x[:2], 1 - x[2:]])
    found = completion.complete(vae, others, TOP, samples=50, **SHORT)
    assert_alike(found.head(2), short.head(2))


def test_images_alike_get_draws_of_their_own(vae, x):
    found = completion.complete(vae, repeated(x[:1], 3), TOP, samples=50, **SHORT).score.log_density
    assert len(set(found.tolist())) == 3


@pytest.mark.parametrize("batch", [1, 4])
def test_completions_do_not_depend_on_the_batch_size(monkeypatch, vae, x, short, batch):
    monkeypatch.setattr(images_, "BATCH", batch)
    assert_alike(completion.complete(vae, x, TOP, samples=50, **SHORT), short)


def test_starts_and_masks_of_their_own_do_not_depend_on_the_batch_size(monkeypatch, vae, x, rng):
    start, mask = rng.normal(size=(2, 6, 2)), rng.uniform(size=x.shape) < 0.5
    whole = completion.complete(vae, x, mask, samples=50, start=start, **SHORT)
    monkeypatch.setattr(images_, "BATCH", 4)
    assert_alike(completion.complete(vae, x, mask, samples=50, start=start, **SHORT), whole)


@pytest.mark.parametrize("chunk", [40, 100])
def test_completions_do_not_depend_on_the_chunk_size(monkeypatch, vae, x, short, chunk):
    monkeypatch.setattr(assembly, "VALUES_AT_ONCE", 16 * chunk)
    assert_alike(completion.complete(vae, x, TOP, samples=50, **SHORT), short)


@pytest.fixture(scope="module")
def two_batches(vae, x):
    return completion.complete(vae, np.tile(x, (17, 1, 1, 1)), TOP, samples=50, **SHORT)


def test_more_images_than_a_batch_are_all_completed(two_batches):
    assert two_batches.draws.shape == (3, 102, 4, 4, 1)


def test_more_images_than_a_batch_leave_the_first_as_they_are(two_batches, short):
    assert_alike(two_batches.head(6), short)


def test_images_of_the_second_batch_have_the_scores_of_the_grid(two_batches, plane):
    expected = (plane.log_evidence() - plane.log_evidence(TOP.ravel()))[4:]
    found = two_batches.score
    assert_within_standard_errors(found.log_density[100:], expected, found.standard_error[100:])


def test_missing_pixels_change_neither_means_nor_draws(vae, x, short):
    found = completion.complete(vae, np.where(TOP, x, 1 - x), TOP, samples=50, **SHORT)
    assert np.array_equal(found.means, short.means)
    assert np.array_equal(found.draws, short.draws)


# --- unknown pixels


@pytest.fixture(scope="module")
def unknown(vae, x):
    return completion.complete(vae, np.where(TOP, x, math.nan), TOP, samples=50, **SHORT)


def test_unknown_missing_pixels_have_no_score(unknown):
    assert all(np.isnan(part).all() for part in unknown.score)


def test_unknown_missing_pixels_have_the_same_means_and_draws(unknown, short):
    assert np.array_equal(unknown.means, short.means)
    assert np.array_equal(unknown.draws, short.draws)


def test_one_unknown_pixel_is_enough_for_no_score_of_that_image_alone(vae, x, short):
    images = x.copy()
    images[3, 3, 3, 0] = math.nan
    found = completion.complete(vae, images, TOP, samples=50, **SHORT).score.log_density
    assert np.isnan(found).tolist() == [False, False, False, True, False, False]
    known = np.arange(6) != 3
    np.testing.assert_allclose(found[known], short.score.log_density[known], **ROUNDING)


# --- masks


@pytest.mark.parametrize("name", ["top", "bottom", "left", "right", "random", "random:0.3"])
def test_mask_may_be_a_name(vae, x, name):
    found = completion.complete(vae, x, name, samples=5, draws=1, seed=2, **SHORT)
    assert np.array_equal(found.observed, np.broadcast_to(masks.named(name, (4, 4, 1), seed=2), x.shape))


MASKS = {
    "name": "top",
    "[H, W]": TOP[..., 0],
    "[H, W, C]": TOP,
    "[B, H, W, C]": np.broadcast_to(TOP, (6, 4, 4, 1)),
    "zeros and ones": TOP.astype(float),
}


@pytest.mark.parametrize("observed", MASKS.values(), ids=MASKS)
def test_every_form_of_a_mask_gives_the_same(vae, x, short, observed):
    assert np.array_equal(completion.complete(vae, x, observed, samples=50, **SHORT).draws, short.draws)


def test_every_image_has_its_own_mask(vae, x, short):
    observed = np.stack([TOP] * 3 + [~TOP] * 3)
    found = completion.complete(vae, x, observed, samples=50, **SHORT)
    assert_alike(found.head(3), short.head(3))
    bottom = completion.complete(vae, x, ~TOP, samples=50, **SHORT)
    np.testing.assert_allclose(found.score.log_density[3:], bottom.score.log_density[3:], **ROUNDING)


# --- inferred=, first


def test_inferred_is_returned_as_it_came(vae, x, inferred):
    assert completion.complete(vae, x, TOP, inferred=inferred, samples=5).inferred is inferred


def test_inferred_before_is_inferred_within(vae, x, short):
    before = completion.infer(vae, x, TOP, **SHORT)
    assert np.array_equal(completion.complete(vae, x, TOP, inferred=before, samples=50).draws, short.draws)


def test_first_keeps_the_first_images_of_everything(short):
    found = short.head(2)
    assert np.array_equal(found.observed, short.observed[:2])
    assert np.array_equal(found.means, short.means[:2])
    assert np.array_equal(found.draws, short.draws[:, :2])
    assert np.array_equal(found.inferred.losses, short.inferred.losses[:2])
    rows = [*zip(found.score, short.score, strict=True), (found.draw_means[0], short.draw_means[0])]
    for some, all_ in ((found.inferred, short.inferred), (found.whole, short.whole)):
        rows += zip((*some.q, *some.start), (*all_.q, *all_.start), strict=True)
        rows += [(some.losses, all_.losses), (some.to_gain, all_.to_gain)]
    for part, whole in rows:
        assert len(whole) == 6
        assert np.array_equal(part, whole[:2])


def test_an_inference_of_other_images_is_refused(vae, x, inferred):
    with pytest.raises(UserError, match=r"inferred= of these images.*Received \(6, 2\)"):
        completion.complete(vae, x[:4], TOP, inferred=inferred)


# --- importance_estimate


@pytest.fixture
def weighted(rng):
    """log w and log f of 200 draws of 3 images."""
    return rng.normal(scale=2.0, size=(200, 3)), rng.normal(-50.0, 3.0, size=(200, 3))


def test_estimate_is_the_weighted_mean(weighted):
    w, f = (np.exp(part) for part in weighted)
    expected = np.log((w * f).sum(axis=0) / w.sum(axis=0))
    np.testing.assert_allclose(completion.importance_estimate(*weighted).log_density, expected, rtol=1e-12)  # float64


def test_standard_error_is_that_of_the_delta_method(weighted):
    w, f = (np.exp(part) for part in weighted)
    weights = w / w.sum(axis=0)
    mean = (weights * f).sum(axis=0)
    expected = np.sqrt((weights**2 * (f - mean) ** 2).sum(axis=0)) / mean
    np.testing.assert_allclose(
        completion.importance_estimate(*weighted).standard_error, expected, rtol=1e-10
    )  # float64


def test_effective_samples_are_the_fewer_of_both_sums(weighted):
    w, f = (np.exp(part) for part in weighted)
    sizes = [part.sum(axis=0) ** 2 / (part**2).sum(axis=0) for part in (w, w * f)]
    np.testing.assert_allclose(completion.importance_estimate(*weighted).effective_samples, np.min(sizes, axis=0))


def test_estimate_over_all_values_of_a_discrete_latent_is_exact():
    # Four values, each proposed once, so w = p(observed, z): p(missing | observed) = sum p(missing, observed, z) / sum.
    prior, observed, missing = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 0.125, 1.0], [0.2, 0.4, 0.6, 0.8]])
    expected = math.fsum(prior * observed * missing) / math.fsum(prior * observed)
    found = completion.importance_estimate(np.log(prior * observed)[:, None], np.log(missing)[:, None])
    assert found.log_density[0] == pytest.approx(math.log(expected), rel=1e-14)


def test_equal_weights_and_densities_are_known_exactly():
    found = completion.importance_estimate(np.full((8, 1), -3.0), np.full((8, 1), -70.0))
    assert found.log_density[0] == pytest.approx(-70.0, rel=1e-15)
    assert found.standard_error[0] == pytest.approx(0.0, abs=1e-12)
    assert found.effective_samples[0] == pytest.approx(8.0, rel=1e-12)


def test_one_weight_that_outweighs_all_is_one_effective_sample():
    log_weights = np.array([[0.0], [-100.0], [-200.0]])
    found = completion.importance_estimate(log_weights, np.array([[-5.0], [-6.0], [-7.0]]))
    assert found.log_density[0] == pytest.approx(-5.0, abs=1e-12)
    assert found.effective_samples[0] == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_estimate_does_not_depend_on_the_scale_of_the_weights(weighted, offset):
    log_weights, log_densities = weighted
    expected = completion.importance_estimate(log_weights, log_densities)
    found = completion.importance_estimate(log_weights + offset, log_densities)
    for part, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-9)  # eps of float64 at 1e4 is 2e-12


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_densities_may_have_any_scale(weighted, offset):
    log_weights, log_densities = weighted
    expected = completion.importance_estimate(log_weights, log_densities)
    found = completion.importance_estimate(log_weights, log_densities + offset)
    np.testing.assert_allclose(found.log_density, expected.log_density + offset, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, rtol=1e-9)


def test_estimate_is_that_of_a_gaussian_integral(rng):
    # z ~ N(0, 1), x_observed | z ~ N(z, 1), x_missing | z ~ N(z, 1), all observed at 1; the proposal is N(0, 2^2).
    # p(missing | observed) = N(1; 1/2, 1 + 1/2).
    z = rng.normal(scale=2.0, size=(1000, 50))
    log_weights = stats.norm.logpdf(z) + stats.norm.logpdf(1, z) - stats.norm.logpdf(z, scale=2.0)
    found = completion.importance_estimate(log_weights, stats.norm.logpdf(1, z))
    expected = stats.norm.logpdf(1, 0.5, math.sqrt(1.5))
    assert_within_standard_errors(found.log_density.mean(), expected, stats.sem(found.log_density))
    # 50 estimates know their spread to 10 %: four of those.
    assert found.log_density.std() / found.standard_error.mean() == pytest.approx(1, abs=0.4)


# --- baselines


@pytest.mark.parametrize("count", [1, 100, 5000])
def test_pixel_mean_baseline_is_that_of_independent_pixels_with_laplaces_rule(vae, x, rng, count):
    mean = rng.integers(0, count + 1, size=(4, 4, 1)) / count
    mean[2, :2, 0], mean[3, :2, 0] = 0, 1  # pixels that were never on, or always
    on = (count * mean + 1) / (count + 2)
    expected = np.where(TOP, 0, x * np.log(on) + (1 - x) * np.log(1 - on)).sum(axis=(1, 2, 3))
    found = completion.pixel_mean_baseline(vae, x, TOP, mean, count)
    # Means near 1 are float32, eps 6e-8: relative to 1 - mean of 2e-4 at least, 3e-4 a pixel.
    np.testing.assert_allclose(found, expected, rtol=0, atol=8 * 3e-4)


def test_pixel_mean_baseline_of_a_gaussian_likelihood(rng):
    vae = untrained((3, 4, 1), likelihood="gaussian")
    x, mean = rng.uniform(size=(5, 3, 4, 1)), rng.uniform(size=(3, 4, 1))
    mask = masks.named("left", (3, 4, 1))
    expected = np.where(mask, 0, stats.norm.logpdf(x, (100 * mean + 1) / 102)).sum(axis=(1, 2, 3))
    found = completion.pixel_mean_baseline(vae, x, mask, mean, 100)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)  # float32


def test_pixel_mean_baseline_of_a_continuous_bernoulli_likelihood(rng):
    def lacking_mean(logit, mean):
        return continuous_bernoulli_mean(logit) - mean

    vae = untrained((3, 4, 1), likelihood="continuous_bernoulli")
    x, mean = rng.uniform(size=(5, 3, 4, 1)), rng.uniform(0.1, 0.9, size=(3, 4, 1))
    mask = masks.named("left", (3, 4, 1))
    smoothed = ((100 * mean + 1) / 102).ravel()
    logits = np.reshape([optimize.brentq(lacking_mean, -50, 50, args=(value,)) for value in smoothed], mean.shape)
    # The density by its definition: exp(l x) / integral of exp(l x) over [0, 1].
    expected = np.where(mask, 0, logits * x - np.log(np.expm1(logits) / logits)).sum(axis=(1, 2, 3))
    found = completion.pixel_mean_baseline(vae, x, mask, mean, 100)
    # The mean is a float32, 6e-8, and so the logit known to 1e-6 or so near the ends, where the mean hardly changes.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.002, 0.998, 1.0])
def test_pixel_mean_baseline_of_a_continuous_bernoulli_near_0_and_1(value):
    vae = untrained((2, 2, 1), likelihood="continuous_bernoulli")
    x, mask = np.full((1, 2, 2, 1), value), masks.named("top", (2, 2, 1))
    smoothed = (1000 * value + 1) / 1002
    # Far out the density is exponential, of mean 1 / rate.
    edge = min(smoothed, 1 - smoothed)
    expected = 2 * (-math.log(edge) - min(value, 1 - value) / edge)
    found = completion.pixel_mean_baseline(vae, x, mask, np.full((2, 2, 1), value), 1000)
    np.testing.assert_allclose(found, [expected], rtol=1e-3)


@pytest.mark.parametrize("mean", [np.zeros((4, 4)), np.zeros((3, 4, 1)), np.full((4, 4, 1), 1.5), 0.5], ids=np.shape)
def test_pixel_mean_baseline_refuses_what_is_no_mean(vae, x, mean):
    with pytest.raises(UserError, match="Expected pixel_mean"):
        completion.pixel_mean_baseline(vae, x, TOP, mean, 10)


def two_numbers():
    """x ~ N(mean, variance), both of them the decoder's."""
    vae = kvae.VAE(2, hidden_units=(8,), likelihood=TwoNumberGaussian(), seed=1)
    vae.build((None, 4, 4, 1))
    return vae


def any_real():
    """x ~ N(z decoded, 1): one number per pixel, but pixels are any real numbers."""
    likelihood = LinearGaussian(1.0)
    likelihood.support = (-math.inf, math.inf, False)
    vae = kvae.VAE(2, hidden_units=(8,), likelihood=likelihood, seed=1)
    vae.build((None, 4, 4, 1))
    return vae


@pytest.mark.parametrize("make", [two_numbers, any_real])
def test_pixel_mean_baseline_needs_a_likelihood_that_means_determine(x, make):
    with pytest.raises(UserError, match=r"likelihood of pixels in \[0, 1\] that a mean a pixel determines"):
        completion.pixel_mean_baseline(make(), x, TOP, PIXEL_MEAN, 10)


def test_evaluate_leaves_out_the_pixel_means_where_they_determine_no_density(x):
    vae = two_numbers()
    found = completion.complete(vae, x[:1], TOP, samples=20, draws=1, **SHORT)
    assert set(evaluate(vae, x, found, 1)) == {"kvae", "zero_filled", "converged"}


def test_zero_filled_baseline_is_the_mean_density_under_the_encoders_guess(case):
    seen = np.where(case.mask, case.x, 0)
    log_q = case.plane.log_q(*case.vae.encode(seen)) + case.plane.log_cell
    density = case.plane.log_joint(~case.flat_mask) - case.plane.log_prior
    expected = special.logsumexp(log_q + density, axis=1)
    # At most the error of draws of that q alone, and twice it where the mixture gives it less than half of them.
    relative_variance = np.expm1(special.logsumexp(log_q + 2 * density, axis=1) - 2 * expected)
    found = completion.zero_filled_baseline(case.vae, case.x, case.mask, samples=2000)
    assert_within_standard_errors(found, expected, 1.5 * np.sqrt(relative_variance / 2000) + 1e-3)


def test_zero_filled_baseline_does_not_depend_on_batches_and_chunks(monkeypatch, vae, x):
    expected = completion.zero_filled_baseline(vae, x, TOP, samples=50)
    monkeypatch.setattr(images_, "BATCH", 4)
    monkeypatch.setattr(assembly, "VALUES_AT_ONCE", 16 * 30)
    np.testing.assert_allclose(completion.zero_filled_baseline(vae, x, TOP, samples=50), expected, **ROUNDING)


def test_zero_filled_baseline_depends_on_its_seed(vae, x):
    first, again, other = (completion.zero_filled_baseline(vae, x, TOP, samples=50, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.isin(other, first).any()


def test_quadrature_score_is_the_difference_of_evidences(case):
    expected = case.plane.log_evidence() - case.plane.log_evidence(case.flat_mask)
    # Two integrals, each good to 1e-3 nats and for such smooth ones far better.
    found = completion.quadrature_score(case.vae, case.x, case.mask)
    np.testing.assert_allclose(found.log_value, expected, rtol=0, atol=1e-4)
    assert found.error.max() < 1e-3


def test_quadrature_score_needs_a_plane():
    vae = untrained(latent_dim=3)
    with pytest.raises(UserError, match="2 latent dimensions"):
        completion.quadrature_score(vae, np.zeros((1, 4, 4, 1)), "top")


# --- evaluate


SCORES = ("kvae", "pixel_means", "zero_filled", "quadrature")
PIXEL_MEAN = np.full((4, 4, 1), 0.3)


def evaluate(vae, x, found, count, **options):
    """The first `count` images evaluated."""
    first = found.head(count)
    return completion.evaluate(vae, x[:count], first, pixel_mean=PIXEL_MEAN, training_images=50, samples=40, **options)


@pytest.fixture(scope="module")
def evaluated(vae, x, short):
    return evaluate(vae, x, short, 3, exact=True)


def test_evaluate_returns_every_score(evaluated):
    assert set(evaluated) == {*SCORES, "converged"}


def test_quadrature_is_left_out_unless_asked_for(vae, x, short):
    assert set(evaluate(vae, x, short, 1)) == {*SCORES, "converged"} - {"quadrature"}


@pytest.mark.parametrize("name", SCORES)
def test_every_score_has_its_mean_standard_error_and_images(evaluated, name):
    row = evaluated[name]
    assert row["mean"] == pytest.approx(np.mean(row["per_image"]), rel=1e-12)  # float64
    assert row["standard_error"] == pytest.approx(stats.sem(row["per_image"]), rel=1e-12)
    assert len(row["per_image"]) == 3


def test_only_the_score_of_kvae_states_its_monte_carlo(evaluated):
    common = {"mean", "standard_error", "per_image"}
    expected = dict.fromkeys(SCORES, common)
    expected["kvae"] = common | {"monte_carlo_standard_error", "effective_samples"}
    expected["quadrature"] = common | {"error"}
    assert {name: set(evaluated[name]) for name in SCORES} == expected


def test_monte_carlo_is_the_mean_error_and_the_median_of_the_effective_samples(evaluated, short):
    row = evaluated["kvae"]
    assert row["monte_carlo_standard_error"] == pytest.approx(short.score.standard_error[:3].mean())
    assert row["effective_samples"] == pytest.approx(np.median(short.score.effective_samples[:3]))


def test_evaluate_states_what_the_scores_are(vae, x, short, evaluated):
    expected = {
        "kvae": short.score.log_density[:3],
        "pixel_means": completion.pixel_mean_baseline(vae, x[:3], TOP, PIXEL_MEAN, 50),
        "zero_filled": completion.zero_filled_baseline(vae, x[:3], TOP, whole=short.head(3).whole, samples=40),
        "quadrature": completion.quadrature_score(vae, x[:3], TOP).log_value,
    }
    for name, values in expected.items():
        assert evaluated[name]["per_image"] == values.tolist()


def test_evaluate_counts_what_converged(vae, x, short):
    some = short.inferred._replace(to_gain=np.array([0.05, 0.2, 0.01, np.nan, np.inf, 3]))
    assert evaluate(vae, x, short._replace(inferred=some), 6)["converged"] == 2


@pytest.mark.parametrize("count", [1, 6])
def test_evaluate_is_ready_for_json(vae, x, short, count):
    result = evaluate(vae, x, short, count)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_evaluate_needs_a_score(vae, x, unknown):
    with pytest.raises(UserError, match=r"true values of all missing pixels.*NaN"):
        evaluate(vae, x, unknown, 1)


# --- what comes in


@pytest.mark.parametrize("kind", [np.uint8, np.float64, bool])
def test_images_may_have_any_type(vae, x, short, kind):
    assert np.array_equal(completion.complete(vae, x.astype(kind), TOP, samples=50, **SHORT).draws, short.draws)


def test_images_may_be_a_tensor(vae, x, short):
    assert np.array_equal(completion.complete(vae, tf.constant(x), TOP, samples=50, **SHORT).draws, short.draws)


def test_grey_observed_pixels_under_a_bernoulli_likelihood_are_warned_of(vae, x):
    with pytest.warns(UserWarning, match="Grey pixels under a Bernoulli likelihood"):
        completion.infer(vae, 0.5 * x, TOP, **SHORT)


MEASURES = {
    "complete": completion.complete,
    "infer": completion.infer,
    "pixel_mean_baseline": lambda vae, x, observed: completion.pixel_mean_baseline(vae, x, observed, 0.5, 10),
    "zero_filled_baseline": completion.zero_filled_baseline,
    "quadrature_score": completion.quadrature_score,
}
every_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


@every_measure
@pytest.mark.parametrize("shape", [(4, 5), (4, 4, 2), (5, 4, 4, 1)], ids=str)
def test_a_mask_of_another_shape_is_refused(vae, x, measure, shape):
    with pytest.raises(UserError, match=r"mask of shape \(4, 4, 1\) or \(6, 4, 4, 1\)"):
        measure(vae, x, np.eye(math.prod(shape), dtype=bool)[0].reshape(shape))


@every_measure
@pytest.mark.parametrize(("value", "what"), [(False, "nothing"), (True, "everything")])
def test_an_image_of_which_nothing_or_everything_is_observed_is_named(vae, x, measure, value, what):
    observed = np.broadcast_to(TOP, x.shape).copy()
    observed[3:5] = value
    with pytest.raises(UserError, match=f"Of image 3 {what} is observed"):
        measure(vae, x, observed)


@every_measure
def test_an_unknown_mask_is_refused(vae, x, measure):
    with pytest.raises(UserError, match=r"Unknown mask 'tops'\. Did you mean 'top'"):
        measure(vae, x, "tops")


@every_measure
@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1, 255, math.inf])
def test_observed_pixels_that_cannot_be_are_refused(vae, x, measure, value):
    images = x.astype(np.float32)
    images[2, 0, 1, 0] = value
    with pytest.raises(UserError, match=r"Expected pixels in \[0, 1\]"):
        measure(vae, images, TOP)


@every_measure
@pytest.mark.parametrize("shape", [(4, 4, 1), (2, 4, 4), (2, 16), (2, 4, 5, 1), (0, 4, 4, 1)], ids=str)
def test_images_of_another_shape_are_refused(vae, measure, shape):
    received = ", ".join(map(str, shape))
    with pytest.raises(UserError, match=rf"at least one image.*Received \[{received}\]"):
        measure(vae, np.zeros(shape), TOP)


@every_measure
def test_a_model_that_was_not_built_is_refused(measure):
    with pytest.raises(UserError, match="build"):
        measure(kvae.VAE(2), np.zeros((1, 4, 4, 1)), TOP)


STARTS = {
    "another latent size": (np.zeros(3), np.zeros(3)),
    "another number of images": (np.zeros((5, 2)), np.zeros((5, 2))),
    "a number": (0.0, 0.0),
    "words": ("a", "b"),
    "no pair": (np.zeros(2),),
    "log_sigma of another size": (np.zeros(2), np.zeros(1)),
    "not finite": (np.zeros(2), np.array([0.0, math.nan])),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_start_of_another_shape_is_refused(vae, x, start):
    with pytest.raises(UserError, match=r"start=\(mean, log_sigma\), finite, each of shape \(2,\) or \(6, 2\)"):
        completion.infer(vae, x, TOP, start=start)


@pytest.mark.parametrize("name", ["steps", "gradient_samples"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_steps_and_their_draws_must_be_whole_numbers_of_at_least_one(vae, x, name, value):
    with pytest.raises(UserError, match=f"{name} to be a whole number of at least 1. Received {value!r}"):
        completion.infer(vae, x, TOP, **{name: value})


@pytest.mark.parametrize("value", [0, 2, -3, 10.5])
def test_samples_must_be_a_whole_number_of_at_least_three(vae, x, inferred, value):
    with pytest.raises(UserError, match=f"samples to be a whole number of at least 3. Received {value!r}"):
        completion.complete(vae, x, TOP, inferred=inferred, samples=value)


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_draws_must_be_a_whole_number_of_at_least_one(vae, x, inferred, value):
    with pytest.raises(UserError, match=f"draws to be a whole number of at least 1. Received {value!r}"):
        completion.complete(vae, x, TOP, inferred=inferred, draws=value)


def test_three_samples_are_enough(vae, x, inferred):
    found = completion.complete(vae, x, TOP, inferred=inferred, samples=3)
    assert np.isfinite(found.score.log_density).all()


def test_an_unknown_optimizer_is_refused_with_the_nearest(vae, x):
    with pytest.raises(UserError, match=r"Unknown optimizer 'adamm'\. Did you mean 'adam'"):
        completion.infer(vae, x, TOP, optimizer="adamm")


@pytest.mark.parametrize("value", [-1, 255, math.inf])
def test_known_missing_pixels_that_cannot_be_are_refused(vae, x, value):
    images = np.where(TOP, x, value).astype(np.float32)
    message = r"Expected pixels in \[0, 1\].*NaN may stand for missing pixels that are not known, not for observed ones"
    with pytest.raises(UserError, match=message):
        completion.complete(vae, images, TOP)


@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf, "0.1", None])
def test_a_learning_rate_that_cannot_be_is_refused(vae, x, value):
    with pytest.raises(UserError, match=r"Expected a positive learning_rate\. Received"):
        completion.infer(vae, x, TOP, learning_rate=value)


@pytest.mark.parametrize("seed", [-1, 0.5, 2**31])
def test_a_seed_that_cannot_be_is_refused(vae, x, seed):
    with pytest.raises(UserError, match="Expected seed to be a whole number"):
        completion.complete(vae, x, TOP, seed=seed)


def test_inferred_and_options_of_infer_are_refused_together(vae, x, inferred):
    with pytest.raises(UserError, match=r"either inferred= or options of infer\. Received both: steps, optimizer"):
        completion.complete(vae, x, TOP, inferred=inferred, steps=5, optimizer="adam")
