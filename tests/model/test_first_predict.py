"""`predict` as the first call of a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvae


@pytest.mark.parametrize("prior", ["standard_normal", "mixture", "vamp"])
@pytest.mark.parametrize("objective", ["elbo", "beta_tc"])
def test_predict(prior, objective):
    x = np.zeros((5, 6, 5, 1), np.float32)
    results = []
    for built in (False, True):
        vae = kvae.VAE(2, hidden_units=(4,), objective=objective, prior=prior, seed=0)
        vae.compile("adam")
        if built:
            vae.build((None, 6, 5, 1))
        results.append(vae.predict(x, verbose=0))
        vae.fit(x, verbose=0)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


def test_objective_set_outside_of_the_scope():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        vae = kvae.VAE(2, hidden_units=(4,), seed=0)
        vae.compile(keras.optimizers.Adam())
    x = np.zeros((8, 6, 5, 1), np.float32)
    vae.fit(x, verbose=0)
    vae.objective = "info"
    assert "mmd" in vae.fit(x, verbose=0).history
