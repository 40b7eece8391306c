"""`kvae.model.compiled_functions`: functions of a model that are traced once."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from small_models import compiled, tiny

import kvae
from kvae.model.compiled_functions import compiled as compiled_once


@pytest.fixture
def decoded():
    """A compiled function of a model, and what it was traced with."""
    traces = []

    @compiled_once
    def decoded(vae, z, times=1):
        traces.append(times)
        return times * vae.decode(z)

    return decoded, traces


def test_compiled_functions_are_traced_once_per_model_and_python_argument(vae, x, decoded):
    function, traces = decoded
    for value in (0.0, 1.0, 2.0):
        function(vae, tf.constant([[value, 0.0]]))
    assert traces == [1]
    function(vae, tf.constant([[1.0, 0.0]]), 2)
    assert traces == [1, 2]
    other = tiny(seed=1)
    other.build(x.shape)
    result = function(other, tf.constant([[1.0, 0.0]]))
    assert traces == [1, 2, 1]
    np.testing.assert_allclose(result, other.decode([[1.0, 0.0]]), atol=1e-6)  # a graph may fuse float32 operations


def test_compiled_functions_see_the_weights_as_they_are(vae, decoded):
    function, _ = decoded
    z = tf.constant([[1.0, 2.0]])
    before = function(vae, z)
    vae.decoder.set_weights([2 * weight for weight in vae.decoder.get_weights()])
    after = function(vae, z)
    np.testing.assert_allclose(after, vae.decode(z), atol=1e-5)  # as above, of logits up to 10
    assert not np.allclose(before, after)


def test_compiled_functions_are_made_anew_for_another_objective(vae, decoded):
    function, traces = decoded
    function(vae, tf.zeros([1, 2]))
    vae.beta = 2.0  # a number, on which no draw depends
    function(vae, tf.zeros([1, 2]))
    assert traces == [1]
    vae.objective = kvae.objectives.ELBO(samples=3)
    function(vae, tf.zeros([1, 2]))
    assert traces == [1, 1]


def test_compiled_functions_do_not_keep_a_model(x, decoded):
    function, _ = decoded
    vae = tiny()
    vae.build(x.shape)
    function(vae, tf.zeros([1, 2]))
    gone = weakref.ref(vae)
    del vae
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_a_model_with_graphs_still_trains(x):
    with_, without = (compiled(tiny()) for _ in range(2))
    for vae in (with_, without):
        vae.build(x.shape)
    kvae.evaluation.elbo(with_, x)
    losses = [vae.fit(x, epochs=2, verbose=0).history["loss"] for vae in (with_, without)]
    assert losses[0] == losses[1]
