"""Each objective against NumPy and SciPy, against the ELBO in its limit, and against finite differences, in float64."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from objective_cases import CASES, DEEP, DRAWS, IMAGES, LATENT, Float64Model
from scipy import special, stats

from kvae import objectives
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities, likelihoods, networks, posteriors, priors
from kvae.model.posteriors import Gaussian

ROUNDING = 1e-12  # relative, of sums of a few dozen float64 numbers


@pytest.fixture(scope="module")
def model():
    return Float64Model()


@pytest.fixture(scope="module")
def draws(model):
    return model.draws()


@pytest.fixture(scope="module")
def log_weights(draws):
    return draws.log_likelihood.numpy() + draws.log_prior.numpy() - draws.log_q.numpy()


def loss(objective, draws, step=0):
    losses = objective.loss(draws, step)
    return np.stack(losses) if isinstance(losses, tuple) else losses.numpy()


def bound(log_weights):
    return special.logsumexp(log_weights, axis=0) - np.log(len(log_weights))


def test_there_is_a_case_of_every_objective():
    assert CASES.keys() == objectives.OBJECTIVES.keys()
    for name, make in CASES.items():
        assert type(make()) is objectives.OBJECTIVES[name]


def test_the_page_of_models_has_a_row_for_every_part():
    page = (Path(__file__).parents[2] / "docs" / "MODELS.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` `(\w+)\(", page, re.M))
    tables = (networks.NETWORKS, likelihoods.LIKELIHOODS, objectives.OBJECTIVES, priors.PRIORS, posteriors.POSTERIORS)
    assert rows == {name: cls.__name__ for table in tables for name, cls in table.items()}


# Against NumPy and SciPy


def test_iwae_is_the_bound_of_all_draws(draws, log_weights):
    np.testing.assert_allclose(loss(objectives.IWAE(DRAWS), draws), -bound(log_weights), rtol=ROUNDING)


def test_miwae_is_the_mean_bound_of_groups_of_draws(draws, log_weights):
    groups = [bound(log_weights[first::3]) for first in range(3)]  # any partition is as good
    np.testing.assert_allclose(loss(objectives.MIWAE(DRAWS, 3), draws), -np.mean(groups, axis=0), rtol=ROUNDING)


def test_ciwae_combines_the_bound_with_the_mean(draws, log_weights):
    expected = -(0.3 * log_weights.mean(axis=0) + 0.7 * bound(log_weights))
    np.testing.assert_allclose(loss(objectives.CIWAE(DRAWS, 0.3), draws), expected, rtol=ROUNDING)


def test_piwae_is_miwae_for_the_encoder_and_iwae_for_the_rest(draws):
    expected = [loss(objectives.MIWAE(DRAWS, 3), draws), loss(objectives.IWAE(DRAWS), draws)]
    np.testing.assert_array_equal(loss(objectives.PIWAE(DRAWS, 3), draws), expected)


def test_capacity_is_the_distance_of_the_kl_term(draws):
    reconstruction, kl = draws.reconstruction.numpy(), draws.kl.numpy()
    assert kl.min() < 0.9 < kl.max()  # both sides
    expected = reconstruction + 3 * np.abs(kl - 0.9)
    np.testing.assert_allclose(loss(objectives.Capacity(3.0, 0.9), draws), expected, rtol=ROUNDING)


@pytest.mark.parametrize("groups", [None, 1, 2])
def test_free_bits_limit_the_mean_kl_term_of_each_group(draws, groups):
    kl = draws.kl_per_dimension.numpy()
    kl = kl.sum(axis=1, keepdims=True) if groups == 1 else kl
    low, high = kl.mean(axis=0).min(), kl.mean(axis=0).max()
    for nats in (0.0, low / 2, (low + high) / 2, 2 * high):
        expected = draws.reconstruction.numpy().mean() + np.maximum(nats, kl.mean(axis=0)).sum()
        found = loss(objectives.FreeBits(nats, groups), draws).mean()
        assert found == pytest.approx(expected, rel=ROUNDING)


def test_free_bits_of_a_group_below_the_limit_have_no_gradient(model):
    for nats, expected in ((0.0, False), (100.0, True)):
        objective, weights = objectives.FreeBits(nats), [tf.constant(weight) for weight in model.weights]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            draws = model.draws(weights)
            kl = objective.loss(draws, 0) - draws.reconstruction
        gradients = tape.gradient(kl, weights[:2], unconnected_gradients="zero")
        assert all((np.asarray(each) == 0).all() for each in gradients) == expected


def aggregate(z, mean, log_var, size, own):
    """log of the estimate of q(z), and of q(z_d) `[D]`, from a batch by Chen et al. (2018), appendix C.2, in loops."""
    others = [index for index in range(len(mean)) if index != own]
    last = (own + 1) % len(mean)
    joint, each = [], []
    for index in [own, *others]:
        weight = 1 / size if index == own else 1 / len(others)
        if index == last:
            weight = (size - len(others)) / (size * len(others))
        log_density = stats.norm.logpdf(z, mean[index], np.exp(log_var[index] / 2))
        joint.append(np.log(weight) + log_density.sum())
        each.append(np.log(weight) + log_density)
    return special.logsumexp(joint), special.logsumexp(each, axis=0)


def test_the_parts_of_beta_tc_are_those_of_the_stratified_estimator(model):
    draws = model.draws(kl="sampled")
    size, (mean, log_var) = 23, (part.numpy() for part in draws.q)
    expected = np.zeros((3, DRAWS, IMAGES))
    for k, i in itertools.product(range(DRAWS), range(IMAGES)):
        joint, each = aggregate(draws.z[k, i].numpy(), mean, log_var, size, i)
        expected[:, k, i] = (
            draws.log_q[k, i] - joint,
            joint - each.sum(),
            each.sum() - draws.log_prior[k, i],
        )
    objective = objectives.BetaTC(4.0, samples=DRAWS, kl="sampled", data_size=size)
    terms = objective.terms(draws)
    assert list(terms) == ["index_code_mi", "total_correlation", "dimension_wise_kl"]
    np.testing.assert_allclose(list(terms.values()), expected.mean(axis=1), rtol=1e-10, atol=1e-12)  # differences
    kl = (draws.log_q - draws.log_prior).numpy().mean(axis=0)
    np.testing.assert_allclose(sum(terms.values()), kl, rtol=ROUNDING, atol=1e-12)
    mi, tc, rest = expected.mean(axis=1)
    np.testing.assert_allclose(loss(objective, draws), draws.reconstruction + mi + 4 * tc + rest, rtol=1e-10)


def test_the_parts_of_beta_tc_sum_to_the_kl_term_in_closed_form(model, draws):
    objective = objectives.BetaTC(4.0, samples=DRAWS, data_size=23)
    terms, sampled = objective.terms(draws), objective.terms(model.draws(kl="sampled"))
    np.testing.assert_allclose(sum(terms.values()), draws.kl, rtol=ROUNDING)
    for name in ("index_code_mi", "total_correlation"):
        np.testing.assert_array_equal(terms[name], sampled[name])
    expected = draws.reconstruction + draws.kl + 3 * terms["total_correlation"]
    np.testing.assert_allclose(loss(objective, draws), expected, rtol=ROUNDING)


def test_the_stratified_estimate_of_q_is_right_on_the_average(rng):
    """Its mean over all batches with the image of z is the mean of q(z|x) over the whole set of N = 4 images."""
    mean, log_var, z = rng.normal(size=(4, 1)), rng.normal(size=(4, 1)), rng.normal(size=(1, 1))
    objective, estimates = objectives.BetaTC(data_size=4), []
    for others in itertools.permutations((1, 2, 3), 2):
        batch = [0, *others]
        q = Gaussian(tf.constant(mean[batch]), tf.constant(log_var[batch]))
        drawn = tf.constant(np.repeat(z[None], 3, axis=1))
        log_q = q.log_prob(drawn)
        found = objective.decompose(objectives.Draws(drawn, 0 * log_q, 0 * log_q, log_q, log_q[0], None, q))
        estimates.append(np.exp(log_q[0, 0] - found.index_code_mi[0]))
    expected = stats.norm.pdf(z[0, 0], mean[:, 0], np.exp(log_var[:, 0] / 2)).mean()
    assert np.mean(estimates) == pytest.approx(expected, rel=ROUNDING)


def test_a_batch_of_one_image_has_neither_total_correlation_nor_mutual_information():
    draws = Float64Model(images=1).draws(kl="sampled")
    parts = objectives.BetaTC(data_size=23).decompose(draws)
    assert float(parts.index_code_mi[0]) == pytest.approx(0, abs=1e-14)
    # With D > 1 the one q is factorized.
    assert float(parts.total_correlation[0]) == pytest.approx(0, abs=1e-14)
    assert float(parts.dimension_wise_kl[0]) == pytest.approx(float((draws.log_q - draws.log_prior).numpy().mean()))


def test_a_batch_of_more_images_than_there_are_for_training_has_finite_parts(draws):
    assert np.isfinite(list(objectives.BetaTC(data_size=2).terms(draws).values())).all()


def kernel(one, other):
    """exp(-|z - z'|^2 / (2 D)) of all pairs."""
    return np.exp(-((one[:, None] - other[None]) ** 2).sum(axis=-1) / (2 * one.shape[-1]))


def test_info_weighs_the_kl_term_and_an_unbiased_mmd(draws):
    of_draws, prior_alone = [], of_prior()
    for z in draws.z.numpy():
        pairs = [kernel(z, z)[i, j] for i in range(IMAGES) for j in range(IMAGES) if i != j]
        with_prior = [quadrature_2d(lambda points, each=each: kernel(each[None], points)[0]) for each in z]
        of_draws.append(np.mean(pairs) - 2 * np.mean(with_prior) + prior_alone)
    mmd = objectives.Info(samples=DRAWS).terms(draws)["mmd"]
    assert float(np.mean(mmd)) == pytest.approx(np.mean(of_draws), rel=1e-9)  # Gauss-Hermite, 30 points per side
    expected = draws.reconstruction + 0.7 * draws.kl + (0.3 + 9 - 1) * mmd
    np.testing.assert_allclose(loss(objectives.Info(0.3, 9.0, samples=DRAWS), draws), expected, rtol=ROUNDING)


def quadrature_2d(function):
    """E[function(z)] of z ~ N(0, I), D = 2."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(30)
    points = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, LATENT)
    return np.outer(weights, weights).ravel() @ function(points) / (2 * np.pi)


def of_prior():
    return quadrature_2d(lambda points: np.array([quadrature_2d(lambda z, p=p: kernel(p[None], z)[0]) for p in points]))


def test_the_mmd_of_the_prior_with_itself_is_0_on_the_average(rng):
    z = tf.constant(rng.normal(size=(4000, 20, 3)))
    draws = objectives.Draws(z, *[tf.zeros([4000, 20], tf.float64)] * 3, tf.zeros([20], tf.float64), None, None)
    each = np.asarray([np.mean(objectives.Info().terms(draws._replace(z=part[None]))["mmd"]) for part in z[:400]])
    assert abs(each.mean()) < 4 * each.std() / 20  # a biased estimate would be 1/20, many times more
    assert each.std() < 0.05


def test_a_batch_of_one_image_has_no_mmd():
    assert objectives.Info().terms(Float64Model(images=1).draws())["mmd"].numpy().tolist() == [0.0]


# The limits


LIMITS = {
    "iwae": (objectives.IWAE(1), "sampled", 1),
    "dreg": (objectives.DReG(1), "sampled", 1),
    "piwae of one draw": (objectives.PIWAE(1, 1), "sampled", 1),
    "miwae with as many groups as draws": (objectives.MIWAE(DRAWS, DRAWS), "sampled", DRAWS),
    "ciwae of the ELBO": (objectives.CIWAE(DRAWS, 1.0), "sampled", DRAWS),
    "free bits of 0": (objectives.FreeBits(0.0, samples=DRAWS), "analytic", DRAWS),
    "a group of free bits of 0": (objectives.FreeBits(0.0, 1, samples=DRAWS), "analytic", DRAWS),
    "capacity 0 with gamma 1": (objectives.Capacity(1.0, 0.0, samples=DRAWS), "analytic", DRAWS),
    "beta_tc with beta 1": (objectives.BetaTC(1.0, samples=DRAWS, data_size=9), "analytic", DRAWS),
    "info without MMD": (objectives.Info(0.0, 1.0, samples=DRAWS), "analytic", DRAWS),
    "beta_tc, sampled": (objectives.BetaTC(1.0, samples=DRAWS, kl="sampled", data_size=9), "sampled", DRAWS),
}


@pytest.mark.parametrize(("objective", "kl", "samples"), LIMITS.values(), ids=LIMITS)
def test_the_limit_is_the_elbo(objective, kl, samples):
    draws = Float64Model(draws=samples).draws(kl=kl)
    losses = np.atleast_2d(loss(objective, draws))  # some have one for the encoder and one for the rest
    np.testing.assert_allclose(losses, np.broadcast_to(-draws.elbo, losses.shape), rtol=1e-10)
    np.testing.assert_allclose(loss(objectives.ELBO(samples=samples, kl=kl), draws), -draws.elbo, rtol=ROUNDING)


def test_every_objective_has_a_limit():
    assert {type(objective) for objective, _, _ in LIMITS.values()} | {objectives.ELBO} == {
        *objectives.OBJECTIVES.values()
    }


def test_the_encoder_of_piwae_with_as_many_groups_as_draws_has_the_loss_of_the_elbo(draws):
    sampled = np.mean(draws.log_weights, axis=0)
    np.testing.assert_allclose(loss(objectives.PIWAE(DRAWS, DRAWS), draws)[0], -sampled, rtol=1e-10)


def test_the_limits_of_the_bounds_are_iwae(draws):
    for objective in (objectives.MIWAE(DRAWS, 1), objectives.CIWAE(DRAWS, 0.0)):
        np.testing.assert_allclose(loss(objective, draws), loss(objectives.IWAE(DRAWS), draws), rtol=ROUNDING)


def test_at_its_capacity_the_kl_term_costs_nothing(draws):
    one = objectives.Draws(*[part[:, :1] for part in draws[:4]], draws.kl[:1], None, None)
    objective = objectives.Capacity(1000.0, float(draws.kl[0]))
    assert float(loss(objective, one)[0]) == pytest.approx(float(one.reconstruction[0]), rel=ROUNDING)


# Gradients


@pytest.mark.parametrize(("name", "which"), [*((name, 0) for name in DEEP), ("piwae", 1)])
def test_gradients_are_those_of_finite_differences(model, name, which):
    objective = CASES[name]()

    def value(weights):
        losses = objective.loss(model.draws(weights, objective.kl), 0)
        return tf.reduce_mean(losses[which] if isinstance(losses, tuple) else losses)

    weights = [tf.constant(weight) for weight in model.weights]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        whole = value(weights)
    gradients, rng = tape.gradient(whole, weights), np.random.default_rng(1)
    for _ in range(3):
        ways = [rng.normal(size=weight.shape) for weight in weights]
        step = 1e-5  # errs by its square times a third derivative, and by 1e-16 / step of rounding: 1e-10
        up, down = (
            value([weight + sign * step * way for weight, way in zip(weights, ways, strict=True)]) for sign in (1, -1)
        )
        along = sum(float(tf.reduce_sum(part * way)) for part, way in zip(gradients, ways, strict=True))
        assert along == pytest.approx(float(up - down) / (2 * step), rel=1e-6, abs=1e-8)


def test_the_gradient_of_dreg_has_the_mean_of_that_of_iwae_and_less_variance():
    """Of 20,000 images that are equal but for their noise, each with its own parameters of q: 20,000 gradients."""
    repetitions, draws, rng = 20_000, 5, np.random.default_rng(1)
    noise = tf.constant(rng.normal(size=(draws, repetitions, LATENT)))
    matrix, x = tf.constant(rng.normal(size=(LATENT, 3))), tf.constant(rng.normal(size=3))

    def gradients(objective):
        parameters = [tf.fill([repetitions, LATENT], tf.constant(value, tf.float64)) for value in (0.7, -1.0)]
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            q = Gaussian(*parameters)
            z = densities.reparameterize(*q, noise)
            log_likelihood = tf.reduce_sum(densities.gaussian_log_density(x, z @ matrix, 0.0), axis=-1)
            log_prior = tf.reduce_sum(densities.standard_normal_log_density(z), axis=-1)
            log_q = q.log_prob(z)
            losses = objective.loss(objectives.Draws(z, log_likelihood, log_prior, log_q, log_q[0], None, q), 0)
            first = losses[0] if isinstance(losses, tuple) else losses
        return np.concatenate(tape.gradient(first, parameters), axis=1)

    iwae, dreg = gradients(objectives.IWAE(draws)), gradients(objectives.DReG(draws))
    difference = (dreg - iwae).mean(axis=0)
    error = (dreg - iwae).std(axis=0) / np.sqrt(repetitions)
    assert (np.abs(difference) < 5 * error).all()  # four numbers; chance exceeds it once in 400,000
    assert (np.abs(dreg.mean(axis=0)) > 10 * error).all()  # so that the test would see a wrong factor
    assert (dreg.var(axis=0) < 0.5 * iwae.var(axis=0)).all()


def test_the_second_loss_of_dreg_is_iwae(draws):
    np.testing.assert_array_equal(loss(objectives.DReG(DRAWS), draws)[1], loss(objectives.IWAE(DRAWS), draws))


# Options, files, refusals


@pytest.mark.parametrize("name", CASES)
def test_an_objective_is_what_it_was_after_serialization(name, draws):
    objective = CASES[name]()
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(objective)))
    )
    assert type(again) is type(objective)
    assert (again.get_config(), again.samples, again.kl) == (objective.get_config(), DRAWS, objective.kl)
    np.testing.assert_array_equal(loss(again, draws), loss(objective, draws))


@pytest.mark.parametrize("make", [lambda s: objectives.Capacity(2.0, s), lambda s: objectives.BetaTC(s, data_size=9)])
@pytest.mark.parametrize(
    "schedule",
    [
        objectives.LinearWarmup(2.0, 8),
        {"kind": "cyclical", "beta": 2.0, "period": 16},
        keras.optimizers.schedules.PolynomialDecay(0.0, 8, 2.0),
    ],
    ids=["linear", "table", "of Keras"],
)
def test_a_schedule_is_followed_and_saved(make, schedule, draws):
    objective = make(schedule)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
    for step, value in ((0, 0.0), (4, 1.0), (8, 2.0)):
        for each in (objective, again):
            np.testing.assert_allclose(loss(each, draws, step), loss(make(value), draws), rtol=1e-6)  # float32
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        np.testing.assert_allclose(loss(objective.at_end(), draws, 0), loss(make(2.0), draws), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: objectives.IWAE(0), "samples"),
        (lambda: objectives.MIWAE(6, 4), "samples to be a multiple of groups"),
        (lambda: objectives.CIWAE(5, 1.5), "weight to be from 0 to 1"),
        (lambda: objectives.FreeBits(-1.0), "nats to be a finite number"),
        (lambda: objectives.FreeBits(1.0, 0), "groups"),
        (lambda: objectives.Capacity(gamma=-1.0), "gamma to be a finite number"),
        (lambda: objectives.Capacity(capacity="25"), "capacity to be a finite number"),
        (lambda: objectives.BetaTC(-1.0), "beta to be a finite number"),
        (lambda: objectives.BetaTC(data_size=0), "data_size"),
        (lambda: objectives.Info(1.5), "alpha to be from 0 to 1"),
        (lambda: objectives.Info(0.2, 0.5), r"weight at least 1 - alpha\. Received alpha=0\.2 and weight=0\.5"),
        (lambda: objectives.BetaTC(kl="sample"), "Did you mean 'sampled'"),
        (lambda: objectives.Capacity(kl="sample"), "Did you mean 'sampled'"),
        (lambda: objectives.ELBO({"kind": "cyclic", "beta": 1.0}), "Did you mean 'cyclical'"),
        (lambda: objectives.ELBO({"beta": 1.0}), "kind of schedule for beta"),
        (lambda: objectives.ELBO({"kind": "linear", "beta": 1.0}), r"beta, steps, start.*missing.*'steps'"),
        (lambda: objectives.ELBO({"kind": "linear", "beta": 1.0, "steps": "many"}), "at least 1 step"),
        (
            lambda: objectives.DReG(5).check(BoundPrior(), posteriors.DiagonalGaussian()),
            "does not depend on the encoder.*BoundPrior.*IWAE",
        ),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


class BoundPrior(priors.StandardNormal):
    def bind(self, encode):
        self.encode = encode


@pytest.mark.parametrize(
    ("objective", "change", "message"),
    [
        (
            objectives.FreeBits(0.1),
            {"kl_per_dimension": None},
            "per dimension in closed form.*makes Gaussian.*groups=1",
        ),
        (objectives.FreeBits(0.1, 3), {}, "latent size to be a multiple of groups=3"),
        (objectives.BetaTC(), {}, r"number of training images.*BetaTC\(data_size=...\)"),
        (objectives.BetaTC(data_size=9), {"q": object()}, "posterior diagonal_gaussian"),
    ],
)
def test_models_that_an_objective_cannot_train_are_refused(draws, objective, change, message):
    with pytest.raises(UserError, match=message):
        objective.loss(draws._replace(**change), 0)


def test_one_group_of_free_bits_needs_no_closed_form(draws):
    loss(objectives.FreeBits(0.1, groups=1), draws._replace(kl_per_dimension=None))
