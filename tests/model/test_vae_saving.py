"""Models that are saved and loaded, also with networks of the user's own."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from small_models import compiled, tiny, users_networks

import kvae
from kvae.internal.errors import UserError
from kvae.model import networks, objectives

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


@pytest.mark.parametrize("built", [False, True])
def test_configuration_round_trip(built, x):
    vae = kvae.VAE(
        encoder=networks.ConvEncoder(3, (4,), 8, seed=5),
        output_bias=0.25,
        likelihood=kvae.likelihoods.Gaussian(0.5),
        beta=objectives.LinearWarmup(2.0, 10),
        samples=3,
        kl="sampled",
        seed=7,
    )
    if built:
        vae.build(x.shape)
    config = vae.get_config()
    again = kvae.VAE.from_config(config).get_config()
    assert again == config


@pytest.mark.slow
def test_loaded_model_goes_on_as_the_saved_one(x, tmp_path):
    vae = compiled(tiny(beta=1.5))
    vae.fit(x, epochs=2, verbose=0)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    logs = [each.fit(x, batch_size=8, shuffle=False, verbose=0).history["loss"] for each in (vae, loaded)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    "first",
    [
        "kvae, keras",
        pytest.param("keras, kvae", marks=pytest.mark.slow),  # test_registration.py has further orders by default
        pytest.param("kvae.model.densities, kvae.model.networks, keras", marks=pytest.mark.slow),
    ],
)
def test_a_fresh_process_that_imports_kvae_loads_a_model(first, vae, x, tmp_path):
    vae.save(tmp_path / "vae.keras")
    np.save(tmp_path / "expected.npy", vae.predict(x, verbose=0))
    np.save(tmp_path / "x.npy", x)
    code = f"""
import {first}
import numpy as np
vae = keras.saving.load_model("vae.keras")
np.testing.assert_array_equal(vae.predict(np.load("x.npy"), verbose=0), np.load("expected.npy"))
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={**os.environ})


def test_a_full_disk_while_saving_keeps_the_old_file(vae, tmp_path, monkeypatch):
    vae.save(tmp_path / "vae.keras")
    before = (tmp_path / "vae.keras").read_bytes()

    def full(self, path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        vae.save(tmp_path / "vae.keras")
    assert (tmp_path / "vae.keras").read_bytes() == before


@pytest.mark.slow
def test_users_networks_train_save_and_load(x, tmp_path):
    encoder, decoder = users_networks(latent=4)
    vae = compiled(kvae.VAE(encoder=encoder, decoder=decoder, seed=0))
    losses = vae.fit(x, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert vae.latent_dim == 4
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), vae.predict(x, verbose=0))


def test_dropout_of_a_users_network_is_off_outside_of_training(x):
    encoder, decoder = users_networks()
    vae = kvae.VAE(encoder=encoder, decoder=decoder)
    np.testing.assert_array_equal(vae.encode(x).mean, vae.encode(x).mean)


@pytest.mark.slow
def test_a_model_with_graphs_is_saved_and_loaded(vae, x, tmp_path):
    kvae.evaluation.evaluate(vae, x, samples=2)
    kvae.completion.infer(vae, x[:2], "top", steps=2)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(loaded.elbo(x, seed=0), vae.elbo(x, seed=0))
