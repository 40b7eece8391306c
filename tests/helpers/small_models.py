"""Small models that are made in a moment, for tests in which any model will do."""

import keras
import numpy as np

import kvae

SHAPE = (6, 5, 1)  # an image with sides of different lengths, so that no test passes with the axes exchanged


def tiny(**options):
    """A model of 2 latent dimensions with one hidden layer of 8 units, not built."""
    return kvae.VAE(**{"latent_dim": 2, "hidden_units": (8,), "seed": 0, **options})


def built(shape=SHAPE, **options):
    """A model with these options, built for images of this shape."""
    vae = kvae.VAE(**{"seed": 0, **options})
    vae.build((None, *shape))
    return vae


def tiny_built(**options):
    """`tiny`, built for images of `SHAPE`."""
    return built(SHAPE, **{"latent_dim": 2, "hidden_units": (8,), **options})


def compiled(vae, **options):
    """The model, ready for `fit`."""
    vae.compile(optimizer=keras.optimizers.Adam(1e-2), **options)
    return vae


def scaled_decoder(vae, image_shape, factor):
    """The built model with all weights of its decoder times `factor`, so that its pixels depend visibly on z."""
    vae.build((None, *image_shape))
    vae.decoder.set_weights([factor * weight for weight in vae.decoder.get_weights()])
    return vae


def users_networks(latent=2):
    """An encoder and a decoder as a user may write them with layers of Keras alone, for images of `SHAPE`."""
    image = keras.Input(SHAPE)
    h = keras.layers.Dropout(0.5)(keras.layers.Dense(9, "relu")(keras.layers.Flatten()(image)))
    encoder = keras.Model(image, (keras.layers.Dense(latent)(h), keras.layers.Dense(latent)(h)))
    z = keras.Input((latent,))
    pixels = keras.layers.Dense(int(np.prod(SHAPE)))(z)
    return encoder, keras.Model(z, keras.layers.Reshape(SHAPE)(pixels))
