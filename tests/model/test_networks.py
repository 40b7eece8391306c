"""Every network passes one checklist; then what is particular to each."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import compiled

import kvae
from kvae import export
from kvae.internal.errors import UserError
from kvae.model import networks

SHAPES = [(28, 28, 1), (13, 17, 1), (5, 7, 3)]
FAMILIES = {
    "mlp": lambda **options: networks.MLPEncoder(3, (7, 5), **options),
    "conv": lambda **options: networks.ConvEncoder(3, (4, 6), 8, **options),
    "residual": lambda **options: networks.ResidualEncoder(3, (4, 6), 2, 2, 8, **options),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_encoder_gives_mean_and_log_var_of_any_image(family, shape, rng):
    mean, log_var = family()(rng.random((2, *shape), np.float32))
    assert mean.shape == log_var.shape == (2, 3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mirrored_decoder_gives_logits_of_the_images_shape(family, shape, rng):
    logits = family().mirror(shape)(rng.standard_normal((2, 3), np.float32))
    assert logits.shape == (2, *shape)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_configuration_round_trip_keeps_every_argument(family, side):
    options = {
        "activation": "elu",
        "kernel_regularizer": keras.regularizers.L2(0.25),
        "bias_regularizer": keras.regularizers.L1(0.5),
        "initialization": "fan_in",
        "seed": 11,
        "name": "net",
    }
    network = family(**options) if side == "encoder" else family(**options).mirror((8, 8, 1), 0.5)
    again = type(network).from_config(network.get_config())
    assert again.get_config() == network.get_config()


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_saved_network_loads_with_equal_outputs(family, side, rng, tmp_path):
    network = family() if side == "encoder" else family().mirror((8, 8, 1))
    x = rng.random((2, 8, 8, 1) if side == "encoder" else (2, 3), np.float32)
    before = network(x)
    network.save(tmp_path / "network.keras")
    after = keras.saving.load_model(tmp_path / "network.keras")(x)
    np.testing.assert_array_equal(np.asarray(after), np.asarray(before))


def test_one_seed_gives_one_set_of_weights_and_another_another(family, rng):
    x = rng.random((1, 8, 8, 1), np.float32)
    first, again, other = (np.asarray(family(seed=seed)(x)[0]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_encoder_and_mirrored_decoder_do_not_share_initial_weights():
    encoder = networks.MLPEncoder(6, (6,), seed=3)
    encoder.build((None, 6))
    decoder = encoder.mirror((6,))
    decoder.build((None, 6))
    assert not np.array_equal(encoder.hidden[0].kernel, decoder.hidden[0].kernel)


def test_mlp_weight_count_is_that_of_its_layers():
    encoder = networks.MLPEncoder(2, (500,))
    encoder.build((None, 28, 28, 1))
    decoder = encoder.mirror((28, 28, 1))
    decoder.build((None, 2))
    assert encoder.count_params() == 784 * 500 + 500 + 2 * (500 * 2 + 2)
    assert decoder.count_params() == 2 * 500 + 500 + 500 * 784 + 784


def test_mlp_without_hidden_layers_is_linear(rng):
    encoder = networks.MLPEncoder(2, ())
    x = rng.random((3, 4), np.float32)
    mean = np.asarray(encoder(x)[0])
    np.testing.assert_allclose(mean, x @ np.asarray(encoder.mean_head.kernel), rtol=1e-5)  # one float32 product


def test_decoder_mirrors_the_widths():
    assert networks.MLPEncoder(2, (7, 5)).mirror((4,)).hidden_units == (5, 7)
    assert networks.ConvEncoder(2, (4, 6)).mirror((8, 8, 1)).filters == (6, 4)


def test_fan_in_initialization_fills_kernels_and_biases_up_to_its_limit():
    encoder = networks.MLPEncoder(2, (2000,), initialization="fan_in", seed=0)
    encoder.build((None, 100))
    limit = 1 / math.sqrt(100)
    for weight in (encoder.hidden[0].kernel, encoder.hidden[0].bias):
        # 2,000 uniform numbers come within 1 % of both ends but with probability 2e-9 each.
        assert 0.99 * limit < np.max(weight) <= limit
        assert -limit <= np.min(weight) < -0.99 * limit


def test_glorot_initialization_starts_biases_at_zero():
    encoder = networks.MLPEncoder(2, (20,), seed=0)
    encoder.build((None, 100))
    assert not np.any(encoder.hidden[0].bias)


@pytest.mark.parametrize("mean", [0.25, np.full((6, 6, 1), 0.25), np.linspace(0.1, 0.9, 36).reshape(6, 6, 1)])
def test_output_bias_makes_the_untrained_mlp_predict_the_training_mean(mean):
    decoder = networks.MLPEncoder(2).mirror((6, 6, 1), networks.logit_of_mean(mean))
    logits = np.asarray(decoder(np.zeros((1, 2), np.float32)))[0]
    predicted = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(predicted, np.broadcast_to(mean, (6, 6, 1)), rtol=1e-5)  # float32 sigmoid and logit


def test_output_bias_of_a_convolutional_decoder_has_one_number_per_channel():
    decoder = networks.ConvEncoder(2).mirror((6, 6, 3), [-1.0, 0.0, 1.0])
    decoder.build((None, 2))
    np.testing.assert_array_equal(decoder.head.bias, [-1, 0, 1])


def residual_pair(shape, norm_groups=2, numbers_per_pixel=1):
    """A built encoder and decoder whose blocks do something: their second kernels begin with zeros."""
    encoder = networks.ResidualEncoder(3, (4, 6), 2, norm_groups, 8, seed=0)
    decoder = encoder.mirror(shape, numbers_per_pixel=numbers_per_pixel)
    encoder.build((None, *shape))
    decoder.build((None, 3))
    rng = np.random.default_rng(1)
    for layer in (*encoder.second_convolutions, *decoder.second_convolutions):
        layer.kernel.assign(rng.normal(0.0, 0.3, layer.kernel.shape))
    return encoder, decoder


def test_new_residual_blocks_return_their_input_and_later_a_sum(rng):
    encoder, decoder = residual_pair((9, 6, 2))
    h = rng.normal(size=(2, 5, 3, 4)).astype(np.float32)
    norm, first, second = encoder.norms[1], encoder.first_convolutions[1], encoder.second_convolutions[1]
    encoder.second_convolutions[0].kernel.assign(0.0 * encoder.second_convolutions[0].kernel)
    np.testing.assert_array_equal(encoder._stage(0, h), h + second(first(norm(h))))
    second.kernel.assign(0.0 * second.kernel)
    np.testing.assert_array_equal(encoder._stage(0, h), h)
    assert [layer.filters for layer in decoder.convolutions] == [4, 4]
    assert [layer.filters for layer in decoder.first_convolutions] == [6, 6, 4, 4]


def test_group_normalization_computes_the_same_in_training_and_for_each_image_alone(rng):
    encoder, decoder = residual_pair((9, 6, 2))
    for network, inputs in ((encoder, rng.random((3, 9, 6, 2), np.float32)), (decoder, rng.random((3, 3), np.float32))):
        whole = np.asarray(network(inputs)[0] if network is encoder else network(inputs))
        trained = network(inputs, training=True)
        np.testing.assert_array_equal(trained[0] if network is encoder else trained, whole)
        alone = network(inputs[1:2])
        # Float32 products of another batch size, in another order.
        np.testing.assert_allclose(alone[0] if network is encoder else alone, whole[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_groups", [0, 2])
def test_every_weight_of_a_residual_pair_has_a_gradient(norm_groups, rng):
    encoder, decoder = residual_pair((5, 7, 2), norm_groups)
    with tf.GradientTape() as tape:
        mean, log_var = encoder(rng.random((4, 5, 7, 2), np.float32))
        loss = tf.reduce_sum(decoder(mean) ** 2) + tf.reduce_sum(log_var**2)
    weights = encoder.trainable_weights + decoder.trainable_weights
    # Per network: 2 (transposed) convolutions, 4 blocks, 2 dense layers and their heads.
    assert len(weights) == 2 * (2 * 2 + 4 * (4 + norm_groups)) + 2 * (1 + 2) + 2 * (2 + 1)
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        assert np.any(gradient), weight.path


def test_a_residual_pair_is_saved_with_its_blocks(rng, tmp_path):
    inputs = rng.random((2, 5, 7, 2), np.float32), rng.random((2, 3), np.float32)
    for network, x in zip(residual_pair((5, 7, 2), numbers_per_pixel=2), inputs, strict=True):
        network.save(tmp_path / "network.keras")
        loaded = keras.saving.load_model(tmp_path / "network.keras")
        np.testing.assert_array_equal(tf.nest.flatten(loaded(x))[0], tf.nest.flatten(network(x))[0])


@pytest.mark.parametrize("numbers", [1, 3])
def test_a_residual_decoder_returns_n_numbers_per_pixel_that_begin_at_the_mean(numbers):
    decoder = networks.ResidualEncoder(2, (4,), 1, 2, 4).mirror((5, 7, 2), [-1.0, 1.0], numbers_per_pixel=numbers)
    values = np.asarray(decoder(np.zeros((2, 2), np.float32)))
    assert values.shape == ((2, 5, 7, 2) if numbers == 1 else (2, 5, 7, 2, 3))
    first = values if numbers == 1 else values[..., 0]
    np.testing.assert_array_equal(first, np.broadcast_to([-1.0, 1.0], first.shape))


@pytest.mark.slow
def test_a_residual_pair_learns_a_few_images(without_xla, rng):
    x = rng.integers(0, 2, (8, 5, 7, 1)).astype(np.float32)
    vae = kvae.VAE(encoder=networks.ResidualEncoder(4, (8,), 1, 4, 16, seed=0), beta=0.0, seed=0)
    losses = compiled(vae).fit(x, epochs=60, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    assert all(np.any(layer.kernel) for layer in vae.decoder.second_convolutions)


@pytest.mark.exhaustive  # tests/test_part_contract.py shows it for float32 in CI
@pytest.mark.slow
@pytest.mark.parametrize("format_", ["tflite", "onnx"])
@pytest.mark.usefixtures("quick_exports")
def test_an_exported_residual_decoder_computes_the_same(format_, tmp_path):
    if format_ == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra kvae[onnx] is not installed")
    encoder, decoder = residual_pair((9, 6, 3))
    vae = kvae.VAE(encoder=encoder, decoder=decoder, likelihood="gaussian", seed=0)
    vae.build((None, 9, 6, 3))
    card = export.bundle(vae, tmp_path / "bundle", formats=[format_])  # float16 and int8 within their tolerances
    # Sums in another order, which the normalization divides by small standard deviations.
    assert card["variants"]["onnx" if format_ == "onnx" else "float32"]["means_error_greatest"] < 1e-4


def test_logit_of_mean_stays_finite_for_pixels_that_never_change():
    assert np.isfinite(networks.logit_of_mean([0.0, 1.0])).all()


def test_regularizers_cover_kernels_and_biases_of_every_layer():
    penalty = keras.regularizers.L2(1.0)
    decoder = networks.MLPEncoder(2, (3,)).mirror((4,), kernel_regularizer=penalty, bias_regularizer=penalty)
    decoder.build((None, 2))
    assert len(decoder.losses) == 4


def test_heads_compute_in_float32_under_mixed_precision(family, rng):
    encoder = family(dtype="mixed_bfloat16")
    mean, log_var = encoder(rng.random((2, 8, 8, 1), np.float32))
    logits = encoder.mirror((8, 8, 1))(mean)
    assert {keras.backend.standardize_dtype(part.dtype) for part in (mean, log_var, logits)} == {"float32"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: networks.MLPEncoder(0), "latent_dim"),
        (lambda: networks.MLPEncoder(2.5), "latent_dim"),
        (lambda: networks.MLPEncoder(True), "latent_dim"),
        (lambda: networks.MLPEncoder(2, 500), r"hidden_units.* Received 500\. Write \[500\]\."),
        (lambda: networks.MLPEncoder(2, "200, 100"), r"hidden_units.* Write \[200,100\]\."),
        (lambda: networks.MLPEncoder(2, "wide"), r"Received 'wide'\.$"),
        (lambda: networks.MLPEncoder(2, (0,)), "hidden_units"),
        (lambda: networks.MLPEncoder(2, initialization="glorott"), "Did you mean 'glorot'"),
        (lambda: networks.ConvEncoder(2, (4, -1)), "filters"),
        (lambda: networks.ResidualEncoder(2, ()), "filters"),
        (
            lambda: networks.ResidualEncoder(2, (16, 12), norm_groups=8),
            r"norm_groups=8 groups\. Received \[16, 12\]\. Choose multiples",
        ),
        (lambda: networks.ResidualEncoder(2, norm_groups=-1), "norm_groups"),
        (lambda: networks.ResidualDecoder((8, 8, 1), blocks=0), "blocks"),
        (lambda: networks.ResidualDecoder((28, 28)), "channel axis"),
        (lambda: networks.MLPDecoder((28, 0, 1)), "image shape"),
        (lambda: networks.MLPDecoder((4,), output_bias=[1.0, 2.0]), "output_bias"),
        (lambda: networks.MLPDecoder((4,), output_bias=np.nan), "output_bias"),
        (lambda: networks.ConvDecoder((28, 28)), "channel axis"),
        (lambda: networks.ConvEncoder(2)(np.zeros((1, 28, 28), np.float32)), "channel axis"),
    ],
)
def test_impossible_arguments_are_refused_by_name(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_the_heads_in_one_product_are_the_heads(rng):
    encoder = networks.MLPEncoder(3, (5,), seed=0)
    x = rng.random((4, 8, 8, 1), np.float32)
    mean, log_var = encoder(x)
    h = encoder.hidden[0](encoder.flatten(x))
    # Float32 sums of five numbers, in whichever order.
    np.testing.assert_allclose(mean, encoder.mean_head(h), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_var, encoder.scale_head(h), rtol=1e-5, atol=1e-6)
