"""LiteRT decoders against the Keras model that they are made of: every likelihood, network, batch and variant."""

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from small_models import built

import kvae
from kvae.export import DEFAULT_VARIANTS, convert, litert, operators, quantization
from kvae.internal.errors import UserError
from kvae.model import likelihoods, networks
from kvae.noise import portable
from kvae.runtime.litert import LiteRTDecoder

# The errors of the means, which lie in [0, 1]. None of these small models has a layer of 10,000 weights, so int8 is
# float32: a sum of 16 float32 terms under a sigmoid errs by about 1e-6, and the mean of a continuous Bernoulli takes
# the difference of two numbers of up to 5. float16 rounds weights to 2^-11, and logits of up to 10 by that.
BOUNDS = {"float32": 1e-5, "float16": 5e-3, "int8": 1e-5}


def perturbed(vae: kvae.VAE) -> kvae.VAE:
    """The model with weights that are far from the initial ones, so that biases count and pixels get near 0 and 1."""
    rng = np.random.default_rng(7)
    for variable in vae.decoder.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.5, variable.shape))
    return vae


def conv(latent_dim: int, **options) -> networks.ConvEncoder:
    return networks.ConvEncoder(latent_dim, **{"filters": (4, 8), "dense_units": 16, "seed": 0, **options})


def functional_encoder(shape: tuple[int, ...], latent_dim: int) -> keras.Model:
    x = keras.Input(shape)
    h = keras.layers.Dense(8, "relu")(keras.layers.Flatten()(x))
    return keras.Model(x, [keras.layers.Dense(latent_dim)(h), keras.layers.Dense(latent_dim)(h)])


def own(shape: tuple[int, ...], latent_dim: int, *extra: keras.layers.Layer, **options) -> kvae.VAE:
    """A model with a functional encoder and a sequential decoder of a user, with other layers than those of kvae."""
    layers = [
        keras.Input((latent_dim,)),
        *extra,
        keras.layers.Dense(shape[0] * shape[1] * 2, "gelu"),
        keras.layers.LayerNormalization(),
        keras.layers.Reshape((*shape[:2], 2)),
        keras.layers.Conv2D(shape[2], 3, padding="same"),
    ]
    return built(shape, encoder=functional_encoder(shape, latent_dim), decoder=keras.Sequential(layers), **options)


MODELS = {
    "MLP, gaussian, D = 1": lambda: built(
        (7, 8, 3), latent_dim=1, hidden_units=(8,), likelihood=likelihoods.Gaussian("learned")
    ),
    "convolutional, continuous bernoulli, D = 5": lambda: built(
        (7, 8, 3), encoder=conv(5), likelihood="continuous_bernoulli"
    ),
    "own, bernoulli, D = 2": lambda: own((6, 5, 1), 2),
    "MLP, bernoulli, D = 2": lambda: built((6, 5, 1), latent_dim=2, hidden_units=(8,)),
    "convolutional, squared error, D = 1": lambda: built((6, 5, 1), encoder=conv(1), likelihood="squared_error"),
}


SLOW = ("MLP, bernoulli, D = 2", "convolutional, squared error, D = 1")  # the others have all that these have


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MODELS]
)
def made(request) -> tuple[kvae.VAE, dict[str, bytes]]:
    """A model and its .tflite files."""
    vae = perturbed(MODELS[request.param]())
    before = vae.get_weights()
    contents = convert(vae)
    for ours, theirs in zip(vae.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return vae, contents


def decoder(content: bytes, tmp_path) -> LiteRTDecoder:
    """The decoder of a .tflite file with this content."""
    (tmp_path / "decoder.tflite").write_bytes(content)
    return LiteRTDecoder(tmp_path / "decoder.tflite")


def images_of(vae: kvae.VAE, drawn: kvae.model.vae.Samples) -> np.ndarray:
    """The images of a sample in 0..255, in a type whose differences do not overflow."""
    return np.rint(255 * drawn.images.numpy()).astype(np.int16)


def assert_same_draws(vae: kvae.VAE, found: dict, seeds: np.ndarray, variant: str) -> None:
    """A sample is that of `VAE.sample`: z bit for bit, means within the bound, images as the means allow."""
    drawn = vae.sample(seeds)
    np.testing.assert_array_equal(found["z"], drawn.z)
    np.testing.assert_allclose(found["means"], drawn.means, rtol=0, atol=BOUNDS[variant])
    apart = np.abs(found["images"].astype(np.int16) - images_of(vae, drawn))
    if vae.likelihood.binary:
        # A pixel differs where its mean crosses its uniform number: a share of all pixels as great as the error.
        assert set(np.unique(found["images"])) <= {0, 255}
        assert (apart > 0).mean() <= BOUNDS[variant]
    else:
        # 1 level where rounding to 0..255 falls the other way; in float16 logits of up to 10 err by 2^-11 of that, and
        # the inverse distribution function of a continuous Bernoulli passes 1/4 of it on: 1/2 level more.
        assert apart.max() <= (2 if variant == "float16" else 1)


@pytest.mark.slow
def test_signatures_have_the_names_and_types_that_the_card_states(made):
    vae, contents = made
    for content in contents.values():
        interpreter = Interpreter(model_content=content)
        names = [f"{name}{tag}" for name in ("decode", "sample") for tag in ("", "_1", "_64")]
        listed = interpreter.get_signature_list()
        assert sorted(listed) == sorted(names)
        for name in names:
            runner, sampling = interpreter.get_signature_runner(name), name.startswith("sample")
            inputs = {key: facts["dtype"] for key, facts in runner.get_input_details().items()}
            outputs = {key: facts["dtype"] for key, facts in runner.get_output_details().items()}
            assert inputs == ({"seed": np.int32} if sampling else {"z": np.float32})
            expected = {"images": np.uint8, "means": np.float32, "z": np.float32}
            assert outputs == (expected if sampling else {"means": np.float32, "logits": np.float32})
            if name.endswith(("_1", "_64")):
                shape = [int(name.split("_")[1]), *vae.image_shape]
                assert runner.get_output_details()["means"]["shape"].tolist() == shape


@pytest.mark.parametrize("variant", DEFAULT_VARIANTS)
def test_any_batch_decodes_to_the_means_and_logits_of_keras(made, variant, tmp_path, rng):
    vae, contents = made
    lite = decoder(contents[variant], tmp_path)
    assert (lite.latent_dim, lite.image_shape) == (vae.latent_dim, vae.image_shape)
    for size in (7, 1, 64, 7):  # up and down, for the runtime resizes its tensors
        z = rng.standard_normal((size, vae.latent_dim)).astype(np.float32)
        logits = vae.decode(z)
        found = lite.decode(z)
        np.testing.assert_allclose(found.means, vae.likelihood.mean(logits), rtol=0, atol=BOUNDS[variant])
        # Where the slope of the mean is greatest, a logit errs by 4 times as much, or 12 under a continuous Bernoulli.
        np.testing.assert_allclose(found.logits, logits, rtol=BOUNDS[variant], atol=12 * BOUNDS[variant])


@pytest.mark.parametrize("variant", DEFAULT_VARIANTS)
def test_any_batch_of_seeds_draws_what_the_model_draws(made, variant, tmp_path):
    vae, contents = made
    lite = decoder(contents[variant], tmp_path)
    for size in (7, 1, 64):
        seeds = portable.seeds(size, 3)
        assert_same_draws(vae, lite.sample(seeds)._asdict(), seeds, variant)


@pytest.mark.parametrize("size", [1, 64])
@pytest.mark.parametrize("variant", DEFAULT_VARIANTS)
def test_static_signatures_compute_the_same(made, variant, size):
    vae, contents = made
    interpreter = Interpreter(model_content=contents[variant])
    seeds = portable.seeds(size, 5)
    found = interpreter.get_signature_runner(f"sample_{size}")(seed=seeds)
    assert_same_draws(vae, found, seeds, variant)
    decoded = interpreter.get_signature_runner(f"decode_{size}")(z=found["z"])
    np.testing.assert_allclose(decoded["means"], vae.sample(seeds).means, rtol=0, atol=BOUNDS[variant])


@pytest.mark.parametrize("seeds", [[0, -1, 1, -(2**31), 2**31 - 1], [5, 5, 5]], ids=["extremes", "equal"])
def test_a_seed_gives_the_same_image_at_every_place(made, seeds, tmp_path):
    vae, contents = made
    lite = decoder(contents["float32"], tmp_path)
    together = lite.sample(seeds)
    assert_same_draws(vae, together._asdict(), np.array(seeds, np.int32), "float32")
    for place, seed in enumerate(seeds):
        np.testing.assert_array_equal(lite.sample([seed]).z[0], together.z[place])


def test_every_operation_is_built_in_and_none_draws_numbers_of_its_own(made):
    for content in made[1].values():
        names = operators(content)
        assert names
        assert not [name for name in names if name.startswith(("custom:", "FLEX", "Flex")) or "RANDOM" in name]


# Weights of the quantized variants


def packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def unpacked(content: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))


def weight_types(content: bytes) -> dict[int, set[tuple[int, tuple[int, ...]]]]:
    """Type and shape of the weights of convolutions and dense layers, by the builtin code of the operation."""
    model, found = unpacked(content), {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            kind = max(code.builtinCode, code.deprecatedBuiltinCode)
            if kind in (schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.CONV_2D):
                tensor = graph.tensors[operator.inputs[1]]
                found.setdefault(kind, set()).add((tensor.type, tuple(tensor.shape)))
    return found


@pytest.fixture(scope="module")
def large() -> tuple[kvae.VAE, dict[str, bytes]]:
    """A convolutional model whose dense stem has 600 x 128 weights."""
    vae = built((16, 16, 1), encoder=conv(2, filters=(16, 32), dense_units=1000))
    return vae, convert(vae)


@pytest.mark.slow
def test_int8_quantizes_large_dense_weights_and_no_other(large):
    found = weight_types(large[1]["int8"])
    operator, types = schema.BuiltinOperator, schema.TensorType
    dense = found[operator.FULLY_CONNECTED]
    assert {kind for kind, shape in dense if np.prod(shape) >= quantization.LEAST_QUANTIZED} == {types.INT8}
    assert {kind for kind, shape in dense if np.prod(shape) < quantization.LEAST_QUANTIZED} == {types.FLOAT32}
    assert {kind for kind, _ in found[operator.CONV_2D]} == {types.FLOAT32}


def test_quantized_files_are_as_much_smaller_as_their_weights(large):
    sizes = {variant: len(content) for variant, content in large[1].items()}
    # 1 and 2 bytes a weight in place of 4, and the same graph of about 80 kB.
    assert sizes["int8"] < 0.45 * sizes["float32"]
    assert sizes["float16"] < 0.65 * sizes["float32"]


def test_int8_of_a_large_layer_stays_near_the_model(large, tmp_path):
    vae, contents = large
    lite, seeds = decoder(contents["int8"], tmp_path), portable.seeds(64, 0)
    found, drawn = lite.sample(seeds), vae.sample(seeds)
    np.testing.assert_array_equal(found.z, drawn.z)
    # Weights and inputs in steps of 1/127 of the greatest, sums of 1000 terms whose errors average out.
    np.testing.assert_allclose(found.means, drawn.means, rtol=0, atol=0.02)


@pytest.mark.exhaustive
def test_int8_is_the_same_whether_or_not_float32_is_asked_for(large):
    assert convert(large[0], ["int8"])["int8"] == large[1]["int8"]


@pytest.fixture(scope="module")
def small() -> tuple[kvae.VAE, dict[str, bytes]]:
    vae = perturbed(built((6, 5, 1), latent_dim=2, hidden_units=(8,)))
    return vae, convert(vae, ["full_int8", "float32", "full_int8"])


@pytest.mark.slow
def test_each_variant_comes_once_in_the_order_asked_for(small):
    assert list(small[1]) == ["full_int8", "float32"]


def test_full_int8_runs_every_signature(small, tmp_path):
    vae, content = small[0], small[1]["full_int8"]
    assert not [name for name in operators(content) if name.startswith("custom:")]
    lite, seeds = decoder(content, tmp_path), portable.seeds(7, 0)
    drawn, z = lite.sample(seeds), kvae.sampling.draw_z(vae, 7, 0).numpy()
    assert drawn.images.dtype == np.uint8
    # Ranges are cut in 256 steps, one layer after the other; with logits of up to 10 a step is 0.08.
    np.testing.assert_allclose(lite.decode(z).means, vae.likelihood.mean(vae.decode(z)), rtol=0, atol=0.15)
    for size in (1, 64):
        runner = Interpreter(model_content=content).get_signature_runner(f"sample_{size}")
        assert runner(seed=portable.seeds(size, 0))["images"].shape == (size, 6, 5, 1)


# Mixed precision


@pytest.fixture
def policy():
    """Sets Keras's global precision policy, for this test alone."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mixed_float16", "own"),
        ("mixed_bfloat16", "MLP"),
        pytest.param("mixed_bfloat16", "own", marks=pytest.mark.slow),
        pytest.param("mixed_float16", "MLP", marks=pytest.mark.slow),
        pytest.param("mixed_float16", "convolutional", marks=pytest.mark.slow),
        pytest.param("mixed_bfloat16", "convolutional", marks=pytest.mark.slow),
    ],
)
def test_mixed_precision_exports_what_float32_computes(name, kind, policy, tmp_path):
    def model(dtype):
        if kind == "own":
            policy(dtype)
            return own((6, 5, 1), 2)
        if kind == "MLP":
            return built((6, 5, 1), latent_dim=2, hidden_units=(8,), dtype=dtype)
        return built((6, 5, 1), encoder=conv(2, dtype=dtype))

    plain = perturbed(model("float32"))
    mixed = model(name)
    mixed.set_weights(plain.get_weights())
    z = kvae.sampling.draw_z(mixed, 64, 0).numpy()
    logits = mixed.decode(z).numpy()
    assert not np.array_equal(logits, plain.decode(z))  # it does compute in 16 bits
    lite = decoder(convert(mixed, ["float32"])["float32"], tmp_path)
    assert not [name for name in operators(lite.path.read_bytes()) if "DEQUANTIZE" in name]
    np.testing.assert_allclose(lite.decode(z).means, plain.likelihood.mean(plain.decode(z)), rtol=0, atol=1e-5)
    computing = {layer.compute_dtype for layer in mixed.decoder._flatten_layers()}
    assert name.removeprefix("mixed_") in computing
    np.testing.assert_array_equal(mixed.decode(z), logits)


# What cannot be exported


class SingularValue(keras.layers.Layer):
    """A user's layer with an operation that LiteRT lacks."""

    def call(self, z):
        return z + tf.linalg.svd(z[..., None], compute_uv=False)


class PythonFunction(keras.layers.Layer):
    """A user's layer that leaves TensorFlow."""

    def call(self, z):
        return tf.ensure_shape(tf.py_function(lambda value: 2 * value, [z], tf.float32), z.shape)


@pytest.mark.parametrize(
    ("layer", "operation"),
    [(SingularValue, "Svd"), pytest.param(PythonFunction, "EagerPyFunc", marks=pytest.mark.slow)],
)
def test_an_operation_that_litert_lacks_is_named(layer, operation):
    with pytest.raises(UserError, match=f"(?s)builtin operations of LiteRT.*{operation}.*savedmodel"):
        convert(own((6, 5, 1), 2, layer()), ["float32"])


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (["int4"], "Unknown variant 'int4'. Did you mean 'int8'"),
        (["float32", "foat16"], "Did you mean 'float16'"),
        ([], "at least one variant of float32, float16, int8, full_int8. Received none"),
    ],
)
def test_invalid_variants_are_refused(variants, message):
    with pytest.raises(UserError, match=message):
        convert(built((6, 5, 1), latent_dim=2, hidden_units=(8,)), variants)


def test_a_model_that_was_not_built_says_how_to_build_it():
    with pytest.raises(UserError, match=r"build\(\(None, 28, 28, 1\)\)"):
        convert(kvae.VAE(2))


@pytest.fixture(scope="module")
def custom(small) -> bytes:
    """A conversion with TANH renamed to a custom operation."""
    model = unpacked(small[1]["float32"])
    code = next(code for code in model.operatorCodes if code.builtinCode == schema.BuiltinOperator.TANH)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"FlexTanh"
    return packed(model)


def test_operators_tells_a_custom_operation_apart(custom):
    names = operators(custom)
    assert "custom:FlexTanh" in names
    assert "TANH" not in names
    assert "FULLY_CONNECTED" in names


def test_a_conversion_with_custom_operations_is_refused(custom):
    with pytest.raises(RuntimeError, match="not builtin: custom:FlexTanh"):
        litert._check(custom, "float32", 100)


def test_the_runtime_names_a_file_with_operations_that_it_lacks(custom, tmp_path):
    with pytest.raises(UserError, match="needs operations or memory that LiteRT does not have"):
        decoder(custom, tmp_path)


def test_a_file_with_a_damaged_signature_is_named(small, tmp_path):
    model = unpacked(small[1]["float32"])
    for graph in model.subgraphs[1:]:  # the first is allocated when the file is loaded, the others when they are used
        graph.operators[0].inputs = [30_000]
    with pytest.raises(UserError, match=r"decoder\.tflite is damaged"):
        decoder(packed(model), tmp_path)


@pytest.mark.parametrize(("variant", "size"), [("float32", 4), ("float16", 2), ("int8", 1), ("full_int8", 1)])
def test_a_conversion_that_lost_its_weights_is_refused(custom, variant, size):
    weights = 2 * len(custom) // size  # twice as many as the file can hold
    with pytest.raises(RuntimeError, match=f"The {variant} conversion has lost weights"):
        litert._check(custom, variant, weights)
