"""The callback `CodeUse`: what it logs and when, and its warning."""

import csv
import warnings

import keras
import numpy as np
import pytest
from small_models import compiled, tiny

from kvae import evaluation
from kvae.internal.errors import KvaeWarning, UserError
from kvae.training.callbacks import CodeUse

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (40, 6, 5, 1)).astype(np.float32)


def fitted(callbacks, x, epochs, **options):
    """A model and its history."""
    vae = compiled(tiny(**options))
    return vae, vae.fit(x, epochs=epochs, callbacks=callbacks, verbose=0).history


@pytest.mark.slow
def test_the_logs_have_what_the_evaluations_measure(x):
    vae, history = fitted([CodeUse(x[:30], seed=3)], x, 2)
    terms, information = evaluation.elbo(vae, x[:30]), evaluation.information(vae, x[:30], seed=3)
    expected = {
        "code_kl": terms.kl.mean,
        "code_kl_z1": terms.kl_per_dimension[0].mean,
        "code_kl_z2": terms.kl_per_dimension[1].mean,
        "code_active_units": terms.active_units,
        "code_mutual_information": information.mutual_information.mean,
        "code_marginal_kl": information.marginal_kl.mean,
        "code_total_correlation": information.total_correlation.mean,
    }
    assert {name for name in history if name.startswith("code_")} == expected.keys()
    for name, value in expected.items():
        assert history[name][-1] == pytest.approx(value, abs=1e-6), name


@pytest.mark.slow
def test_it_measures_after_the_first_epoch_and_every_so_many(x, tmp_path):
    file = tmp_path / "log.csv"
    vae, history = fitted([CodeUse(x, every=3), keras.callbacks.CSVLogger(file)], x, 7)
    rows = list(csv.DictReader(file.open()))
    assert [row["code_kl"] != "NA" for row in rows] == [True, False, True, False, False, True, False]
    assert len(history["code_kl"]) == 3
    assert [float(row["code_kl"]) for row in rows if row["code_kl"] != "NA"] == history["code_kl"]
    again = vae.fit(x, initial_epoch=7, epochs=8, callbacks=[CodeUse(x, every=3)], verbose=0).history
    assert len(again["code_kl"]) == 1  # the first one of this training


@pytest.mark.slow
def test_training_is_the_same_with_it(x):
    weights = [fitted(callbacks, x, 2)[0].get_weights() for callbacks in ([], [CodeUse(x)])]
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_models_without_closed_forms_log_what_there_is(x):
    _, history = fitted([CodeUse(x)], x, 1, posterior="bottom_up", prior="mixture")
    assert {name for name in history if name.startswith("code_")} == {
        "code_kl",
        "code_active_units",
        "code_mutual_information",
        "code_marginal_kl",
    }


@pytest.mark.slow
def test_it_warns_once_of_a_collapse_and_says_when(x):
    vae = compiled(tiny())
    vae.build((None, 6, 5, 1))
    callback = CodeUse(x)

    class Collapse(keras.callbacks.Callback):
        """Makes every q the prior at the end of the second epoch."""

        def on_epoch_end(self, epoch, logs=None):
            if epoch >= 1:
                for head in (self.model.encoder.mean_head, self.model.encoder.scale_head):
                    for weight in head.weights:
                        weight.assign(np.zeros(weight.shape))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vae.fit(x, epochs=4, callbacks=[Collapse(), callback], verbose=0)
    texts = [str(each.message) for each in caught if each.category is KvaeWarning]
    during = [text for text in texts if "collapsed: after epoch" in text]
    assert len(during) == 1
    assert "after epoch 2 the KL term was 0 nats per image" in during[0]
    assert all(each.filename == __file__ for each in caught if each.category is KvaeWarning)


@pytest.mark.slow
def test_a_model_that_uses_its_code_is_no_collapse(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        fitted([CodeUse(x)], x, 1)


@pytest.mark.parametrize("every", [0, 1.5])
def test_other_numbers_of_epochs_are_refused(every):
    with pytest.raises(UserError, match="every"):
        CodeUse(None, every=every)
