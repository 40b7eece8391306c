"""Web pages of small models, and of the decoders that a page knows."""

import json
import re
from pathlib import Path

import keras
import numpy as np
from small_models import built

import kvae
from kvae.export import web
from kvae.noise import portable
from kvae.runtime.web import WebDecoder

L = keras.layers


def lively(vae, factor=3):
    """The model with larger decoder weights, so that its pixels depend visibly on z; it differs in every bias."""
    rng = np.random.default_rng(1)
    weights = [factor * value + 0.1 * rng.normal(size=value.shape) for value in vae.decoder.get_weights()]
    vae.decoder.set_weights([value.astype(np.float32) for value in weights])
    return vae


def learned(prior, latent_dim=2):
    """A model with a prior whose weights are not those of the start."""
    vae = lively(built((6, 5, 1), latent_dim=latent_dim, hidden_units=(8,), prior=prior))
    rng = np.random.default_rng(2)
    for part in (vae.prior, vae.encoder):
        part.set_weights([value + 0.5 * rng.normal(size=value.shape) for value in part.get_weights()])
    return vae


def sequential(*layers, shape=(6, 5, 1), **options):
    """A model whose decoder is a `keras.Sequential` of these layers."""
    return lively(built(shape, latent_dim=2, hidden_units=(8,), decoder=keras.Sequential(layers), **options))


MODELS = {
    "mlp": lambda: lively(built((6, 5, 1), latent_dim=2, hidden_units=(8,))),
    "flat": lambda: lively(built((6, 5), latent_dim=3, hidden_units=(9, 8), activation="elu")),
    "large": lambda: lively(built((16, 16, 1), latent_dim=2, hidden_units=(64,)), 1),
    "grey": lambda: lively(built((6, 5, 1), latent_dim=2, hidden_units=(8,), likelihood="continuous_bernoulli")),
    "colour": lambda: lively(
        built((7, 5, 3), encoder=conv_encoder(3), likelihood="gaussian"),
    ),
    "colour_plane": lambda: lively(built((7, 5, 3), latent_dim=2, hidden_units=(8,), likelihood="gaussian")),
    "conv": lambda: lively(built((6, 5, 1), encoder=conv_encoder(2))),
    "classes": lambda: lively(built((6, 5, 1), latent_dim=2, hidden_units=(8,), condition=3)),
    "classes_conv": lambda: lively(built((6, 5, 1), encoder=conv_encoder(3), condition=3)),
    "mixture": lambda: learned(kvae.priors.Mixture(components=4)),
    "vamp": lambda: learned(kvae.priors.VampPrior(components=5)),
    "flow": lambda: learned(kvae.priors.Flow(layers=3, layer_units=6), 3),
    "hierarchical": lambda: learned(kvae.priors.Hierarchical(upper_dim=1, layer_units=6), 3),
    "layers": lambda: sequential(
        L.Dense(3 * 2 * 4, "silu"),
        L.Reshape((3, 2, 4)),
        L.BatchNormalization(),
        L.UpSampling2D((2, 3)),
        L.Conv2D(5, (3, 2), padding="same"),
        L.LeakyReLU(0.3),
        L.Conv2DTranspose(3, (2, 3), strides=(1, 1), padding="valid", activation="softplus"),
        L.Conv2D(2, 3, strides=2, padding="same", activation="softsign"),
        L.Activation("tanh"),
        L.Flatten(),
        L.Dropout(0.5),
        L.Dense(30, use_bias=False),
        L.Reshape((6, 5, 1)),
    ),
}


def conv_encoder(latent_dim):
    from kvae.model.networks import ConvEncoder

    return ConvEncoder(latent_dim, filters=(4, 3), dense_units=6, seed=0)


def write_page(vae, folder: Path, variant: str = "web_float32", **about) -> Path:
    """The page of a model, written without measuring anything."""
    path = Path(folder) / "index.html"
    web.check(vae)
    path.write_text(web.page(vae, variant, web.About(**about)), encoding="utf-8")
    return path


def described(path: Path) -> dict:
    """The description of the model in a page."""
    return json.loads(re.search(r'id="model">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)[1])


def expected_samples(path: Path, count: int, seed: int = 0):
    """What `kvae.runtime` draws from a page: of all classes in turn, if it has any."""
    decoder = WebDecoder(path)
    return decoder.sample(portable.seeds(count, seed), in_turn(decoder, count))


def in_turn(model, count: int):
    """The class of each of some images, all classes in turn; None for a model without classes."""
    return None if model.condition_shape is None else np.arange(count) % model.condition_shape[0]


def check_z(z, expected, vae):
    """Raises an error if z of the same seeds differ: bit for bit, or for a prior with weights by more than rounding."""
    np.testing.assert_allclose(z, expected, rtol=0, atol=0 if vae.prior.exact else 1e-5)
