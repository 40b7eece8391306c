"""Parts that a user wrote work everywhere that those of kvae work, and no file of kvae names them.

The same tests look at kvae's own, in pairs; tests/cli/test_cli_priors.py has the commands with each prior.
"""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from exports import without_costs
from fit_paths import recorded_paths
from own_parts import PIWAE, GumbelPosterior, Mixture, TwoNumberGaussian, Vamp
from scipy import stats

import kvae
from kvae import completion, evaluation, export, runtime
from kvae.data import load
from kvae.evaluation import evidence
from kvae.internal import sealed
from kvae.internal.errors import UserError
from kvae.model import posteriors, priors
from kvae.noise import portable
from kvae.noise.streams import Stream
from kvae.plotting import figures
from kvae.runtime.litert import LiteRTDecoder

pytestmark = pytest.mark.usefixtures("without_xla")  # many models, of which XLA is not what is tested

OPTIONS = {
    "prior": lambda: {"prior": Mixture()},
    "likelihood": lambda: {"likelihood": TwoNumberGaussian()},
    "posterior": lambda: {"posterior": GumbelPosterior()},
    "objective": lambda: {"objective": PIWAE(samples=4)},
    "all": lambda: {
        "prior": Mixture(),
        "likelihood": TwoNumberGaussian(),
        "posterior": GumbelPosterior(),
        "objective": PIWAE(samples=4),
    },
    "mixture and full covariance": lambda: {"prior": "mixture", "posterior": "full_covariance"},
    "vamp and iaf": lambda: {"prior": priors.VampPrior(5), "posterior": posteriors.IAF(2, 8, 4)},
    "two layers": lambda: {"prior": priors.Hierarchical(1, 8), "posterior": posteriors.BottomUp(1, 8)},
}
# One by one they are the longer check; a model of all four is looked at in every run of the tests.
EACH = [pytest.param(name, marks=[] if name == "all" else pytest.mark.slow) for name in OPTIONS]
EXACT = {"likelihood", "posterior", "objective"}  # whose prior is the standard normal
OF_PRIORS = {"mixture and full covariance": "mixture", "vamp and iaf": "vamp", "two layers": "hierarchical"}


@pytest.fixture(scope="module")
def data():
    return load("mnist5k", train="train[:120]", test="test[:30]", batch_size=25, seed=1)


@pytest.fixture(scope="module", params=EACH)
def trained(request, data):
    """A model with parts of a user's own, after two epochs of `fit`, and which paths those took."""
    vae = kvae.VAE(2, hidden_units=(12,), seed=3, **OPTIONS[request.param]())
    vae.compile(keras.optimizers.Adam(1e-2))
    data.epoch.assign(0)  # the same training, whichever test was first
    with recorded_paths() as paths, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "The posterior has collapsed")  # as it may have, in so short a training
        history = vae.fit(data.train, validation_data=data.test, epochs=3, verbose=0).history
    return request.param, vae, history, paths


@pytest.mark.slow
def test_they_train_on_the_fast_path(trained):
    _, _, history, paths = trained
    assert set(paths) == {"fast"}
    assert history["loss"][-1] < history["loss"][0]
    assert history["val_elbo"][-1] > history["val_elbo"][0]


@pytest.mark.slow
def test_all_their_weights_train(data):
    vae = kvae.VAE(2, hidden_units=(12,), seed=3, **OPTIONS["all"]())
    vae.build((None, 28, 28, 1))
    before = [np.array(variable) for variable in vae.trainable_variables]
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.fit(data.train, verbose=0)
    assert len(before) == 2 + 2 + 4 + 2  # encoder: a layer and one head; the prior; decoder: a layer and a head
    for old, new in zip(before, vae.trainable_variables, strict=True):
        assert not np.array_equal(old, new), new.path


@pytest.mark.slow
def test_keras_evaluates_them_with_every_batch_size(trained, data):
    _, vae, _, _ = trained
    sets = [data.test.unbatch().batch(size) for size in (7, 30)]
    results = [vae.evaluate(images, return_dict=True, verbose=0) for images in sets]
    for name, value in results[0].items():
        # float32 means in another order; a KL term of nearly 0 is the difference of log densities of a few nats
        assert value == pytest.approx(results[1][name], rel=1e-5, abs=1e-6), name


def test_further_terms_are_metrics(trained):
    name, _, history, _ = trained
    assert ("effective_samples" in history) == (name in ("objective", "all"))
    if "effective_samples" in history:
        assert all(1 <= value <= 4 for value in history["effective_samples"])


@pytest.mark.slow
def test_evaluation_measures_them(trained, data):
    _, vae, _, _ = trained
    result = evaluation.evaluate(vae, data.test, samples=50)
    assert result["log_likelihood"] > result["elbo"] - 1e-3
    assert result["elbo"] == pytest.approx(-result["reconstruction"] - result["kl"], rel=1e-5)


@pytest.mark.slow
def test_quadrature_agrees_with_the_importance_weighted_bound(trained, data):
    _, vae, _, _ = trained
    x = data.examples("test", 5)[0]
    exact = evidence.log_evidence(vae, x)
    assert (exact.error < 1e-2).all()
    bound = evaluation.log_likelihood(vae, x, samples=4000).per_example
    # By Markov's inequality the bound is more than t nats above log p(x) with a probability below e^-t, and a q this
    # young leaves it a heavy tail; it is above the ELBO, whose draws are nats below.
    assert (bound < exact.log_value + 5).all()
    assert evaluation.elbo(vae, x).elbo.mean < bound.mean() < exact.log_value.mean() + 1


@pytest.mark.slow
def test_images_are_completed_with_them(trained, data):
    name, vae, _, _ = trained
    x = data.examples("test", 6)[0]
    found = completion.complete(vae, x, "top", samples=200, steps=60)
    assert np.isfinite(found.score.log_density).all()
    exact = completion.quadrature_score(vae, x, "top")
    # Four standard errors of the mean, and what the quadrature may err.
    allowed = 4 * np.sqrt(np.square(found.score.standard_error).sum()) / 6 + exact.error.max() + 0.01
    assert found.score.log_density.mean() == pytest.approx(exact.log_value.mean(), abs=allowed)
    result = completion.evaluate(vae, x, found, pixel_mean=data.pixel_mean, training_images=120)
    assert ("pixel_means" in result) == (name not in ("likelihood", "all"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(figures.KINDS))
def test_every_kind_of_picture_is_drawn(trained, data, kind, tmp_path):
    _, vae, history, _ = trained
    subject = figures.Subject(vae, data, {"epoch": [1, 2, 3], **history}, "test")
    assert all(path.stat().st_size > 1000 for path in figures.draw(kind, subject, tmp_path))


@pytest.fixture(scope="module")
def bundle(trained, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    with without_costs():
        return folder, export.bundle(trained[1], folder, variants=("float32", "int8"), test=data.test)


@pytest.mark.slow
def test_one_seed_draws_the_same_image_in_litert(trained, bundle):
    name, vae, _, _ = trained
    seeds = portable.seeds(200, 1)
    ours, theirs = vae.sample(seeds), runtime.load(bundle[0]).sample(seeds)
    if name in EXACT:
        assert np.array_equal(theirs.z, portable.normals(seeds, Stream.LATENT, 2))
        assert np.array_equal(ours.z, theirs.z)
    else:
        np.testing.assert_allclose(ours.z, theirs.z, rtol=0, atol=1e-5)  # a product and a sum in float32
    np.testing.assert_allclose(ours.means, theirs.means, rtol=0, atol=1e-4)
    apart = np.abs(np.asarray(vae.likelihood.as_bytes(ours.images), np.int16) - theirs.images)
    assert (apart > 1).mean() < 1e-4


@pytest.mark.slow
def test_the_model_card_says_what_was_exported(trained, bundle):
    name, _, _, _ = trained
    card = bundle[1]
    assert card["model"]["prior"] == ("standard_normal" if name in EXACT else OF_PRIORS.get(name, "Mixture"))
    assert ("parameters" in card["signatures"]["decode"]) == (name in ("likelihood", "all"))
    assert card["variants"]["float32"]["means_error_greatest"] < 1e-4


@pytest.mark.slow
def test_bundles_verify(trained, bundle):
    checks = list(export.verify(bundle[0]))
    assert [check for check in checks if check.passed is False] == []
    assert "reference z" in [check.name for check in checks]


@pytest.mark.slow
def test_a_changed_reference_does_not_verify(bundle, tmp_path):
    import json
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle[0], copy)
    card = json.loads((copy / "model_card.json").read_text())
    card["reference"]["z"][0][0] += 0.01
    sealed.write(copy / "model_card.json", card)
    failed = [check.name for check in export.verify(copy) if check.passed is False]
    assert failed == ["reference z"]


def test_saving_and_loading_keeps_them(trained, data, tmp_path):
    _, vae, _, _ = trained
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    x = data.examples("test", 8)[0]
    assert np.array_equal(loaded.elbo(x, seed=1), vae.elbo(x, seed=1))
    assert np.array_equal(loaded.generate(3, seed=0), vae.generate(3, seed=0))
    assert int(loaded.steps) == int(vae.steps) == 15


@pytest.mark.slow
def test_a_training_goes_on_after_saving_as_if_it_had_not_stopped(data, tmp_path):
    x, losses = data.examples("train", 50)[0], []
    for stops in (False, True):
        vae = kvae.VAE(2, hidden_units=(12,), seed=3, **OPTIONS["all"]())
        vae.compile(keras.optimizers.Adam(1e-2))
        vae.fit(x, batch_size=20, epochs=2, verbose=0)
        if stops:
            vae.save(tmp_path / "vae.keras")
            vae = keras.saving.load_model(tmp_path / "vae.keras")
        losses.append(vae.fit(x, batch_size=20, epochs=2, verbose=0).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # the same graph, traced twice


# Each of them against an oracle


def test_the_mixture_has_the_density_of_scipy(rng):
    prior = Mixture(components=2)
    prior.build(2)
    prior.log_scales.assign(rng.normal(size=(2, 2)))
    z = rng.normal(size=(5, 3, 2)).astype(np.float32)
    parts = [
        stats.norm.logpdf(z, np.array(prior.centres)[m], np.exp(np.array(prior.log_scales)[m])).sum(-1) for m in (0, 1)
    ]
    np.testing.assert_allclose(prior.log_prob(tf.constant(z)), np.logaddexp(*parts) - np.log(2), rtol=1e-5)


def test_the_default_region_holds_the_mass_of_a_mixture():
    prior = Mixture(components=2)
    prior.build(2)
    prior.centres.assign([[5.0, 0.0], [-1.0, 2.0]])
    low, high = prior.region()
    assert (low < np.array([-5.0, -4.0])).all()
    assert (high > np.array([9.0, 6.0])).all()


def test_the_two_number_likelihood_has_the_density_of_scipy(rng):
    likelihood, x = TwoNumberGaussian(), rng.normal(size=(3, 4, 2, 1)).astype(np.float32)
    parameters = rng.normal(size=(5, 3, 4, 2, 1, 2)).astype(np.float32)
    sigma = np.exp(0.5 * (4 * np.tanh(parameters[..., 1] / 4) - 2))
    each = stats.norm.logpdf(x, parameters[..., 0], sigma)
    found = likelihood.log_prob(tf.constant(x), tf.constant(parameters))
    np.testing.assert_allclose(found, each.sum(axis=(2, 3, 4)), rtol=1e-5)
    mask = rng.random((4, 2, 1)) < 0.5
    found = likelihood.log_prob(tf.constant(x), tf.constant(parameters), mask)
    np.testing.assert_allclose(found, np.where(mask, each, 0).sum(axis=(2, 3, 4)), rtol=1e-5)


@pytest.mark.slow
def test_the_two_gradients_of_piwae_are_those_of_two_trainings(data):
    """Encoder and posterior get the gradient of the first loss, everything else that of the second."""

    class Whole(PIWAE):
        part = 0

        def loss(self, draws, step):
            return super().loss(draws, step)[self.part]

    x, after = data.examples("train", 20)[0], {}
    for name, objective in (("pair", PIWAE(3)), ("first", Whole(3)), ("second", Whole(3))):
        objective.part = int(name == "second")
        vae = kvae.VAE(2, hidden_units=(5,), seed=3, prior=Mixture(), objective=objective)
        vae.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
        vae.fit(x, batch_size=20, shuffle=False, verbose=0)
        after[name] = vae
    for part, source in (("encoder", "first"), ("decoder", "second"), ("prior", "second")):
        pair, single = (getattr(after[name], part).get_weights() for name in ("pair", source))
        for ours, theirs in zip(pair, single, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    first, second = (after[name].encoder.get_weights() for name in ("pair", "second"))
    assert max(np.abs(ours - theirs).max() for ours, theirs in zip(first, second, strict=True)) > 1e-6


@pytest.mark.slow
def test_pixels_outside_the_unit_interval_are_the_likelihoods_to_accept(rng):
    x = rng.normal(3.0, 2.0, (40, 4, 4, 1)).astype(np.float32)
    vae = kvae.VAE(2, hidden_units=(8,), seed=1, likelihood=TwoNumberGaussian())
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.fit(x, batch_size=10, validation_data=x, verbose=0)
    assert np.isfinite(evaluation.evaluate(vae, x, samples=10)["log_likelihood"])
    assert np.isfinite(completion.complete(vae, x[:2], "top", samples=20, steps=5).score.log_density).all()
    assert np.isfinite(evidence.log_evidence(vae, x[:1]).log_value).all()
    assert np.asarray(vae.likelihood.as_bytes(vae.generate(3, seed=0))).dtype == np.uint8
    with pytest.raises(UserError, match="Received values from nan"):
        vae.fit(np.full_like(x, np.nan), verbose=0)


@pytest.mark.slow
def test_a_prior_made_of_the_encoders_answers_trains_and_is_exported_frozen(data, tmp_path):
    vae = kvae.VAE(2, hidden_units=(8,), seed=1, prior=Vamp())
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.build((None, 28, 28, 1))
    before = np.array(vae.prior.inputs)
    losses = vae.fit(data.train, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert not np.array_equal(before, vae.prior.inputs)
    content = export.convert(vae, ["float32"])["float32"]
    (tmp_path / "decoder.tflite").write_bytes(content)
    decoder, seeds = LiteRTDecoder(tmp_path / "decoder.tflite"), portable.seeds(50, 0)
    frozen = vae.prior.frozen().sample(portable.Portable(tf.constant(seeds), kvae.noise.keyed.TENSORFLOW))
    np.testing.assert_allclose(decoder.sample(seeds).z, frozen, rtol=0, atol=1e-5)  # a product and a sum in float32
    # Neither the encoder (25 kB) nor its pseudo-inputs (13 kB) are in the file: it is that of a mixture.
    mixture = kvae.VAE(2, hidden_units=(8,), seed=1, prior=Mixture(4))
    mixture.build((None, 28, 28, 1))
    assert abs(len(content) - len(export.convert(mixture, ["float32"])["float32"])) < 10_000
