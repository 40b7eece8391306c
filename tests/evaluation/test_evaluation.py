"""`kvae.evaluation` against quadrature over the latent space of models of four binary pixels."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import special, stats
from small_models import scaled_decoder, tiny

import kvae
from kvae import evaluation
from kvae.evaluation import elbo_terms, evaluations
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model import compiling

IMAGES = np.array(list(itertools.product([0.0, 1.0], repeat=4)), np.float32)  # all that there are, [16, 4]
SHAPES = {1: (4,), 2: (2, 2, 1)}  # latent dimensions: image shape


def untrained(latent_dim, **options):
    """A model whose pixels depend visibly on z and whose posterior is not the true one, and all its images."""
    vae = scaled_decoder(tiny(latent_dim=latent_dim, seed=1, **options), SHAPES[latent_dim], 3.0)
    return vae, IMAGES.reshape(-1, *SHAPES[latent_dim])


@pytest.fixture(params=SHAPES, ids=["1-D latent", "2-D latent"])
def model(request):
    return untrained(request.param)


@pytest.fixture
def model_2d():
    return untrained(2)


def quadrature(vae):
    """A grid of z `[G, D]` on [-8, 8]^D, log p(x, z) there `[16, G]`, and the log volume of a cell.

    The trapezoidal rule of so smooth an integrand that vanishes at the edges (1e-14) errs exponentially little.
    """
    side = np.linspace(-8.0, 8.0, 161)
    z = np.stack(np.meshgrid(*[side] * vae.latent_dim), axis=-1).reshape(-1, vae.latent_dim)
    logits = np.float64(vae.decode(z)).reshape(1, len(z), 4)
    x = IMAGES[:, None, :]
    log_likelihood = (x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)).sum(axis=-1)
    return z, log_likelihood + stats.norm.logpdf(z).sum(axis=-1), vae.latent_dim * math.log(0.1)


def exact_log_p(vae):
    """log p(x) of every image, `[16]`."""
    _, log_joint, log_cell = quadrature(vae)
    return special.logsumexp(log_joint, axis=1) + log_cell


def log_q_on_grid(vae, images):
    """log q(z|x) of every image on the grid of `quadrature`, `[16, G]`."""
    z, _, _ = quadrature(vae)
    mean, log_var = (np.float64(part)[:, None, :] for part in vae.encode(images))
    return stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(axis=-1)


def exact_elbo(vae, images):
    """E_q[log p(x, z) - log q(z|x)] of every image, `[16]`."""
    _, log_joint, log_cell = quadrature(vae)
    log_q = log_q_on_grid(vae, images)
    return (np.exp(log_q + log_cell) * (log_joint - log_q)).sum(axis=1)


def weight_variance(vae, images):
    """Relative variance of the weights w = p(x, z) / q(z|x): E_q[w^2] / p(x)^2 - 1 of every image, `[16]`."""
    _, log_joint, log_cell = quadrature(vae)
    log_second_moment = special.logsumexp(2 * log_joint - log_q_on_grid(vae, images), axis=1) + log_cell
    return np.expm1(log_second_moment - 2 * exact_log_p(vae))


def repeated(images, times):
    """Every image `times` times, so that `per_example.reshape(16, times)` holds independent draws."""
    return np.repeat(images, times, axis=0)


# Against quadrature


def test_exact_probabilities_of_all_images_sum_to_one(model):
    # The density sums to 1 at every z; what is left is the quadrature of the prior.
    assert np.exp(exact_log_p(model[0])).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.slow
def test_log_likelihood_of_many_samples_is_log_p(model):
    vae, images = model
    estimate = evaluation.log_likelihood(vae, images, samples=20_000)
    # Four standard errors of the log of an average of independent weights, 0.03 to 0.14 nats; the seed is fixed.
    tolerance = 4 * np.sqrt(weight_variance(vae, images) / 20_000)
    np.testing.assert_array_less(np.abs(estimate.per_example - exact_log_p(vae)), tolerance)


def test_mean_elbo_is_that_of_quadrature(model):
    vae, images = model
    draws = evaluation.elbo(vae, repeated(images, 500)).elbo.per_example.reshape(16, 500)
    # Four standard errors; the seed is fixed.
    np.testing.assert_array_less(np.abs(draws.mean(axis=1) - exact_elbo(vae, images)), 4 * stats.sem(draws, axis=1))


def test_mean_bound_of_one_sample_is_the_elbo(model):
    vae, images = model
    draws = evaluation.log_likelihood(vae, repeated(images, 500), samples=1).per_example.reshape(16, 500)
    # Four standard errors; the seed is fixed.
    np.testing.assert_array_less(np.abs(draws.mean(axis=1) - exact_elbo(vae, images)), 4 * stats.sem(draws, axis=1))


@pytest.mark.slow
def test_the_compiled_bound_is_that_of_the_graph(model, monkeypatch):
    vae, images = model
    assert compiling.xla_pays(vae)
    vae.objective = "elbo"  # another one, so that the graph is made anew
    compiled = evaluation.log_likelihood(vae, images, samples=30).per_example
    monkeypatch.setattr(compiling, "xla_pays", lambda model: False)
    vae.objective = "elbo"
    plain = evaluation.log_likelihood(vae, images, samples=30).per_example
    # XLA's erfinv differs by up to 3e-5 in the tails, which moves log p(x|z) by as much times the slope of the decoder.
    np.testing.assert_allclose(compiled, plain, rtol=1e-4)


@pytest.mark.slow
def test_the_bound_grows_from_the_elbo_towards_log_p(model):
    vae, images = model
    images = repeated(images, 20)
    bounds = [evaluation.log_likelihood(vae, images, samples=samples).mean for samples in (10, 1000)]
    means = [evaluation.elbo(vae, images).elbo.mean, *bounds, exact_log_p(vae).mean() + 0.015]
    # Only the last step is as small as the noise: 0.015 nats are three standard errors of the mean of 320 bounds of
    # 1000 samples, the relative variance of the weights being about 8: sqrt(8 / 1000 / 320) = 0.005.
    assert means == sorted(means)


# What a result may not depend on: only the order in which float32 rounds may change, some eps of 10 nats.
ROUNDING = {"rtol": 0, "atol": 1e-5}


@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_elbo_does_not_depend_on_the_batch_size(model_2d, batch_size):
    vae, images = model_2d
    batches = tf.data.Dataset.from_tensor_slices(images).batch(batch_size)
    actual, expected = evaluation.elbo(vae, batches), evaluation.elbo(vae, images)
    np.testing.assert_allclose(actual.elbo.per_example, expected.elbo.per_example, **ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_log_likelihood_does_not_depend_on_the_batch_size(model_2d, batch_size):
    vae, images = model_2d
    batches = tf.data.Dataset.from_tensor_slices(images).batch(batch_size)
    actual, expected = (evaluation.log_likelihood(vae, data, samples=30) for data in (batches, images))
    np.testing.assert_allclose(actual.per_example, expected.per_example, **ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 16, 100, 480])
def test_log_likelihood_does_not_depend_on_the_chunk_size(monkeypatch, model_2d, chunk):
    vae, images = model_2d
    expected = evaluation.log_likelihood(vae, images, samples=30)
    monkeypatch.setattr("kvae.internal.batch_sizes.VALUES_AT_ONCE", chunk * int(np.prod(images.shape[1:])))
    actual = evaluation.log_likelihood(vae, images, samples=30)
    np.testing.assert_allclose(actual.per_example, expected.per_example, **ROUNDING)


@pytest.mark.parametrize(
    "measure",
    [
        lambda vae, images, seed: evaluation.elbo(vae, images, seed=seed).elbo,
        lambda vae, images, seed: evaluation.log_likelihood(vae, images, samples=3, seed=seed),
    ],
    ids=["elbo", "log_likelihood"],
)
def test_another_seed_gives_other_draws(model_2d, measure):
    assert not np.isin(measure(*model_2d, 0).per_example, measure(*model_2d, 1).per_example).any()


# Means and standard errors


def test_estimate_has_the_standard_error_of_scipy(rng):
    values = rng.normal(100.0, 5.0, size=1000).astype(np.float32)
    expected = stats.sem(values.astype(np.float64))
    assert evaluation.Estimate(values).standard_error == pytest.approx(expected, rel=1e-12)  # both sum in float64


def test_estimate_averages_in_float64(rng):
    values = rng.normal(100.0, 5.0, size=1000).astype(np.float32)
    expected = math.fsum(values) / 1000
    # A mean in float32 would be off by up to 4e-6.
    assert evaluation.Estimate(values).mean == pytest.approx(expected, rel=1e-12)


def test_kl_per_dimension_sums_to_kl(model_2d):
    terms = evaluation.elbo(*model_2d)
    total = sum(dimension.per_example for dimension in terms.kl_per_dimension)
    np.testing.assert_allclose(total, terms.kl.per_example, rtol=1e-6)  # one float32 addition in either


def test_elbo_is_minus_its_terms(model_2d):
    terms = evaluation.elbo(*model_2d)
    total = -terms.reconstruction.per_example - terms.kl.per_example
    np.testing.assert_allclose(terms.elbo.per_example, total, rtol=1e-6)  # one float32 subtraction in either


@pytest.mark.parametrize(("scales", "expected"), [((0.0, 0.0), 0), ((1.0, 0.0), 1), ((1.0, 0.02), 1), ((1.0, 1.0), 2)])
def test_active_units_leaves_out_collapsed_dimensions(model_2d, scales, expected):
    vae, images = model_2d
    # The posterior means of both dimensions have a variance of 0.1 to 1 before: 0.02^2 of that is below 0.01.
    vae.encoder.mean_head.kernel.assign(vae.encoder.mean_head.kernel * np.float32(scales))
    assert evaluation.elbo(vae, images).active_units == expected


# evaluate


TERMS = {"elbo", "reconstruction", "kl", "kl_per_dimension"}


def keys_of(names):
    return {*names, *(f"{name}_standard_error" for name in names), "active_units", "latent_dim", "protocol"}


@pytest.mark.parametrize(("samples", "names"), [(None, TERMS), (5, {*TERMS, "log_likelihood"})])
def test_evaluate_returns_the_documented_keys(model_2d, samples, names):
    assert set(evaluation.evaluate(*model_2d, samples=samples)) == keys_of(names)


def test_samples_that_no_evaluation_takes_are_refused(model_2d):
    with pytest.raises(UserError, match=r"draws 5 samples per image, such as log_likelihood\. Received elbo"):
        evaluation.evaluate(*model_2d, only=["elbo"], samples=5)
    found = evaluation.evaluate(*model_2d, only=["elbo", "log_likelihood"], samples=5)
    assert found == evaluation.evaluate(*model_2d, samples=5)


@pytest.mark.slow
def test_evaluate_is_ready_for_json(model_2d):
    result = evaluation.evaluate(*model_2d, samples=5, protocol={"dataset": "all"})
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_evaluate_of_one_example_is_ready_for_json(model_2d):
    vae, images = model_2d
    json.dumps(evaluation.evaluate(vae, images[:1]), allow_nan=False)


@pytest.mark.slow
def test_evaluate_states_its_protocol(model_2d):
    protocol = evaluation.evaluate(*model_2d, samples=5, seed=3)["protocol"]
    del protocol["likelihood"]  # a test of its own below
    assert protocol == {
        "evaluations": ["elbo", "log_likelihood"],
        "examples": 16,
        "units": "nats per example",
        "prior": "standard_normal",
        "posterior": "diagonal_gaussian",
        "kl": "analytic",
        "elbo_draws": elbo_terms.DRAWS,
        "noise": 2,
        "importance_images": None,  # all
        "importance_samples": 5,
        "seed": 3,
    }


@pytest.mark.parametrize(
    ("options", "kl"),
    [
        ({"posterior": "full_covariance"}, "analytic"),
        ({"objective": "iwae"}, "analytic"),
        ({"kl": "sampled"}, "sampled"),
        ({"prior": "mixture"}, "sampled"),
        ({"posterior": "iaf", "condition": 3}, "sampled"),
    ],
)
def test_the_protocol_says_how_the_kl_term_was_computed(options, kl):
    vae, x = untrained(2, **options)
    result = evaluation.evaluate(vae, x if vae.condition_shape is None else (x, np.zeros(len(x), int)))
    assert result["protocol"]["kl"] == kl


def test_evaluate_keeps_the_protocol_of_the_data(model_2d):
    protocol = evaluation.evaluate(*model_2d, protocol={"dataset": "all", "split": "test"})["protocol"]
    assert (protocol["dataset"], protocol["split"]) == ("all", "test")


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "gaussian"])
def test_protocol_names_the_likelihood_alike_for_every_model(likelihood):
    models = [untrained(2, likelihood=likelihood) for _ in range(2)]
    names = [evaluation.evaluate(*model)["protocol"]["likelihood"] for model in models]
    assert names == [likelihood, likelihood]


def test_protocol_says_that_the_squared_error_lacks_its_constant():
    protocol = evaluation.evaluate(*untrained(2, likelihood="squared_error"))["protocol"]
    assert protocol["likelihood"] == "squared_error (without the constant of its density: no bound of log p(x))"


def test_squared_error_elbo_is_the_gaussians_without_its_constant():
    squared, gaussian = (
        evaluation.evaluate(*untrained(2, likelihood=likelihood))
        for likelihood in ("squared_error", kvae.likelihoods.Gaussian(1.0))
    )
    constant = -4 * stats.norm.logpdf(0.0)  # of four pixels
    assert squared["elbo"] - gaussian["elbo"] == pytest.approx(constant, abs=1e-5)  # float32, nats up to 10
    assert squared["kl"] == gaussian["kl"]


def test_evaluate_states_what_elbo_measures(model_2d):
    assert evaluation.evaluate(*model_2d, seed=3)["elbo"] == evaluation.elbo(*model_2d, seed=3).elbo.mean


@pytest.mark.slow
def test_evaluate_states_what_log_likelihood_measures(model_2d):
    expected = evaluation.log_likelihood(*model_2d, samples=5, seed=3).mean
    assert evaluation.evaluate(*model_2d, samples=5, seed=3)["log_likelihood"] == expected


# What comes in

MEASURES = {
    "elbo": evaluation.elbo,
    "log_likelihood": lambda vae, data: evaluation.log_likelihood(vae, data, samples=2),
    "evaluate": evaluation.evaluate,
}
every_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


@pytest.mark.slow
def test_labels_are_ignored(model_2d):
    vae, images = model_2d
    pairs = tf.data.Dataset.from_tensor_slices((images, np.arange(16))).batch(16)
    assert evaluation.evaluate(vae, pairs, samples=2) == evaluation.evaluate(vae, images, samples=2)


@every_measure
@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 3), (3, 2, 3, 1), (2, 2, 1)])
def test_images_of_another_shape_are_refused(model_2d, measure, shape):
    received = ", ".join(map(str, shape))
    with pytest.raises(UserError, match=rf"Expected (x of shape|images with a batch axis).*Received.*\[{received}\]"):
        measure(model_2d[0], np.zeros(shape))


@every_measure
@pytest.mark.parametrize(
    "data", [np.zeros((0, 2, 2, 1)), tf.data.Dataset.from_tensor_slices(np.zeros((0, 2, 2, 1))).batch(4)]
)
def test_no_data_is_refused(model_2d, measure, data):
    with pytest.raises(UserError, match=r"at least one image.*Received none"):
        measure(model_2d[0], data)


@every_measure
def test_a_model_that_was_not_built_is_refused(measure):
    with pytest.raises(UserError, match="build"):
        measure(kvae.VAE(2), IMAGES)


@pytest.mark.parametrize("samples", [0, -1, 2.5, True, "10"])
@pytest.mark.parametrize("measure", [evaluation.log_likelihood, evaluation.evaluate])
def test_samples_must_be_a_whole_number_of_at_least_one(model_2d, measure, samples):
    with pytest.raises(UserError, match=f"samples to be a whole number of at least 1. Received {samples!r}"):
        measure(*model_2d, samples=samples)


def test_draws_must_be_a_whole_number_of_at_least_one(model_2d):
    with pytest.raises(UserError, match="draws to be a whole number of at least 1"):
        evaluation.elbo(*model_2d, draws=0)


def test_an_estimate_is_printed_as_its_mean_with_the_standard_error():
    assert str(evaluation.Estimate(np.arange(1000.0))) == "Estimate(mean=499.5, standard_error=9.13, images=1000)"
    assert str(evaluation.Estimate(np.ones(1))) == "Estimate(mean=1, standard_error=None, images=1)"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["elbo"], {"elbo": {}}),
        (["elbo", "elbo", "ais()"], {"elbo": {}, "ais": {}}),
        (["ais(images=3, chains=4)", "elbo(draws=2)"], {"ais": {"images": 3, "chains": 4}, "elbo": {"draws": 2}}),
    ],
)
def test_evaluations_are_chosen_with_their_options(texts, expected):
    assert evaluations.chosen(texts) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["elbow"], "elbo"),
        (["elbo(drawn=2)"], "draws"),
        (["elbo(seed=2)"], "option of elbo"),
        (["elbo(2)"], r"such as ais\(images=100\)"),
        (["elbo", "elbo(draws=2)"], "Expected each evaluation once"),
    ],
)
def test_other_choices_are_refused_in_words(texts, message):
    with pytest.raises(UserError, match=message):
        evaluations.chosen(texts)


def test_options_are_used_and_stated(rng):
    vae = tiny()
    vae.build((None, 2, 2, 1))
    x = rng.integers(0, 2, (7, 2, 2, 1)).astype(np.float32)
    found = evaluation.measure(vae, x, only=["elbo(draws=3)", "bounds(images=4, sample_sizes=[1, 2])"])
    assert found.protocol["elbo_draws"] == 3
    assert found.protocol["bound_images"] == 4
    assert found.protocol["bound_sizes"] == [1, 2]
    assert found.protocol["evaluations"] == ["elbo", "bounds"]
    assert found.protocol["examples"] == 7
    assert len(found.results["bounds"][0].per_example) == 4
    alone = evaluation.log_likelihood(vae, x[:4], samples=2).per_example
    np.testing.assert_allclose(found.results["bounds"][1].per_example, alone, rtol=0, atol=1e-5)
    whole = evaluation.measure(vae, x, only=["bounds(sample_sizes=[1])"])
    assert whole.protocol["bound_images"] is None


def test_an_invalid_number_of_images_is_refused(rng):
    vae = tiny()
    vae.build((None, 2, 2, 1))
    x = rng.integers(0, 2, (7, 2, 2, 1)).astype(np.float32)
    for text in ("bounds(images=0)", "ais(images='x')", "gaps(images=1.5)"):
        with pytest.raises(UserError, match="images"):
            evaluation.evaluate(vae, x, only=[text])
