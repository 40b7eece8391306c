"""Parts of a model that do not fit together are refused, and leave the model as it was; the others work together."""

import keras
import numpy as np
import pytest
from own_parts import GumbelPosterior

import kvae
from kvae import evaluation
from kvae.internal.errors import UserError
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

pytestmark = pytest.mark.usefixtures("without_xla")

SHAPE = (6, 5, 1)


@pytest.fixture
def x(rng):
    return (rng.random((23, *SHAPE)) < 0.4).astype(np.float32)


def model(**options):
    vae = kvae.VAE(2, hidden_units=(4,), seed=0, **options)
    vae.build((None, *SHAPE))
    vae.compile()
    return vae


@pytest.mark.parametrize(
    ("parts", "objective", "message"),
    [
        ({"prior": "vamp"}, "dreg", "Received VampPrior"),
        ({"prior": "flow"}, "info", "prior standard_normal for the objective Info.*Received Flow"),
        ({"posterior": "iaf"}, "beta_tc", "posterior diagonal_gaussian for the objective BetaTC.*Received IAF"),
        ({"posterior": "full_covariance"}, "free_bits", "Received FullCovariance with StandardNormal.*groups=1"),
        ({"prior": "mixture"}, kvae.objectives.FreeBits(groups=2), "Received DiagonalGaussian with Mixture"),
    ],
)
def test_an_objective_that_cannot_train_the_parts_is_refused_when_the_model_is_made(parts, objective, message):
    with pytest.raises(UserError, match=message):
        kvae.VAE(2, objective=objective, **parts)


def test_one_group_of_free_bits_and_beta_tc_with_a_learned_prior_are_taken(x):
    for options in ({"posterior": "iaf", "objective": kvae.objectives.FreeBits(groups=1)}, {"prior": "mixture"}):
        vae = model(**{"objective": "beta_tc", **options})
        vae.objective.build(len(x))
        draws = vae.draw(x, Keyed(0, Stream.EVALUATION, np.arange(len(x), dtype=np.int32)))
        assert np.isfinite(vae.objective.loss(draws, 0)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "objective"), [({"prior": "vamp"}, "dreg"), ({"posterior": "full_covariance"}, "beta_tc")]
)
def test_a_refused_objective_leaves_that_of_before(parts, objective, x):
    vae = model(**parts)
    before = vae.objective
    with pytest.raises(UserError):
        vae.objective = objective
    assert vae.objective is before
    assert vae.fit(x, verbose=0).history.keys() == {"loss", "elbo", "reconstruction", "kl"}


def test_a_model_whose_objective_cannot_train_it_is_refused_again_and_again(x):
    vae = kvae.VAE(2, hidden_units=(4,), posterior=GumbelPosterior(), objective="beta_tc")
    vae.compile()
    for _ in range(2):
        with pytest.raises(UserError, match="diagonal_gaussian"):
            vae.fit(x, verbose=0)
        assert not vae.built


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("posterior", ["full_covariance", "iaf"])
def test_a_posterior_with_weights_computes_in_float32_in_a_model_of_mixed_precision(posterior, policy, x):
    vae = model(posterior=posterior, prior="flow", dtype=policy)
    assert np.isfinite(vae.predict(x, verbose=0)).all()


def test_a_single_label_for_all_images_is_taken_by_evaluations(x):
    vae = model(condition=3)
    one, each = (evaluation.elbo(vae, (x, label)).elbo.per_example for label in (2, np.full(len(x), 2)))
    np.testing.assert_array_equal(one, each)


def test_a_condition_that_no_network_takes_is_refused():
    inputs = keras.Input(SHAPE)
    h = keras.layers.Flatten()(inputs)
    encoder = keras.Model(inputs, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    z = keras.Input((2,))
    decoder = keras.Model(z, keras.layers.Reshape(SHAPE)(keras.layers.Dense(30)(z)))
    with pytest.raises(UserError, match="has no keyword condition"):
        kvae.VAE(encoder=encoder, decoder=decoder, condition=3)


@pytest.mark.parametrize("posterior", ["full_covariance", "iaf"])
def test_a_scale_that_only_a_diagonal_gaussian_has_is_refused_with_another_posterior(posterior):
    vae = kvae.VAE(encoder=kvae.networks.MLPEncoder(2, (4,), scale="log_sigma"), posterior=posterior)
    with pytest.raises(UserError, match="scale='log_var'"):
        vae.build((None, *SHAPE))


def test_an_autoregressive_flow_knows_the_density_of_its_draws_also_with_its_least_gates(x):
    vae = kvae.VAE(8, hidden_units=(4,), posterior="iaf", seed=0)
    vae.build((None, *SHAPE))
    for weights in vae.posterior.weights_of_steps:
        weights["bias"].assign(np.full(16, -100.0))
    q = vae.encode(x)
    z, log_q = q.sample_and_log_prob(Keyed(0, Stream.EVALUATION, np.arange(len(x), dtype=np.int32)), 3)
    np.testing.assert_allclose(q.log_prob(z), log_q, atol=0.05)


class Far(kvae.priors.StandardNormal):
    """N(5, I)."""

    def log_prob(self, z, condition=None):
        return super().log_prob(z - 5.0)


@pytest.mark.parametrize("posterior", ["diagonal_gaussian", "full_covariance"])
def test_a_prior_derived_from_the_standard_normal_has_no_closed_form_of_another_density(posterior, x):
    vae = model(prior=Far(), posterior=posterior)
    draws = vae.draw(x, Keyed(0, Stream.EVALUATION, np.arange(len(x), dtype=np.int32)), 100)
    np.testing.assert_allclose(draws.kl, np.mean(draws.log_q - draws.log_prior, axis=0), rtol=1e-5)
    assert np.all(draws.kl > 10)  # half of the squared distance, 25, but for what the encoder says
    assert draws.kl_per_dimension is None
    for objective in ("info", "free_bits"):
        with pytest.raises(UserError, match=r"Received (DiagonalGaussian with )?Far"):
            kvae.VAE(2, prior=Far(), objective=objective)


@pytest.mark.parametrize("make", [kvae.priors.StandardNormal, kvae.priors.Mixture, kvae.priors.Flow])
def test_a_part_of_a_model_of_another_size_is_refused(make):
    prior = make()
    model(prior=prior)
    with pytest.raises(UserError, match=f"{make.__name__} of its own.*latent_dim=2; this model has latent_dim=3"):
        kvae.VAE(3, prior=prior).build((None, *SHAPE))


def test_a_part_that_does_not_depend_on_the_size_may_be_shared():
    parts = {"likelihood": kvae.likelihoods.Gaussian(0.05), "posterior": kvae.posteriors.DiagonalGaussian()}
    for latent_dim, shape in ((2, (6, 5, 1)), (3, (4, 4, 3))):
        vae = kvae.VAE(latent_dim, **parts)
        vae.build((None, *shape))
        assert vae.generate(2, seed=0).shape == (2, *shape)


def test_a_model_that_refused_images_of_another_size_is_built_for_the_right_one():
    image = keras.Input((None, None, 1))
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    encoder = keras.Model(image, (keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)))
    vae = kvae.VAE(encoder=encoder, decoder=kvae.networks.MLPDecoder(SHAPE, hidden_units=(4,)))
    with pytest.raises(UserError, match="decoder to return"):
        vae.build((None, 8, 8, 1))
    vae.build((None, *SHAPE))
    assert vae.image_shape == SHAPE


@pytest.mark.parametrize("name", ["kl", "loss", "elbo", "reconstruction"])
def test_a_metric_of_a_subclass_does_not_take_the_name_of_another(name):
    class Named(kvae.VAE):
        def added_metrics(self, x, draws):
            return {name: draws.kl}

    with pytest.raises(UserError, match=f"names of their own. Received '{name}'"):
        Named(2).build((None, *SHAPE))
