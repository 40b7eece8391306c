"""Parts and layers that do not train: from the first fit on, and after saving, loading and copying the model."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow
from small_models import SHAPE, compiled, tiny

import kvae
from kvae.internal.errors import KvaeWarning
from kvae.model import networks
from kvae.model.priors import Prior

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


@keras.saving.register_keras_serializable("tests")
class Inner(keras.Model):
    """An encoder with a layer from its constructor and two from its build, and a configuration of its own options."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.units, self.flatten, self.hidden = units, keras.layers.Flatten(), keras.layers.Dense(units, "tanh")

    def build(self, shape):
        self.mean, self.log_var = keras.layers.Dense(2), keras.layers.Dense(2)
        self.hidden.build((None, int(np.prod(shape[1:]))))
        self.mean.build((None, self.units))
        self.log_var.build((None, self.units))

    def call(self, x):
        h = self.hidden(self.flatten(x))
        return self.mean(h), self.log_var(h)

    def get_config(self):
        return {"units": self.units}


@keras.saving.register_keras_serializable("tests")
class Shifted(Prior):
    """A prior that makes its weight within a layer of its own."""

    def build(self, latent_dim):
        super().build(latent_dim)
        self.shift = keras.layers.Dense(latent_dim)
        self.shift.build((None, latent_dim))

    def log_prob(self, z, condition=None):
        return -0.5 * tf.reduce_sum(tf.square(self.shift(z)), axis=-1)

    def sample(self, noise, condition=None):
        raise NotImplementedError


def functional():
    image, z = keras.Input(SHAPE), keras.Input((2,))
    h = keras.layers.Dense(6, "tanh")(keras.layers.Flatten()(image))
    encoder = keras.Model(image, (keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)))
    pixels = keras.layers.Dense(int(np.prod(SHAPE)))(z)
    return kvae.VAE(encoder=encoder, decoder=keras.Model(z, keras.layers.Reshape(SHAPE)(pixels)), seed=0)


def conv(**options):
    return kvae.VAE(encoder=networks.ConvEncoder(2, (3,), 4, seed=0, **options), seed=0)


def of_user():
    return kvae.VAE(encoder=Inner(), decoder=networks.MLPDecoder(SHAPE, (6,), seed=0), seed=0)


MODELS = {  # a model, and what is frozen in it
    "encoder": (tiny, lambda vae: [vae.encoder]),
    "mirrored decoder": (tiny, lambda vae: [vae.decoder]),
    "first layer of the encoder": (tiny, lambda vae: [vae.encoder.hidden[0]]),
    "heads of both networks": (tiny, lambda vae: [vae.encoder.mean_head, vae.decoder.head]),
    "likelihood": (lambda: tiny(likelihood=kvae.likelihoods.Gaussian("learned")), lambda vae: [vae.likelihood]),
    "prior": (lambda: tiny(prior=Shifted()), lambda vae: [vae.prior]),
    "convolutions": (conv, lambda vae: [*vae.encoder.convolutions, vae.decoder.stem]),
    "layer of a functional model": (functional, lambda vae: [vae.encoder.layers[2]]),
    "encoder of a user's class": (of_user, lambda vae: [vae.encoder]),
    "layer of a user's class": (of_user, lambda vae: [vae.encoder.mean]),
    "all but one layer": (tiny, lambda vae: [vae.encoder, vae.decoder.hidden[0]]),
}
# Those that exist before the model is built.
EARLY = ("encoder", "likelihood", "prior", "layer of a functional model", "encoder of a user's class")


def frozen(name, x):
    """A model with its frozen parts, trained for a moment before and after they were frozen."""
    make, choose = MODELS[name]
    vae = compiled(make())
    vae.fit(x, verbose=0)
    for layer in choose(vae):
        layer.trainable = False
    compiled(vae).fit(x, verbose=0)
    return vae, choose


def shapes(variables):
    return [tuple(variable.shape) for variable in variables]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*list(MODELS)[:3], *slow(*list(MODELS)[3:])])
def test_a_frozen_part_stays_frozen_in_a_loaded_model_and_its_training_goes_on(name, x, tmp_path):
    vae, choose = frozen(name, x)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert not any(layer.trainable for layer in choose(loaded))
    assert 0 < len(loaded.trainable_variables) < len(loaded.weights)
    assert shapes(loaded.trainable_variables) == shapes(vae.trainable_variables)
    for ours, theirs in zip(vae.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(loaded.steps) == int(vae.steps) == 2
    before = [layer.get_weights() for layer in choose(loaded)]
    losses = [model.fit(x, epochs=2, verbose=0).history["loss"] for model in (vae, loaded)]
    assert losses[0] == losses[1]
    for layer, weights in zip(choose(loaded), before, strict=True):
        for old, new in zip(weights, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*list(MODELS)[:2], *slow(*list(MODELS)[2:])])
def test_a_copy_of_a_configuration_trains_the_same_weights(name, x):
    vae, _ = frozen(name, x)
    copies = [kvae.VAE.from_config(vae.get_config()), keras.models.clone_model(vae)]
    for copy in copies:
        copy.build(x.shape)
        assert shapes(copy.trainable_variables) == shapes(vae.trainable_variables)


@pytest.mark.slow
@pytest.mark.parametrize("name", EARLY)
@pytest.mark.parametrize("as_data", [lambda x: x, *slow(lambda x: tf.data.Dataset.from_tensor_slices(x).batch(8))])
def test_what_is_frozen_before_the_first_fit_does_not_train(name, as_data, x):
    make, choose = MODELS[name]
    never, vae = make(), make()
    never.build(x.shape)
    for layer in choose(vae):
        layer.trainable = False
    compiled(vae).fit(as_data(x), verbose=0)
    assert 0 < len(vae.trainable_variables) < len(never.trainable_variables)
    assert not any(layer.trainable_variables for layer in choose(vae))


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: networks.MLPEncoder(2, (4,), trainable=False),
        lambda: networks.ConvEncoder(2, (3,), 4, trainable=False),
        lambda: Inner(trainable=False),
    ],
    ids=["mlp", "conv", "of a user"],
)
def test_the_argument_trainable_of_an_encoder_counts_and_does_not_pass_to_the_decoder(encoder, x):
    vae = kvae.VAE(encoder=encoder(), decoder=networks.MLPDecoder(SHAPE, (4,)), seed=0)
    compiled(vae).fit(x, verbose=0)
    assert shapes(vae.trainable_variables) == shapes(vae.decoder.trainable_variables)


def test_a_decoder_that_mirrors_a_frozen_encoder_trains():
    vae = kvae.VAE(encoder=networks.MLPEncoder(2, (4,), trainable=False), seed=0)
    vae.build((None, *SHAPE))
    assert len(vae.trainable_variables) == len(vae.decoder.trainable_variables) == 4


@pytest.mark.parametrize("network", [networks.MLPEncoder(2, (4,)), networks.ConvEncoder(2, (3,), 4)])
def test_a_network_alone_is_saved_with_its_frozen_layers(network, tmp_path):
    network.build((None, *SHAPE))
    network.mean_head.trainable = False
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert [layer.trainable for layer in loaded.layers] == [layer.trainable for layer in network.layers]
    assert not loaded.mean_head.trainable


@pytest.mark.slow
def test_unfrozen_layers_train_again_after_loading(x, tmp_path):
    vae, _ = frozen("encoder", x)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    before = loaded.encoder.get_weights()
    loaded.encoder.trainable = True
    compiled(loaded).fit(x, verbose=0)
    assert not any(np.array_equal(*pair) for pair in zip(before, loaded.encoder.get_weights(), strict=True))


@pytest.mark.parametrize("again", [False, True], ids=["not compiled again", "compiled with the same optimizer"])
def test_an_optimizer_that_knows_frozen_weights_keeps_its_state(again, x, tmp_path):
    vae = compiled(tiny())
    vae.fit(x, verbose=0)
    vae.encoder.trainable = False
    if again:
        vae.compile(vae.optimizer)
        vae.fit(x, verbose=0)
    vae.save(tmp_path / "vae.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as which Keras says that it skips a state
        loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert len(loaded.trainable_variables) == 4
    for ours, theirs in zip(vae.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "layer of a user's class", "convolutions"])
def test_weights_alone_load_into_a_model_in_which_other_layers_are_frozen(name, x, tmp_path):
    vae, _ = frozen(name, x)
    vae.save_weights(tmp_path / "vae.weights.h5")
    other = MODELS[name][0]()
    other.build(x.shape)
    other.load_weights(tmp_path / "vae.weights.h5")
    assert int(other.steps) == int(vae.steps)
    for ours, theirs in zip(vae.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_configuration_of_a_model_without_frozen_layers_is_that_of_earlier_versions(x, tmp_path):
    vae = tiny()
    vae.build(x.shape)
    vae.save(tmp_path / "vae.keras")  # Keras adds numbers of shared objects to what it saves
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    for config in (vae.get_config(), loaded.get_config()):
        assert "trainable_layers" not in config
        assert "changed_layers" not in config["encoder"]["config"]


@pytest.mark.slow
def test_a_file_of_a_class_that_has_other_layers_now_loads_with_a_warning(x):
    vae, _ = frozen("encoder", x)
    config = vae.get_config()
    config["trainable_layers"] = config["trainable_layers"][:-1]
    copy = kvae.VAE.from_config(config)
    with pytest.warns(KvaeWarning, match=r"Expected the same layers"):
        copy.build(x.shape)
