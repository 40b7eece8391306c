"""`kvae.export.quantization`: int8 weights that change a layer's outputs less than the nearest integers do."""

import keras
import numpy as np
import pytest
from small_models import built, scaled_decoder, tiny

import kvae
from kvae import runtime
from kvae.export import litert, quantization
from kvae.runtime.keras import KerasDecoder


def layer(rng, correlated, count=400, inputs=60, outputs=20):
    """Weights `[O, I]`, bias `[O]`, scales `[O]` and inputs `[N, I]`: functions of 3 numbers, or noise."""
    weights, bias = rng.normal(size=(outputs, inputs)), rng.normal(size=outputs)
    seen = rng.normal(size=(count, inputs))
    if correlated:
        seen = np.tanh(rng.normal(size=(count, 3)) @ rng.normal(size=(3, inputs)) + 0.5)
    return weights, bias, np.abs(weights).max(axis=1) / 127, seen


def output_error(weights, bias, seen, integers, shifted, scales):
    exact, found = seen @ weights.T + bias, seen @ (integers * scales[:, None]).T + shifted
    return np.sqrt(np.mean((exact - found) ** 2))


def test_outputs_of_correlated_inputs_err_far_less_than_with_the_nearest_integers(rng):
    weights, bias, scales, seen = layer(rng, correlated=True)
    nearest = np.rint(weights / scales[:, None])
    plain = output_error(weights, bias, seen, nearest, bias, scales)
    assert output_error(weights, bias, seen, *quantization.rounded(weights, bias, scales, seen), scales) < plain / 3


def test_that_holds_for_inputs_that_it_has_not_seen(rng):
    weights, bias, scales, seen = layer(rng, correlated=True, count=800)
    known, fresh = seen[:400], seen[400:]
    plain = output_error(weights, bias, fresh, np.rint(weights / scales[:, None]), bias, scales)
    assert output_error(weights, bias, fresh, *quantization.rounded(weights, bias, scales, known), scales) < plain / 2


def test_weights_of_inputs_that_tell_nothing_of_each_other_are_rounded_to_the_nearest(rng):
    weights, bias, scales, _ = layer(rng, correlated=False)
    signs = np.concatenate([np.eye(60), -np.eye(60)])  # uncorrelated, of mean 0
    integers, shifted = quantization.rounded(weights, bias, scales, 3 * signs)
    assert np.array_equal(integers, np.rint(weights / scales[:, None]))
    np.testing.assert_allclose(shifted, bias, rtol=1e-6)


@pytest.mark.parametrize("correlated", [False, True])
def test_integers_are_int8_within_127_and_the_bias_float32(rng, correlated):
    weights, bias, scales, seen = layer(rng, correlated)
    integers, shifted = quantization.rounded(weights, bias, scales, seen)
    assert (integers.dtype, integers.shape) == (np.int8, weights.shape)
    assert np.abs(integers.astype(int)).max() <= 127
    assert (shifted.dtype, shifted.shape) == (np.float32, bias.shape)


def test_a_layer_without_a_bias_gets_none(rng):
    weights, _, scales, seen = layer(rng, correlated=True)
    integers, shifted = quantization.rounded(weights, None, scales, seen)
    assert shifted is None
    plain = output_error(weights, 0, seen, np.rint(weights / scales[:, None]), 0, scales)
    assert output_error(weights, 0, seen, integers, 0, scales) < plain / 3


def test_outputs_whose_weights_are_0_and_inputs_that_are_always_0_stay_finite(rng):
    weights, bias, scales, seen = layer(rng, correlated=True)
    weights[3], scales[3], seen[:, 7] = 0, 0, 0
    integers, shifted = quantization.rounded(weights, bias, scales, seen)
    assert not integers[3].any()
    np.testing.assert_allclose(shifted[3], bias[3], rtol=1e-6)
    assert np.isfinite(shifted).all()


@pytest.fixture(scope="module")
def sharp():
    """A model with a layer of 20,000 weights, so large that rounding it changes its outputs measurably."""
    return scaled_decoder(tiny(hidden_units=(100,)), (20, 10, 1), 4)


def mean_error(vae, content, tmp_path):
    path = tmp_path / "decoder.tflite"
    path.write_bytes(content)
    z = kvae.sampling.draw_z(vae, 500, 3).numpy()
    return np.abs(runtime.load(path).decode(z).means - KerasDecoder(vae).decode(z).means).mean()


@pytest.mark.slow  # two conversions of a wide decoder
def test_a_decoder_errs_by_less_than_what_the_converter_makes_of_it(sharp, tmp_path, monkeypatch):
    refined = litert.convert(sharp, ["int8"])["int8"]
    monkeypatch.setattr(quantization, "refined", lambda quantized, whole, latents: quantized)
    plain = litert.convert(sharp, ["int8"])["int8"]
    assert mean_error(sharp, refined, tmp_path) < 0.75 * mean_error(sharp, plain, tmp_path)
    assert len(refined) < len(plain) + 5000  # what comes back to float32 is small


@pytest.mark.slow
def test_dense_layers_along_a_sequence_without_a_bias_are_rounded_too(tmp_path):
    image, z = keras.Input((6, 40, 1)), keras.Input((2,))
    flat = keras.layers.Flatten()(image)
    encoder = keras.Model(image, [keras.layers.Dense(2)(flat), keras.layers.Dense(2)(flat)])
    h = keras.layers.Reshape((6, 300))(keras.layers.Dense(1800, "tanh")(z))
    decoder = keras.Model(z, keras.layers.Reshape((6, 40, 1))(keras.layers.Dense(40, use_bias=False)(h)))
    vae = built((6, 40, 1), encoder=encoder, decoder=decoder)
    assert mean_error(vae, litert.convert(vae, ["int8"])["int8"], tmp_path) < 0.01  # of means about 0.5 +- 0.1
