"""The terms of the objective against plain NumPy and SciPy: log densities, ELBO, loss and a training step."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from small_models import SHAPE, compiled, tiny

import kvae
from kvae.model import networks, objectives
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


def test_named_densities_agree_with_scipy(vae, x, rng):
    z = rng.standard_normal((4, len(x), 2)).astype(np.float32)
    q = vae.encode(x)
    mean, log_var = (np.asarray(part) for part in q)
    p = 1 / (1 + np.exp(-np.asarray(vae.decode(z), np.float64)))
    likelihood = scipy.stats.bernoulli.logpmf(x, p).sum(axis=(2, 3, 4))
    prior = scipy.stats.norm.logpdf(z).sum(-1)
    posterior = scipy.stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(-1)
    # Sums of 30 and 2 float32 terms of size 1.
    np.testing.assert_allclose(vae.log_likelihood(x, z), likelihood, rtol=1e-5)
    np.testing.assert_allclose(vae.log_prior(z), prior, rtol=1e-5)
    np.testing.assert_allclose(q.log_prob(z), posterior, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(vae.log_joint(x, z), likelihood + prior, rtol=1e-5)


MASKS = {
    "of an image": np.arange(30).reshape(6, 5, 1) < 15,
    "of every image": np.random.default_rng(1).random((23, *SHAPE)) < 0.3,
    "of every row": np.arange(5).reshape(1, 5, 1) < 2,
    "nothing": np.zeros(SHAPE, bool),
    "everything": np.ones(SHAPE, bool),
}
each_mask = pytest.mark.parametrize("observed", MASKS.values(), ids=MASKS)


@each_mask
@pytest.mark.parametrize("draws", [(), (4,)], ids=["one z per image", "four"])
def test_log_likelihood_of_observed_pixels_is_their_sum_in_scipy(vae, x, rng, observed, draws):
    z = rng.standard_normal((*draws, len(x), 2)).astype(np.float32)
    p = 1 / (1 + np.exp(-np.asarray(vae.decode(z), np.float64)))
    expected = np.where(observed, scipy.stats.bernoulli.logpmf(x, p), 0).sum(axis=(-3, -2, -1))
    # Sums of up to 30 float32 terms of size 1.
    np.testing.assert_allclose(vae.log_likelihood(x, z, observed), expected, rtol=1e-5)


@each_mask
def test_log_joint_of_observed_pixels_adds_the_whole_prior(vae, x, rng, observed):
    z = rng.standard_normal((len(x), 2)).astype(np.float32)
    p = 1 / (1 + np.exp(-np.asarray(vae.decode(z), np.float64)))
    likelihood = np.where(observed, scipy.stats.bernoulli.logpmf(x, p), 0).sum(axis=(1, 2, 3))
    expected = likelihood + scipy.stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(vae.log_joint(x, z, observed=observed), expected, rtol=1e-5)  # as above


@each_mask
def test_values_of_missing_pixels_do_not_count(vae, x, rng, observed):
    z = rng.standard_normal((len(x), 2)).astype(np.float32)
    other = np.where(observed, x, 1 - x)
    np.testing.assert_array_equal(vae.log_likelihood(x, z, observed), vae.log_likelihood(other, z, observed))


def test_elbo_terms_have_the_kl_of_the_closed_form(vae, x):
    mean, log_var = (np.asarray(part, np.float64) for part in vae.encode(x))
    exact = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum(-1)
    np.testing.assert_allclose(
        kvae.sampling.elbo_draws(vae, x, seed=0).kl, exact, rtol=1e-4
    )  # float32 differences of numbers near 1


def test_elbo_terms_of_a_certain_posterior_have_the_reconstruction_at_its_mean(vae, x):
    head = vae.encoder.scale_head
    head.kernel.assign(0 * head.kernel)
    head.bias.assign([-40.0, -40.0])  # sigma of 2e-9: below the rounding of z
    p = 1 / (1 + np.exp(-np.asarray(vae.decode(vae.encode(x).mean), np.float64)))
    expected = -scipy.stats.bernoulli.logpmf(x, p).sum(axis=(1, 2, 3))
    # Sums of 30 float32 terms of size 1.
    np.testing.assert_allclose(kvae.sampling.elbo_draws(vae, x, seed=0).reconstruction, expected, rtol=1e-5)


def test_elbo_terms_leave_beta_and_penalties_out(x):
    penalty = keras.regularizers.L2(0.1)
    terms = []
    for beta, regularizer in ((1.0, None), (4.0, penalty)):
        encoder = networks.MLPEncoder(2, (8,), kernel_regularizer=regularizer, seed=0)
        terms.append(kvae.sampling.elbo_draws(kvae.VAE(encoder=encoder, beta=beta, seed=0), x, seed=5))
    np.testing.assert_array_equal(terms[0].reconstruction, terms[1].reconstruction)
    np.testing.assert_array_equal(terms[0].kl, terms[1].kl)


def test_elbo_is_minus_the_sum_of_its_terms_at_the_same_draws(vae, x):
    terms = kvae.sampling.elbo_draws(vae, x, seed=3)
    np.testing.assert_array_equal(vae.elbo(x, seed=3), -terms.reconstruction - terms.kl)
    assert not np.array_equal(kvae.sampling.elbo_draws(vae, x, seed=4).reconstruction, terms.reconstruction)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_evaluate_gives_the_mean_elbo_and_the_beta_weighted_loss(kl, x):
    vae = compiled(tiny(beta=2.5, samples=300, kl=kl))
    logs = vae.evaluate(x, verbose=0, return_dict=True)
    assert logs["elbo"] == pytest.approx(-logs["reconstruction"] - logs["kl"], rel=1e-5)  # float32 means
    assert logs["loss"] == pytest.approx(logs["reconstruction"] + 2.5 * logs["kl"], rel=1e-5)
    mean, log_var = (np.asarray(part, np.float64) for part in vae.encode(x))
    exact = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum(-1).mean()
    # Sampled: 23 x 300 draws of a term whose deviation is about 1: four standard errors are 0.05.
    tolerance = {"rel": 1e-5} if kl == "analytic" else {"abs": 0.05}
    assert logs["kl"] == pytest.approx(exact, **tolerance)


def test_elbo_of_single_images_averages_to_what_evaluate_reports(x):
    vae = compiled(tiny(samples=300))
    reported = vae.evaluate(x, verbose=0, return_dict=True)["elbo"]
    assert np.mean(vae.elbo(x, seed=1)) == pytest.approx(reported, abs=0.05)  # two Monte-Carlo means, as above


def test_regularization_is_added_to_the_loss_alone(x):
    penalty = keras.regularizers.L2(0.1)
    plain, penalised = (
        compiled(kvae.VAE(encoder=networks.MLPEncoder(2, (8,), kernel_regularizer=each, seed=0), seed=0))
        for each in (None, penalty)
    )
    without, with_ = (vae.evaluate(x, verbose=0, return_dict=True) for vae in (plain, penalised))
    assert with_["elbo"] == pytest.approx(without["elbo"], rel=1e-6)
    assert with_["loss"] - without["loss"] == pytest.approx(float(sum(penalised.losses)), rel=1e-4)  # a difference


def test_a_ragged_last_batch_weighs_no_more_than_its_images(x):
    vae = compiled(tiny())
    whole, ragged = (vae.evaluate(x, batch_size=size, verbose=0) for size in (23, 10))
    np.testing.assert_allclose(whole, ragged, rtol=1e-5)  # the order of float32 sums


def test_evaluate_twice_gives_the_same_numbers(x):
    vae = compiled(tiny())
    assert vae.evaluate(x, verbose=0) == vae.evaluate(x, verbose=0)


def test_training_step_is_that_of_a_gradient_on_the_same_objective(x):
    vae = tiny(beta=1.5)
    vae.compile(optimizer=keras.optimizers.SGD(0.1))
    vae.build(x.shape)
    before = [weight.numpy() for weight in vae.trainable_variables]
    noise = Keyed(vae.seed, Stream.TRAINING, tf.constant(0, tf.int64), 0, tf.range(len(x)))
    with tf.GradientTape() as tape:
        draws = vae.draw(x, noise, training=True)
        loss = tf.reduce_mean(draws.reconstruction + 1.5 * draws.kl)
    gradients = tape.gradient(loss, vae.trainable_variables)
    vae.train_on_batch(x)
    for weight, old, gradient in zip(vae.trainable_variables, before, gradients, strict=True):
        np.testing.assert_allclose(weight, old - 0.1 * gradient, atol=1e-6)  # float32, weights below 1


@pytest.mark.slow
def test_beta_warm_up_follows_the_optimizer_step_and_ends_at_beta(x):
    vae = compiled(tiny(beta=objectives.LinearWarmup(4.0, steps=2)))
    logs = [vae.train_on_batch(x, return_dict=True) for _ in range(1)]
    assert logs[0]["loss"] == pytest.approx(logs[0]["reconstruction"], rel=1e-6)  # beta 0 at step 0
    vae.train_on_batch(x)
    vae.reset_metrics()
    at_end = vae.train_on_batch(x, return_dict=True)
    assert at_end["loss"] == pytest.approx(at_end["reconstruction"] + 4 * at_end["kl"], rel=1e-5)
