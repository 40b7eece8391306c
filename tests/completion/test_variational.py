"""`completion.infer`: q against the exact posterior, where it starts, and which steps it takes."""

import numpy as np
import pytest
from completion_cases import ROUNDING, SHORT, TOP, assert_within_standard_errors, repeated, untrained
from oracles import LinearModel, bernoulli_log_density, mlp
from scipy import stats

from kvae import completion
from kvae.completion.variational_inference import CANDIDATES
from kvae.evaluation.variational_fits import OPTIMIZERS
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

# --- infer: q against the exact posterior


@pytest.mark.slow
def test_q_is_the_posterior_where_that_is_factorized(linear):
    found = completion.infer(linear.vae, linear.x, linear.observed)
    mean, precision = linear.posteriors()
    deviation = 1 / np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    # The gradient has no noise there: what is left is what 100 steps of Adam leave, a hundredth of a deviation.
    np.testing.assert_allclose((found.mean - mean) / deviation, 0, atol=0.02)
    np.testing.assert_allclose(np.exp(found.q.log_var / 2) / deviation, 1, atol=0.02)


@pytest.mark.slow
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


@pytest.mark.slow
def test_q_is_near_a_nearly_gaussian_posterior(plane, inferred):
    posterior = plane.posterior(TOP.ravel())
    mean = posterior @ plane.z
    variance = posterior @ plane.z**2 - mean**2
    # The posterior is a little skewed and correlated, which a factorized Gaussian cannot follow.
    np.testing.assert_allclose((inferred.mean - mean) / np.sqrt(variance), 0, atol=0.1)
    np.testing.assert_allclose(np.exp(inferred.q.log_var) / variance, 1, atol=0.15)


def test_posteriors_of_the_grid_are_far_from_the_prior(plane):
    # Otherwise q = p(z) would pass the test above.
    mean = plane.posterior(TOP.ravel()) @ plane.z
    assert np.abs(mean).max() > 0.5


def test_last_losses_lie_just_above_minus_log_evidence(plane, inferred):
    gap = inferred.losses[:, -50:].T + plane.log_evidence(TOP.ravel())
    # Above except for noise, since the loss is a bound; within 0.1 nats, since the posterior is nearly Gaussian.
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


def test_there_is_one_loss_per_step_and_image(inferred):
    assert inferred.losses.shape == (6, 100)


def test_everything_else_has_one_row_per_image(inferred):
    for q in (inferred.q, inferred.start):
        assert {name: part.shape for name, part in q._asdict().items()} == {"mean": (6, 2), "log_var": (6, 2)}
    assert (inferred.mean.shape, inferred.predicted_decrease.shape, inferred.converged.shape) == ((6, 2), (6,), (6,))


def test_every_result_of_infer_is_a_numpy_array(inferred):
    for part in (inferred.mean, *inferred.q, *inferred.start, inferred.losses, inferred.predicted_decrease):
        assert isinstance(part, np.ndarray)


@pytest.mark.parametrize(
    ("images", "expected"),
    [(slice(2), [0, 1]), (slice(1, 6, 2), [1, 3, 5]), ([4, 0], [4, 0]), (np.array([5, 5]), [5, 5])],
    ids=["a slice", "a slice with steps", "places", "an array of places"],
)
def test_results_of_some_images_are_the_rows_of_these_images(inferred, images, expected):
    some = inferred.select(images)
    parts = [*zip((*some.q, *some.start), (*inferred.q, *inferred.start), strict=True)]
    parts += [
        (some.losses, inferred.losses),
        (some.predicted_decrease, inferred.predicted_decrease),
        (some.mean, inferred.mean),
    ]
    for part, whole in parts:
        assert np.array_equal(part, whole[expected])


# --- plain


def test_article_options_are_those_of_the_article(vae):
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


def test_start_of_the_article_is_recorded(plainly):
    assert np.array_equal(plainly.start.mean, [[2.0, -2.0]] * 6)
    assert np.array_equal(plainly.start.log_var, [[1.0, 0.0]] * 6)


def test_losses_with_the_options_of_the_article_fall(plainly):
    assert plainly.losses.shape == (6, 200)
    assert (plainly.losses[:, -50:].mean(axis=1) < plainly.losses[:, :50].mean(axis=1)).all()


def test_steps_of_the_article_approach_the_posterior(plane, plainly):
    mean = plane.posterior(TOP.ravel()) @ plane.z
    # The posterior is no wider than the prior, so each step takes 0.01 of what is left, or more: (1 - 0.01)^200 = 0.13.
    left = np.linalg.norm(plainly.mean - mean, axis=1) / np.linalg.norm([2.0, -2.0] - mean, axis=1)
    np.testing.assert_array_less(left, 0.2)


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_article_options_need_two_latent_dimensions(latent_dim):
    with pytest.raises(UserError, match=f"2 latent dimensions.*This model has {latent_dim}"):
        completion.article_options(untrained(latent_dim=latent_dim))
