"""Files of kvae 0.1 load and give the same numbers as then; see tests/fixtures/README.md."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import kvae
from kvae import completion, evaluation, training
from kvae.evaluation import evidence
from kvae.noise import streams
from kvae.noise.streams import Stream
from kvae.training.runs import Run

OLD = Path(__file__).parent / "fixtures" / "before_0_2"
EXPECTED = json.loads((OLD / "expected.json").read_text())
ROUNDING = 2e-5  # relative, of float32 sums over an image on another machine


@pytest.fixture(scope="module")
def grey():
    """40 small grey images, those that the models without a run were trained on."""
    data = kvae.data.load("mnist5k", train="train[:40]", binarize="none", batch_size=10)
    return data.examples("train")[0][:, ::3, ::3]


@pytest.fixture(scope="module")
def finished():
    run = Run.open(OLD / "finished")
    return run, run.load_model(), training.load_data(run.config)


def test_a_finished_run_has_the_elbo_that_it_had(finished):
    _, vae, data = finished
    terms = evaluation.elbo(vae, data.test, noise=1)
    for name in ("elbo", "reconstruction", "kl"):
        assert getattr(terms, name).mean == pytest.approx(EXPECTED["finished"]["evaluation"][name], rel=ROUNDING)


def test_the_draws_of_an_evaluation_are_now_apart_from_those_of_epoch_100(finished):
    _, vae, data = finished
    now, before = (evaluation.elbo(vae, data.test, noise=noise) for noise in (2, 1))
    assert now.elbo.mean != before.elbo.mean
    # Both estimate the same mean: the standard error of a difference over 60 images with 8 draws each.
    difference = now.elbo.per_example - before.elbo.per_example
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference))


@pytest.mark.slow
def test_a_finished_run_has_the_bound_that_it_had(finished):
    _, vae, data = finished
    bound = evaluation.log_likelihood(vae, data.test, samples=64)
    assert bound.mean == pytest.approx(EXPECTED["finished"]["evaluation"]["log_likelihood"], rel=ROUNDING)


@pytest.mark.slow
def test_a_finished_run_evaluates_in_keras_as_it_did(finished):
    _, vae, data = finished
    vae.compile()
    found = vae.evaluate(data.test, return_dict=True, verbose=0)
    assert found == pytest.approx(EXPECTED["finished"]["keras_evaluate"], rel=ROUNDING)


def test_a_finished_run_has_the_elbo_of_every_image_and_the_z_that_it_had(finished):
    _, vae, data = finished
    x = data.examples("test", 6)[0]
    np.testing.assert_allclose(
        kvae.sampling.elbo_draws(vae, x, seed=5).elbo, EXPECTED["finished"]["elbo_terms"], rtol=ROUNDING
    )
    assert kvae.sampling.draw_z(vae, 3, 1).numpy().tolist() == EXPECTED["finished"]["generate"]


def test_a_finished_run_integrates_to_the_same_evidence(finished):
    _, vae, data = finished
    found = evidence.log_evidence(vae, data.examples("test", 2)[0]).log_value
    np.testing.assert_allclose(found, EXPECTED["finished"]["quadrature"], rtol=ROUNDING)


@pytest.mark.slow
def test_completion_differs_by_the_stream_that_moved_alone(finished, monkeypatch):
    """The start of an inference shared numbers with the binarization of epoch 200, and so has others now."""
    _, vae, data = finished
    monkeypatch.setitem(streams._WORDS_OF_VERSION_0_1, (Stream.START, Stream.LATENT), 200)
    fresh = kvae.VAE.from_config(vae.get_config())  # nothing compiled with the words of now
    fresh.build((None, *vae.image_shape))
    fresh.set_weights(vae.get_weights())
    found = completion.complete(fresh, data.examples("test", 6)[0], "top", seed=4, samples=40, steps=20)
    expected = EXPECTED["finished"]["completion"]
    np.testing.assert_allclose(found.inferred.losses[:, -1], expected["losses"], rtol=1e-4)
    np.testing.assert_allclose(found.inferred.mean, expected["mean"], rtol=0, atol=1e-3)  # twenty steps of Adam
    np.testing.assert_allclose(found.score.log_density, expected["score"], rtol=1e-4)


@pytest.mark.slow
def test_a_training_from_the_beginning_goes_as_it_did(tmp_path):
    run = training.train(Run.open(OLD / "finished").config, tmp_path / "run", verbose=0)
    for name, values in EXPECTED["finished"]["history"].items():
        np.testing.assert_allclose(run.history()[name], values, rtol=ROUNDING, err_msg=name)


@pytest.mark.every_case
@pytest.mark.slow
@pytest.mark.parametrize(("name", "whole"), [("killed", "finished"), ("early_stopped", "early_stopped")])
def test_an_interrupted_run_goes_on_as_it_would_have(name, whole, tmp_path):
    shutil.copytree(OLD / name, tmp_path / name)
    run = training.resume(tmp_path / name, verbose=0)
    expected = EXPECTED[whole]
    for column, values in expected["history"].items():
        np.testing.assert_allclose(run.history()[column], values, rtol=ROUNDING, err_msg=column)
    vae, data = run.load_model(), training.load_data(run.config)
    terms = evaluation.elbo(vae, data.test, noise=1)
    assert terms.elbo.mean == pytest.approx(expected["evaluation"]["elbo"], rel=1e-4)  # 20 steps and more later


@pytest.mark.slow
def test_a_model_with_its_optimizer_goes_on_where_its_optimizer_stood(grey):
    vae, expected = keras.saving.load_model(OLD / "gaussian_conv.keras"), EXPECTED["gaussian_conv"]
    assert (vae.samples, vae.kl, vae.beta.beta) == (3, "sampled", 0.7)
    losses = vae.fit(grey, batch_size=8, epochs=2, verbose=0).history["loss"]
    assert losses == pytest.approx(expected["next"], rel=ROUNDING)
    assert int(vae.steps) == 15
    np.testing.assert_allclose(vae.elbo(grey[:4], seed=1), expected["elbo"], rtol=1e-3)


def test_a_model_of_mixed_precision_loads(grey):
    vae = keras.saving.load_model(OLD / "mixed.keras")
    # bfloat16 has 8 bits, so another machine's products may differ in the third digit.
    np.testing.assert_allclose(vae.elbo(grey[:4], seed=1), EXPECTED["mixed"]["elbo"], rtol=0, atol=0.1)


@pytest.mark.parametrize("path", ["mnist_2d", "fashion_2d", "mnist_10d"])
def test_the_pretrained_models_that_ship_load(path):
    vae = Run.open(Path(__file__).parent.parent / "saved_models" / path).load_model()
    assert int(vae.steps) == 0
    assert vae.generate(2, seed=0).shape == (2, 28, 28, 1)
