"""Keras in the style of its documentation's VAE example: a `Sampling` layer, a `train_step`, and `fit` on an array."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from protocol import EVALUATION_BATCH, FILTERS, PIXELS, SIDE, STEM, Settings, serve


class Sampling(layers.Layer):
    """z ~ N(mean, exp(log_var))."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, posterior: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        mean, log_var = posterior
        return mean + tf.exp(0.5 * log_var) * keras.random.normal(tf.shape(mean), seed=self.seed_generator)


def make_encoder(settings: Settings) -> keras.Model:
    x = h = keras.Input((SIDE, SIDE, 1))
    if settings.network == "mlp":
        h = layers.Flatten()(h)
        for _ in range(settings.layers):
            h = layers.Dense(settings.width, activation="tanh")(h)
    else:
        for filters in FILTERS:
            h = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(h)
        h = layers.Dense(settings.width, activation="relu")(layers.Flatten()(h))
    mean, log_var = layers.Dense(settings.latent)(h), layers.Dense(settings.latent)(h)
    return keras.Model(x, [mean, log_var, Sampling(settings.seed)([mean, log_var])])


def make_decoder(settings: Settings) -> keras.Model:
    z = h = keras.Input((settings.latent,))
    if settings.network == "mlp":
        for _ in range(settings.layers):
            h = layers.Dense(settings.width, activation="tanh")(h)
        return keras.Model(z, layers.Reshape((SIDE, SIDE, 1))(layers.Dense(PIXELS)(h)))
    h = layers.Dense(settings.width, activation="relu")(z)
    h = layers.Reshape(STEM)(layers.Dense(STEM[0] * STEM[1] * STEM[2], activation="relu")(h))
    for filters in reversed(FILTERS):
        h = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", activation="relu")(h)
    return keras.Model(z, layers.Conv2D(1, 3, padding="same")(h))


class VAE(keras.Model):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.encoder, self.decoder = make_encoder(settings), make_decoder(settings)
        self.draws_pixels = settings.binarize == "stochastic"
        self.seed_generator = keras.random.SeedGenerator(settings.seed)
        self.trackers = [keras.metrics.Mean(name=name) for name in ("loss", "reconstruction", "kl")]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self.trackers

    def terms(self, x: tf.Tensor, at_mean: bool = False) -> list[tf.Tensor]:
        """Loss, reconstruction and KL, in nats: means over the batch."""
        mean, log_var, z = self.encoder(x)
        logits = self.decoder(mean if at_mean else z)
        cross_entropy = keras.losses.binary_crossentropy(x, logits, from_logits=True)
        reconstruction = tf.reduce_mean(tf.reduce_sum(cross_entropy, axis=(1, 2)))
        kl = -0.5 * (1 + log_var - tf.square(mean) - tf.exp(log_var))
        kl = tf.reduce_mean(tf.reduce_sum(kl, axis=1))
        return [reconstruction + kl, reconstruction, kl]

    def train_step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        if self.draws_pixels:
            x = tf.cast(keras.random.uniform(tf.shape(x), seed=self.seed_generator) < x, x.dtype)
        with tf.GradientTape() as tape:
            terms = self.terms(x)
        gradients = tape.gradient(terms[0], self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.track(terms)

    def test_step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.track(self.terms(x))

    def track(self, terms: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        for tracker, term in zip(self.trackers, terms, strict=True):
            tracker.update_state(term)
        return {tracker.name: tracker.result() for tracker in self.trackers}


class KerasIo:
    def __init__(self, settings: Settings) -> None:
        keras.utils.set_random_seed(settings.seed)
        self.settings = settings
        self.train, self.test = settings.images("train"), settings.images("test")
        self.vae = VAE(settings)
        self.set_initial_weights()
        self.vae.compile(optimizer=keras.optimizers.Adam(settings.learning_rate))

    def set_initial_weights(self) -> None:
        for network in ("encoder", "decoder"):
            model = getattr(self.vae, network)
            for variable, value in zip(model.trainable_weights, self.settings.initial(network).values(), strict=True):
                variable.assign(value)

    def epoch(self) -> int:
        self.vae.fit(self.train, epochs=1, batch_size=self.settings.batch, verbose=0)
        return len(self.train)

    def elbo(self) -> float:
        return -self.vae.evaluate(self.test, batch_size=EVALUATION_BATCH, verbose=0, return_dict=True)["loss"]

    def weights(self) -> dict[str, np.ndarray]:
        values = [variable.numpy() for variable in self.vae.encoder.weights + self.vae.decoder.weights]
        return dict(zip(self.settings.initial(), values, strict=True))

    def objective(self) -> float:
        self.set_initial_weights()
        return float(self.vae.terms(self.train[: self.settings.batch], at_mean=True)[0])


if __name__ == "__main__":
    serve(KerasIo)
