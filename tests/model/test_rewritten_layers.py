"""Layers that are rewritten after the model was built: quantized, with LoRA, with another dtype policy or class."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow
from small_models import SHAPE, compiled, tiny, tiny_built

import kvae
from kvae.internal.errors import UserError
from kvae.model import networks
from kvae.model.networks import base
from kvae.model.networks.merged_heads import can_merge

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("without_xla"),  # many small models, of which XLA is not what is tested
    pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method"),  # of Keras, e.g. for Flatten
]


def trained(x, **options):
    vae = compiled(tiny(**options))
    vae.fit(x, verbose=0)
    return vae


def saved_and_loaded(vae, folder):
    vae.save(folder / "vae.keras")
    return keras.saving.load_model(folder / "vae.keras")


def conv():
    return kvae.VAE(encoder=networks.ConvEncoder(2, (3,), 4, seed=0), seed=0)


# Quantized


@pytest.mark.parametrize("mode", ["int8", *slow("int4", "float8")])
def test_a_quantized_model_predicts_encodes_generates_and_evaluates_with_its_new_weights(mode, x):
    vae = trained(x)
    before = vae.predict(x, verbose=0), vae.encode(x).mean, vae.generate_means(8, seed=0)
    loss = vae.evaluate(x, verbose=0)[0]
    vae.quantize(mode)
    after = vae.predict(x, verbose=0), vae.encode(x).mean, vae.generate_means(8, seed=0)
    for old, new in zip(before, after, strict=True):
        # Not the old numbers, of a graph of the old weights, but near them: int4 has 15 values for the weights.
        assert 0 < np.abs(old - new).max() < 0.5
    np.testing.assert_allclose(
        after[2], vae.likelihood.mean(vae.decode(kvae.sampling.draw_z(vae, 8, seed=0))), atol=1e-6
    )
    assert vae.evaluate(x, verbose=0)[0] == pytest.approx(loss, abs=0.5)


@pytest.mark.parametrize("make", [tiny, *slow(conv)], ids=["mlp", "conv"])
@pytest.mark.parametrize("mode", ["int8", *slow("int4", "float8")])
def test_a_quantized_model_trains_and_comes_back_from_a_file(mode, make, x, tmp_path):
    vae = make()
    vae.build(x.shape)
    vae.quantize(mode)
    compiled(vae).fit(x, verbose=0)
    loaded = saved_and_loaded(vae, tmp_path)
    assert loaded.encoder.mean_head.dtype_policy.quantization_mode == mode
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), vae.predict(x, verbose=0))
    for ours, theirs in zip(vae.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    losses = [model.fit(x, verbose=0).history["loss"] for model in (vae, loaded)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("network", "inputs"),
    [
        (lambda: networks.MLPEncoder(2, (4,), seed=0), SHAPE),
        (lambda: networks.ConvEncoder(2, (3,), 4, seed=0), SHAPE),
        (lambda: networks.MLPDecoder(SHAPE, (4,), seed=0), (2,)),
        (lambda: networks.ConvDecoder(SHAPE, (3,), 4, numbers_per_pixel=2, seed=0), (2,)),
        (lambda: networks.ResidualDecoder(SHAPE, (4,), 1, 2, 4, seed=0), (2,)),
    ],
    ids=["MLPEncoder", "ConvEncoder", "MLPDecoder", "ConvDecoder", "ResidualDecoder"],
)
@pytest.mark.slow
def test_a_network_alone_can_be_quantized_and_saved(network, inputs, rng, tmp_path):
    network, inputs = network(), rng.random((3, *inputs)).astype(np.float32)
    network.build((None, *inputs.shape[1:]))
    network.quantize("int8")
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    for ours, theirs in zip(tf.nest.flatten(network(inputs)), tf.nest.flatten(loaded(inputs)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny(dtype="int8_from_float32"),
        lambda: networks.ConvDecoder(SHAPE, dtype="float8_from_mixed_bfloat16"),
        lambda: networks.MLPEncoder(2, dtype=keras.dtype_policies.QuantizedDTypePolicy("int8", "float32")),
    ],
    ids=["model", "decoder", "policy as an object"],
)
def test_a_policy_that_makes_quantized_layers_is_refused(make):
    with pytest.raises(UserError, match=r"floating-point numbers\. Received .*_from_.*quantize\("):
        make()


# LoRA


CHOICES = {
    "hidden layer": lambda vae: [vae.encoder.hidden[0]],
    "heads": lambda vae: [vae.encoder.mean_head, vae.encoder.scale_head],
    "one head": lambda vae: [vae.encoder.scale_head],
    "output layer": lambda vae: [vae.decoder.head],
}


@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
def test_lora_trains_alone_and_is_merged_in_the_file(choose, x, tmp_path):
    vae = trained(x)
    for layer in choose(vae):
        layer.enable_lora(1)
    before = [np.array(layer._kernel) for layer in choose(vae)], [np.array(layer.kernel) for layer in choose(vae)]
    compiled(vae).fit(x, epochs=3, verbose=0)
    for i, layer in enumerate(choose(vae)):
        np.testing.assert_array_equal(layer._kernel, before[0][i])
        assert not np.array_equal(layer.kernel, before[1][i])
    np.testing.assert_allclose(vae(x), vae.predict(x, verbose=0), atol=1e-6)  # float32 in (0, 1)
    loaded = saved_and_loaded(vae, tmp_path)
    assert [layer.lora_rank for layer in choose(loaded)] == [1] * len(choose(vae))
    assert len(loaded.trainable_variables) == len(vae.trainable_variables)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), vae.predict(x, verbose=0), atol=1e-6)


def test_lora_of_a_loaded_model_trains_on(x, tmp_path):
    """Keras loads it with both matrices zero, of which each makes the gradient of the other zero."""
    vae = trained(x)
    vae.encoder.mean_head.enable_lora(1)
    compiled(vae)
    loaded = saved_and_loaded(vae, tmp_path)
    before, prediction = np.array(loaded.encoder.mean_head.kernel), loaded.predict(x, verbose=0)
    compiled(loaded, steps_per_execution=1).fit(x, epochs=3, verbose=0)
    assert np.abs(loaded.encoder.mean_head.kernel - before).max() > 1e-3
    np.testing.assert_allclose(prediction, vae.predict(x, verbose=0), atol=1e-6)


def test_generated_images_follow_lora(x):
    vae = trained(x)
    before = vae.generate_means(8, seed=0)
    vae.decoder.head.enable_lora(1)
    vae.decoder.head.lora_kernel_b.assign(tf.ones_like(vae.decoder.head.lora_kernel_b))
    after = vae.generate_means(8, seed=0)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, vae.likelihood.mean(vae.decode(kvae.sampling.draw_z(vae, 8, seed=0))), atol=1e-6)


# Dtype policies


@pytest.mark.parametrize(
    "choose",
    [lambda vae: vae.encoder.hidden[0], lambda vae: vae.encoder.mean_head, lambda vae: vae.decoder.head],
    ids=["hidden layer", "a head", "output layer"],
)
def test_the_dtype_policy_of_one_layer_is_used_and_saved(choose, x, tmp_path):
    vae = tiny_built()
    before = vae.predict(x, verbose=0)
    choose(vae).dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    assert 0 < np.abs(np.asarray(vae(x)) - before).max() < 0.1  # bfloat16 has 8 significant bits
    loaded = saved_and_loaded(vae, tmp_path)
    assert choose(loaded).dtype_policy.name == "mixed_bfloat16"
    np.testing.assert_array_equal(loaded(x), vae(x))


def test_a_map_of_policies_trains_and_is_saved(x, tmp_path):
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    vae = trained(x, dtype=policies)
    np.testing.assert_array_equal(saved_and_loaded(vae, tmp_path).predict(x, verbose=0), vae.predict(x, verbose=0))


# The product of two heads


class Doubled(keras.layers.Dense):
    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs, training)


def replaced(head):
    head = Doubled.from_config(head.get_config())
    head.build((None, 8))
    return head


def with_call(head):
    head.call = lambda inputs, training=None: 2.0 * type(head).call(head, inputs)
    return head


def with_attribute(name, value):
    def change(head):
        setattr(head, name, value)
        return head

    return change


@pytest.mark.parametrize(
    "change",
    [
        replaced,
        with_call,
        with_attribute("activation", keras.activations.relu),
        with_attribute("activity_regularizer", keras.regularizers.L2(1.0)),
    ],
    ids=["subclass", "call of its own", "activation", "penalty on its output"],
)
def test_a_head_that_is_not_plain_is_called(change, x):
    vae = tiny_built()
    encoder = vae.encoder
    encoder._tracker.unlock()  # Keras then lets a layer be replaced
    encoder.mean_head = change(encoder.mean_head)
    assert not can_merge(encoder.mean_head)
    h = encoder.hidden[0](encoder.flatten(x))
    np.testing.assert_allclose(encoder(x)[0], encoder.mean_head(h), atol=1e-6)
    np.testing.assert_allclose(encoder(x)[1], encoder.scale_head(h), atol=1e-6)


def test_a_changed_call_of_all_dense_layers_is_seen(monkeypatch, x):
    vae = tiny_built()
    call = keras.layers.Dense.call
    assert can_merge(vae.encoder.mean_head)
    monkeypatch.setattr(keras.layers.Dense, "call", lambda self, inputs, training=None: 2.0 * call(self, inputs))
    assert not can_merge(vae.encoder.mean_head)


def test_plain_heads_are_one_product(monkeypatch, x):
    calls = []
    monkeypatch.setattr(base, "merged", lambda heads, h: calls.append(len(heads)) or (h[:, :2], h[:, :2]))
    tiny_built().encode(x)
    assert set(calls) == {2}
