"""Models with kvae's priors and posteriors: their initial weights, their files, and what they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from own_parts import GumbelPosterior
from small_models import SHAPE, tiny, tiny_built

import kvae
from kvae.internal.errors import UserError
from kvae.model import posteriors, priors
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

pytestmark = pytest.mark.usefixtures("without_xla")  # many models, of which XLA is not what is tested

MODELS = {
    "mixture and full covariance": lambda: {"prior": priors.Mixture(3), "posterior": "full_covariance"},
    "vamp and iaf": lambda: {"prior": priors.VampPrior(4), "posterior": posteriors.IAF(2, 6, 3)},
    "flow": lambda: {"prior": priors.Flow(2, 6)},
    "two layers": lambda: {"prior": priors.Hierarchical(1, 6), "posterior": posteriors.BottomUp(1, 7)},
}


@pytest.fixture
def images(rng):
    return rng.integers(0, 2, (20, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_has_the_same_options_and_results(name, images, tmp_path):
    vae = tiny_built(**MODELS[name]())
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    for part in ("prior", "posterior"):
        ours, theirs = ({**getattr(each, part).get_config(), "name": ""} for each in (vae, loaded))
        assert ours == theirs
    assert np.array_equal(loaded.elbo(images, seed=1), vae.elbo(images, seed=1))
    assert np.array_equal(loaded.sample([1, 2, 3]).z, vae.sample([1, 2, 3]).z)


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_of_a_model_is_that_of_all_initial_weights(name):
    first, again, other = (tiny_built(**MODELS[name](), seed=seed).get_weights() for seed in (5, 5, 6))
    assert all(map(np.array_equal, first, again))
    different = [not np.array_equal(*pair) for pair in zip(first, other, strict=True)]
    constant = [np.ptp(weight) == 0 for weight in first]  # such as biases
    assert all(a or b for a, b in zip(different, constant, strict=True))
    assert len({weight.tobytes() for weight in first}) >= len(first) - sum(constant) + 1


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_of_a_prior_and_posterior_has_a_gradient(name, images, rng):
    vae = tiny_built(latent_dim=3, **MODELS[name]())
    weights = [*vae.prior.trainable_variables, *vae.posterior.trainable_variables]
    for weight in weights:  # the last layers of a flow begin with 0
        weight.assign(weight + rng.normal(size=weight.shape))
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(vae.draw(images, Keyed(0, Stream.EVALUATION, tf.range(20)), 2).elbo)
    for weight, gradient in zip(weights, tape.gradient(loss, [weight.value for weight in weights]), strict=True):
        assert np.any(gradient), weight.path


def test_a_vamp_prior_is_the_mixture_of_the_posteriors_of_its_pseudo_inputs(rng):
    vae = tiny_built(prior=priors.VampPrior(4))
    q, z = vae.encode(vae.prior.pseudo_inputs), rng.normal(size=(2, 3, 2)).astype(np.float32)
    each = [q.take(tf.constant([k])).log_prob(z) for k in range(4)]
    np.testing.assert_allclose(vae.prior.log_prob(z), np.logaddexp.reduce(each) - np.log(4), rtol=1e-5)
    assert 0 < vae.prior.pseudo_inputs.numpy().min() < vae.prior.pseudo_inputs.numpy().max() < 1


def test_a_vamp_prior_of_another_model_is_refused_unless_its_encoder_is_the_same(images):
    first = tiny_built(prior=priors.VampPrior(4))
    other = tiny(prior=first.prior)
    for _ in range(2):
        with pytest.raises(UserError, match="VampPrior of this model"):
            other.build((None, *SHAPE))
        assert not other.built
    before = first.elbo(images, seed=1)
    parts = {"encoder": first.encoder, "decoder": first.decoder, "posterior": first.posterior, "prior": first.prior}
    same = kvae.VAE(**parts, seed=0)
    same.build((None, *SHAPE))
    assert np.array_equal(same.log_prior(np.ones((3, 2))), first.log_prior(np.ones((3, 2))))
    assert np.array_equal(first.elbo(images, seed=1), before)


def test_its_gradient_reaches_the_encoder(images):
    vae = tiny_built(prior=priors.VampPrior(4))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(vae.prior.log_prob(tf.ones([3, 2])))
    gradients = tape.gradient(value, [vae.prior.logits.value, *(weight.value for weight in vae.encoder.weights)])
    assert all(gradient is not None and tf.reduce_any(gradient != 0) for gradient in gradients)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.Mixture(0), "Expected components to be a whole number of at least 1"),
        (lambda: priors.VampPrior(1.5), "Expected components to be a whole number of at least 1"),
        (lambda: priors.Flow(-1), "Expected layers to be a whole number of at least 0"),
        (lambda: posteriors.IAF(context=0), "Expected context to be a whole number of at least 1"),
        (lambda: priors.Hierarchical(0), "Expected upper_dim to be a whole number of at least 1"),
        (lambda: tiny_built(latent_dim=1, prior="hierarchical"), "latent size of at least 2 for the prior hier.* Rec"),
        (lambda: tiny_built(posterior=posteriors.BottomUp(2)), "at least 3 for the posterior bottom_up.*smaller upper"),
        (lambda: tiny_built(prior="vamp", condition_shape=()), r"without a condition for the prior vamp"),
        (lambda: tiny_built(prior="mixtur"), "Did you mean 'mixture'"),
        (lambda: tiny_built(prior="flow").prior.quantiles(3), "prior with independent dimensions.*Received Flow"),
        (
            lambda: kvae.VAE(encoder=tiny_built().encoder, decoder=tiny_built().decoder, posterior="full_covariance")
            .build((None, *SHAPE)),
            r"return tensors of widths \(2, 3\)",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_vamp_prior_of_a_posterior_without_take_says_what_it_needs():
    vae = tiny_built(prior=priors.VampPrior(4), posterior=GumbelPosterior())
    assert vae.prior.log_prob(tf.zeros([5, 2])).shape == [5]
    with pytest.raises(NotImplementedError, match=r"Gumbel needs a method take\(images\)"):
        vae.sample([1])


def test_a_flow_and_a_mixture_do_not_depend_on_the_condition():
    for prior in ("mixture", "flow"):
        vae = tiny_built(prior=prior, condition_shape=())
        assert np.array_equal(vae.sample([1, 2], [0, 1]).z, vae.sample([1, 2], [3, 4]).z)
