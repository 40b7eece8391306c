"""Networks that do not fit the model, and arguments that do not exist, end in one clear line."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from small_models import SHAPE, compiled

import kvae
from kvae import likelihoods, networks, objectives, posteriors, priors
from kvae.internal.errors import UserError

PIXELS = int(np.prod(SHAPE))


def encoder(output, shape=SHAPE):
    image = keras.Input(shape)
    return keras.Model(image, output(layers.Dense(6)(layers.Flatten()(image))))


def two_heads(latent_dim=2, shape=SHAPE):
    return encoder(lambda h: (layers.Dense(latent_dim)(h), layers.Dense(latent_dim)(h)), shape)


class Own(keras.Model):
    """A network of a user's class: any function, after a dense layer that is built for its first input."""

    def __init__(self, function, width=PIXELS):
        super().__init__()
        self.function, self.dense = function, layers.Dense(width)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.function(self.dense(inputs))


def as_images(h):
    return tf.reshape(h, (-1, *SHAPE))


def decoder(latent_dim=2):
    return keras.Sequential([keras.Input((latent_dim,)), layers.Dense(PIXELS), layers.Reshape(SHAPE)])


def built(network, *shape):
    network.build((None, *shape))
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: encoder(lambda h: {"mean": layers.Dense(2)(h), "log_var": layers.Dense(2)(h)}), "dict with the keys"),
        (lambda: encoder(lambda h: [layers.Dense(2)(h)] * 3), r"widths \(2, 2, 2\)"),
        (lambda: encoder(lambda h: (layers.Dense(2)(h), layers.Dense(3)(h))), r"widths \(2, 3\)"),
        (lambda: encoder(lambda h: [layers.Reshape((2, 1))(layers.Dense(2)(h))] * 2), "shapes"),
        (lambda: encoder(lambda h: ((layers.Dense(2)(h), layers.Dense(2)(h)), layers.Dense(2)(h))), "a tuple of tuple"),
        (lambda: Own(lambda h: None), "NoneType"),
    ],
    ids=["dict", "three outputs", "two widths", "too many axes", "nested", "nothing"],
)
def test_an_encoder_that_returns_something_else_says_what(network, message):
    with pytest.raises(UserError, match=rf"encoder to return \(mean, log_var\).* Received .*{message}"):
        kvae.VAE(encoder=network(), decoder=decoder()).build((None, *SHAPE))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Own(lambda h: {"logits": as_images(h)}), "a dict with the keys logits"),
        (lambda: Own(lambda h: (as_images(h), as_images(h))), "a tuple of"),
        (lambda: Own(lambda h: None), "an object of type NoneType"),
        (lambda: keras.Sequential([layers.Dense(PIXELS)]), rf"\(None, {PIXELS}\)"),
        (lambda: networks.MLPDecoder((4, 4, 1)), r"\(None, 4, 4, 1\)"),
    ],
    ids=["dict", "two outputs", "nothing", "flat", "another image shape"],
)
def test_a_decoder_that_returns_something_else_says_what(network, message):
    with pytest.raises(UserError, match=rf"decoder to return logits \[B, 6, 5, 1\].* Received {message}"):
        kvae.VAE(encoder=two_heads(), decoder=network()).build((None, *SHAPE))


DECODERS_FOR_FOUR = {
    "functional": lambda: decoder(4),
    "MLPDecoder": lambda: built(networks.MLPDecoder(SHAPE, (4,)), 4),
    "ConvDecoder": lambda: built(networks.ConvDecoder(SHAPE, (3,), 4), 4),
    "own class": lambda: built(Own(as_images), 4),
}


@pytest.mark.parametrize("network", DECODERS_FOR_FOUR.values(), ids=DECODERS_FOR_FOUR)
def test_a_decoder_for_another_latent_size_names_both_sizes(network):
    message = r"decoder to take z \[B, 8\], the latent size of the encoder. Received one that was made for z \[B, 4\]"
    with pytest.raises(UserError, match=message):
        kvae.VAE(encoder=networks.MLPEncoder(8, (4,)), decoder=network()).build((None, *SHAPE))


@pytest.mark.parametrize("as_data", [lambda x: x, lambda x: tf.data.Dataset.from_tensor_slices(x).batch(8)])
def test_networks_that_do_not_fit_each_other_are_named_by_fit(as_data, x):
    vae = kvae.VAE(encoder=networks.MLPEncoder(8, (4,)), decoder=DECODERS_FOR_FOUR["MLPDecoder"]())
    with pytest.raises(UserError, match=r"decoder to take z \[B, 8\]"):
        compiled(vae).fit(as_data(x), verbose=0)


@pytest.mark.parametrize(
    "network",
    [
        lambda: two_heads(shape=(4, 4, 1)),
        lambda: built(networks.MLPEncoder(2, (4,)), 4, 4, 1),
        lambda: built(networks.ConvEncoder(2, (3,), 4), 4, 4, 1),
    ],
    ids=["functional", "MLPEncoder", "ConvEncoder"],
)
def test_an_encoder_for_other_images_names_both_shapes(network):
    message = (
        r"encoder to take x \[B, 6, 5, 1\], the shape of the images. Received one that was made for x \[B, 4, 4, 1\]"
    )
    with pytest.raises(UserError, match=message):
        kvae.VAE(encoder=network(), decoder=decoder()).build((None, *SHAPE))


def test_an_error_within_a_users_network_is_kept():
    def wrong(h):
        raise ValueError("no such thing")

    with pytest.raises(UserError, match="Received an error from it: no such thing") as caught:
        kvae.VAE(encoder=two_heads(), decoder=Own(wrong)).build((None, *SHAPE))
    assert "no such thing" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("make", "nearest"),
    [
        (lambda: kvae.VAE(latent_dims=2), "latent_dim"),
        (lambda: kvae.VAE(2, likelyhood="bernoulli"), "likelihood"),
        (lambda: networks.MLPEncoder(2, hidden_unit=(3,)), "hidden_units"),
        (lambda: networks.ConvEncoder(2, filter=(3,)), "filters"),
        (lambda: networks.ResidualEncoder(2, norm_group=4), "norm_groups"),
        (lambda: networks.MLPDecoder(SHAPE, outputs_bias=0.0), "output_bias"),
        (lambda: networks.ConvDecoder(SHAPE, initialisation="fan_in"), "initialization"),
        (lambda: likelihoods.Gaussian(varianc=1.0), "variance"),
        (lambda: priors.StandardNormal(names="p"), "name"),
        (lambda: posteriors.DiagonalGaussian(trainble=False), "trainable"),
        (lambda: objectives.ELBO(betta=2.0), "beta"),
        (lambda: objectives.ELBO(sample=2), "samples"),
    ],
)
def test_an_unknown_argument_names_the_nearest_one(make, nearest):
    with pytest.raises(UserError, match=f"Unknown argument of .* Did you mean {nearest!r}"):
        make()


def test_a_class_of_a_users_own_may_have_further_arguments():
    class Deeper(kvae.VAE):
        def __init__(self, *args, depth=1, **kwargs):
            self.own = kwargs.pop("own", None)
            super().__init__(*args, **kwargs)
            self.depth = depth

    class Sharper(objectives.ELBO):
        def __init__(self, **kwargs):
            self.own = kwargs.pop("own", None)
            super().__init__(**kwargs)

    assert (Deeper(2, depth=3, own=1).depth, Sharper(own=1, beta=2.0).beta) == (3, 2.0)
    with pytest.raises(UserError, match="Did you mean 'depth'"):
        Deeper(2, dept=3)
    with pytest.raises(TypeError):
        objectives.Objective(3)
