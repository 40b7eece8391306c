"""A decoder whose last activation keeps the pixels from black or white: a warning when the model is built."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from slow_cases import slow
from small_models import SHAPE, compiled, tiny, users_networks

import kvae
from kvae.internal.errors import KvaeWarning
from kvae.model.likelihoods import Likelihood

PIXELS = int(np.prod(SHAPE))


class Own(keras.Model):
    """A decoder of a user's class: a dense layer, and a function of its output."""

    def __init__(self, function=lambda x: x, activation=None):
        super().__init__()
        self.function, self.dense = function, layers.Dense(PIXELS, activation)

    def call(self, z):
        return tf.reshape(self.function(self.dense(z)), (-1, *SHAPE))


class OwnOfCondition(Own):
    def call(self, z, condition):
        return super().call(tf.concat([z, condition], axis=-1))


@keras.saving.register_keras_serializable("tests")
class Identity(Likelihood):
    """A likelihood whose mean is what the decoder returns."""

    def log_prob_of_pixels(self, x, parameters):
        return -tf.abs(x - parameters)

    def mean(self, parameters):
        return parameters


def sequential(*last):
    return keras.Sequential([layers.Dense(PIXELS), *last, layers.Reshape(SHAPE)])


def functional(*last):
    z = keras.Input((2,))
    output = layers.Dense(PIXELS)(z)
    for each in last:
        output = each(output)
    return keras.Model(z, layers.Reshape(SHAPE)(output))


def model(decoder, **options):
    return kvae.VAE(encoder=users_networks()[0], decoder=decoder, seed=0, **options)


BOUNDED = {
    "Dense with a sigmoid": lambda: keras.Sequential([layers.Dense(PIXELS, "sigmoid"), layers.Reshape(SHAPE)]),
    "Activation": lambda: sequential(layers.Activation("sigmoid")),
    "softmax": lambda: sequential(layers.Activation("softmax")),
    "layer Softmax": lambda: sequential(layers.Softmax()),
    "tanh": lambda: sequential(layers.Activation("tanh")),
    "relu": lambda: sequential(layers.Activation("relu")),
    "layer ReLU": lambda: functional(layers.ReLU()),
    "functional": lambda: functional(layers.Activation("sigmoid")),
    "operation of Keras": lambda: functional(keras.ops.sigmoid),
    "transposed convolution": lambda: keras.Sequential(
        [
            layers.Dense(PIXELS),
            layers.Reshape(SHAPE),
            layers.Conv2DTranspose(1, 3, padding="same", activation="sigmoid"),
        ]
    ),
    "cropped": lambda: keras.Sequential(
        [
            layers.Dense(8 * 8),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
            layers.Cropping2D(((1, 1), (2, 1))),
        ]
    ),
    "nested": lambda: keras.Sequential([layers.Dense(3), functional_of(3)]),
    "own class": lambda: Own(tf.sigmoid),
    "own class with an activation": lambda: Own(activation="sigmoid"),
}


def functional_of(width):
    z = keras.Input((width,))
    return keras.Model(z, layers.Reshape(SHAPE)(layers.Dense(PIXELS, "sigmoid")(z)))


@pytest.mark.parametrize("decoder", BOUNDED.values(), ids=BOUNDED)
def test_a_decoder_with_a_bounded_last_activation_warns_when_it_is_built(decoder):
    with pytest.warns(KvaeWarning, match=r"mean of every pixel stays between .* Remove the last activation"):
        model(decoder()).build((None, *SHAPE))


@pytest.mark.parametrize(
    "decoder",
    [
        lambda: sequential(),
        lambda: sequential(layers.LeakyReLU()),
        lambda: functional(layers.Activation("linear")),
        lambda: functional(layers.Activation("leaky_relu")),
        lambda: Own(),
        lambda: Own(lambda h: 3.0 * tf.tanh(h)),
        lambda: keras.Sequential([layers.Dense(PIXELS, bias_initializer="ones"), layers.Reshape(SHAPE)]),
        lambda: keras.Sequential([layers.Dense(PIXELS, kernel_initializer="zeros"), layers.Reshape(SHAPE)]),
        lambda: keras.Sequential([layers.Dense(9, "sigmoid"), layers.Dense(PIXELS), layers.Reshape(SHAPE)]),
    ],
)
def test_a_decoder_that_can_return_all_logits_does_not_warn(decoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        model(decoder()).build((None, *SHAPE))


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "gaussian", "squared_error"])
def test_every_likelihood_that_applies_a_sigmoid_warns_of_a_second_one(likelihood):
    with pytest.warns(KvaeWarning, match="ends in the activation sigmoid"):
        model(BOUNDED["Dense with a sigmoid"](), likelihood=likelihood).build((None, *SHAPE))


def test_a_likelihood_of_means_takes_a_sigmoid_and_a_relu():
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        model(BOUNDED["Dense with a sigmoid"](), likelihood=Identity()).build((None, *SHAPE))
        model(sequential(layers.Activation("relu")), likelihood=Identity()).build((None, *SHAPE))


@pytest.mark.parametrize("as_data", [lambda x: x, *slow(lambda x: tf.data.Dataset.from_tensor_slices(x).batch(8))])
@pytest.mark.parametrize("decoder", ["own class", "functional"])
def test_a_model_that_fit_builds_warns_too(decoder, as_data, x):
    with pytest.warns(KvaeWarning, match="mean of every pixel"):
        compiled(model(BOUNDED[decoder]()), jit_compile=False).fit(as_data(x), verbose=0)


def test_a_conditional_decoder_of_a_users_class_is_tried_with_a_condition():
    vae = model(OwnOfCondition(tf.sigmoid), condition_shape=(3,))
    with pytest.warns(KvaeWarning, match="mean of every pixel"):
        vae.build((None, *SHAPE))


def test_the_networks_of_kvae_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        tiny(output_bias=0.25).build((None, *SHAPE))
        kvae.VAE(encoder=kvae.networks.ConvEncoder(2, (3,), 4)).build((None, *SHAPE))
