"""Evaluations whose result is not finite, although the weights of the model are."""

import json

import numpy as np
import pytest
from small_models import SHAPE, tiny_built

from kvae import evaluation
from kvae.evaluation import EVALUATIONS, Estimate, Evaluation
from kvae.internal.errors import UserError


def overflowing():
    """Its Bernoulli logits are finite, but not their sum over the pixels of an image with a white pixel or without."""
    vae = tiny_built()
    bias = vae.decoder.weights[-1]
    bias.assign(np.full(bias.shape, 1e38))
    return vae


@pytest.mark.parametrize(("only", "samples"), [(["elbo"], None), (["log_likelihood"], 2)])
def test_a_result_that_is_not_finite_is_refused_and_named(only, samples):
    x = np.ones((4, *SHAPE), np.float32)
    x[2:] = 0.0  # white pixels are certain for this model, so their log density is 0
    with pytest.raises(UserError, match=rf"NaN or infinity as {only[0]} of 2 of 4 images, the first with index 2, "):
        evaluation.evaluate(overflowing(), x, only=only, samples=samples)


RESULTS = {
    "an estimate": (Estimate(np.array([0.0, np.nan])), "of 1 of 2 images, the first with index 1"),
    "an infinite estimate": (Estimate(np.array([-np.inf, 0.0])), "of 1 of 2 images, the first with index 0"),
    "a number": ((np.float32(np.nan),), ""),
    "a list": (([Estimate(np.zeros(2)), Estimate(np.array([np.inf, 0.0]))],), "of 1 of 2 images"),
}


@pytest.mark.parametrize("case", RESULTS)
def test_every_kind_of_result_is_looked_at(case, monkeypatch):
    from collections import namedtuple

    result, where = RESULTS[case]
    if not isinstance(result, Estimate):
        result = namedtuple("Result", ["own"])(*result)
    monkeypatch.setitem(EVALUATIONS, "own", Evaluation(lambda vae, data, seed=0: result))
    with pytest.raises(UserError, match=rf"Received NaN or infinity as own ?{where}"):
        evaluation.evaluate(tiny_built(), np.zeros((2, *SHAPE), np.float32), only=["own"])


def test_an_estimate_of_a_single_image_has_no_standard_error_and_is_finite():
    result = evaluation.evaluate(tiny_built(), np.zeros((1, *SHAPE), np.float32))
    assert json.dumps(result, allow_nan=False)
