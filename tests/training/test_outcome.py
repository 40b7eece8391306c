"""What is said at the end of a training that has learned nothing."""

import warnings

import numpy as np
import pytest
from source_files import greys

from kvae import training
from kvae.internal.errors import KvaeWarning
from kvae.training.config import RunConfig, override
from kvae.training.outcome import warn

LEARNED = {"active_units": 2, "kl": 3.0}
COLLAPSED = {"active_units": 0, "kl": 0.0004}


def words(result=None, losses=(3.0, 2.0), **settings):
    config = RunConfig.from_dict(override({}, {key.replace("__", "."): value for key, value in settings.items()}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(config, result or LEARNED, {"loss": np.array(losses)})
    return "\n".join(str(each.message) for each in caught)


def test_a_model_that_has_learned_something_is_left_in_peace():
    assert words() == ""


@pytest.mark.parametrize(
    "result",
    [COLLAPSED, {"active_units": 0, "kl": 0.4}, {"active_units": 1, "kl": -0.002}, {"active_units": 2, "kl": 0.03}],
)
def test_a_collapse_is_said_with_its_numbers(result):
    found = words(result)
    assert f"collapsed: {result['active_units']} of 2 latent dimensions" in found
    assert f"{result['kl']:.3f} nats" in found


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"model__likelihood": "squared_error"}, "model.variance=learned"),
        ({"model__likelihood": "gaussian"}, "large fixed variance"),
        ({}, "data.binarize=none"),
        ({"model__beta": 4.0}, "lower model.beta than 4: --beta 1"),
        ({"training__epochs": 9}, "training.beta_warmup_epochs=5"),
        ({"training__epochs": 9}, "more epochs than 9, if the training had only begun: --epochs 20"),
    ],
)
def test_the_remedies_are_those_of_the_settings(settings, remedy):
    assert remedy in words(COLLAPSED, **settings)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"model__likelihood": "gaussian", "model__variance": "learned"}, "variance"),
        ({"model__likelihood": "gaussian", "model__variance": 0.001}, "variance"),
        ({"model__likelihood": "continuous_bernoulli"}, "binarize"),
        ({}, "lower model.beta"),
        ({"training__beta_warmup_epochs": 3}, "beta_warmup_epochs"),
        ({"model__beta": {"kind": "cyclical", "beta": 1.0, "period": 20}}, "beta_warmup_epochs"),
        ({"model__objective": "iwae"}, "beta"),
    ],
)
def test_what_is_set_already_is_no_remedy(settings, remedy):
    found = words(COLLAPSED, **settings)
    assert "collapsed" in found
    assert remedy not in found


def test_a_loss_that_grew_is_said():
    assert "The loss grew from 3.00 in epoch 1 to 5.00 in epoch 3" in words(losses=(3.0, 2.0, 5.0))
    assert words(losses=(3.0, 2.0, 5.0), training__beta_warmup_epochs=2) == ""
    assert words(losses=(3.0,)) == ""


@pytest.mark.slow
def test_a_training_that_collapses_says_so_once(tmp_path):
    np.savez(tmp_path / "grey.npz", x_train=greys(), x_test=greys(4))
    config = RunConfig.from_dict(
        {
            "data": {"source": f"npz:{tmp_path / 'grey.npz'}", "batch_size": 20},
            "model": {"hidden_units": [2], "beta": 1e4},
            "training": {"epochs": 30, "learning_rate": 0.1, "jit_compile": False},
        }
    )
    with pytest.warns(KvaeWarning, match=r"collapsed: 0 of 2") as caught:
        training.train(config, tmp_path / "run", verbose=0)
    assert sum("collapsed" in str(each.message) for each in caught) == 1
