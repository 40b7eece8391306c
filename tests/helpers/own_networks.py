"""Networks that a user might write with batch normalization and dropout: classes and functional models."""

import math

import keras

registered = keras.saving.register_keras_serializable("own_networks")


@registered
class Encoder(keras.Model):
    """Images `[B, *image]` -> mean and log variance of q(z|x), each `[B, D]`."""

    def __init__(self, latent_dim, units=9, **options):
        super().__init__(**options)
        self.latent_dim, self.units = latent_dim, units
        self.flatten = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(units)
        self.normalization = keras.layers.BatchNormalization(momentum=0.8)
        self.dropout = keras.layers.Dropout(0.4)
        self.mean = keras.layers.Dense(latent_dim, dtype="float32")
        self.log_var = keras.layers.Dense(latent_dim, dtype="float32")

    def call(self, x, training=False):
        h = keras.ops.relu(self.normalization(self.hidden(self.flatten(x)), training=training))
        h = self.dropout(h, training=training)
        return self.mean(h), self.log_var(h)

    def mirror(self, image_shape, output_bias=None, **options):
        return Decoder(image_shape, self.units)

    def get_config(self):
        return {**super().get_config(), "latent_dim": self.latent_dim, "units": self.units}


@registered
class Decoder(keras.Model):
    """Latent points `[B, D]` -> logits `[B, *image]`."""

    def __init__(self, image_shape, units=9, **options):
        super().__init__(**options)
        self.image_shape, self.units = tuple(image_shape), units
        self.hidden = keras.layers.Dense(units)
        self.normalization = keras.layers.BatchNormalization(momentum=0.8)
        self.dropout = keras.layers.Dropout(0.4)
        self.pixels = keras.layers.Dense(math.prod(self.image_shape), dtype="float32")
        self.shape_of_image = keras.layers.Reshape(self.image_shape, dtype="float32")

    def call(self, z, training=False):
        h = keras.ops.relu(self.normalization(self.hidden(z), training=training))
        return self.shape_of_image(self.pixels(self.dropout(h, training=training)))

    def get_config(self):
        return {**super().get_config(), "image_shape": self.image_shape, "units": self.units}


def subclassed(shape):
    """A pair of these classes."""
    return Encoder(2), Decoder(shape)


def functional(shape):
    """A pair of functional models with the same layers."""
    layers = keras.layers
    x, z = keras.Input(shape), keras.Input((2,))
    pair = []
    for inputs, h in ((x, layers.Flatten()(x)), (z, z)):
        h = layers.BatchNormalization(momentum=0.8)(layers.Dense(9)(h))
        h = layers.Dropout(0.4)(layers.ReLU()(h))
        outputs = layers.Reshape(shape)(layers.Dense(math.prod(shape))(h)) if inputs is z else None
        pair.append(keras.Model(inputs, [layers.Dense(2)(h), layers.Dense(2)(h)] if outputs is None else outputs))
    return tuple(pair)


PAIRS = {"subclassed": subclassed, "functional": functional}
