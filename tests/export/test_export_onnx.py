"""ONNX: one file with both functions, which ONNX Runtime runs as Keras does."""

import sys

import numpy as np
import own_parts
import pytest
from exports import quick_parity
from small_models import tiny_built

import kvae
from kvae import export, runtime
from kvae.export.onnx import convert
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras
from kvae.model import likelihoods, priors
from kvae.runtime.keras import KerasDecoder

WHY = "the extra kvae[onnx] is not installed"


def installed() -> None:
    for package in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(package, reason=WHY)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model and its bundle of ONNX alone, with the card."""
    installed()
    vae, folder = tiny_built(), tmp_path_factory.mktemp("onnx") / "bundle"
    with quick_parity():
        card = export.bundle(vae, folder, formats=["onnx"])
    return vae, folder, card


@pytest.mark.slow
def test_the_file_draws_the_images_of_the_model(made):
    vae, folder, _ = made
    decoder, model = runtime.load(folder / "decoder.onnx"), KerasDecoder(vae)
    assert (decoder.latent_dim, decoder.image_shape) == (model.latent_dim, model.image_shape)
    drawn, expected = decoder.sample(range(-150, 150)), model.sample(range(-150, 150))  # more than one chunk
    assert np.array_equal(drawn.z, expected.z)
    # float32 sums of 8 products in another order, through a sigmoid.
    np.testing.assert_allclose(drawn.means, expected.means, rtol=0, atol=1e-6)
    assert (drawn.images != expected.images).mean() < 1e-4
    decoded, logits = decoder.decode(expected.z), model.decode(expected.z).logits
    np.testing.assert_allclose(decoded.means, drawn.means, rtol=0, atol=1e-6)
    np.testing.assert_allclose(decoded.logits, logits, rtol=0, atol=1e-5)


def test_a_bundle_opens_it_and_the_card_states_its_parity_and_costs(made):
    _, folder, card = made
    assert runtime.load(folder).path == runtime.load(folder, "onnx").path == folder / "decoder.onnx"
    report = card["variants"]["onnx"]
    assert (report["file"], report["format"], report["z_identical"]) == ("decoder.onnx", "onnx", True)
    assert report["latency_us"]
    assert report["means_error_greatest"] < 1e-4
    with quick_parity():
        assert [check for check in export.verify(folder) if check.passed is False] == []


def test_all_inputs_are_required_and_one_without_rows_skips_its_function(made):
    vae, folder, _ = made
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "decoder.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["decode_z", "sample_seed"]
    assert session.get_overridable_initializers() == []
    z, seed = np.zeros((3, vae.latent_dim), np.float32), np.arange(5, dtype=np.int32)
    for rows in ((3, 0), (0, 5), (3, 5)):
        outputs = session.run(None, {"decode_z": z[: rows[0]], "sample_seed": seed[: rows[1]]})
        for output, value in zip(session.get_outputs(), outputs, strict=True):
            assert len(value) == rows[output.name.startswith("sample_")], output.name


def test_the_card_states_the_names_that_the_file_has(made):
    _, folder, card = made
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "decoder.onnx", providers=["CPUExecutionProvider"])
    report = card["variants"]["onnx"]
    stated = {name: several for names in report["names"].values() for several, name in names.items()}
    assert set(stated) == {each.name for each in (*session.get_inputs(), *session.get_outputs())}
    for function, names in report["names"].items():
        sides = card["interface"][function]
        assert set(names) == {each["name"] for each in (*sides["inputs"], *sides["outputs"])}
        assert all(name == f"{function}_{each}" for each, name in names.items())
    assert list(report["least_runtime"]) == ["ONNX Runtime"]
    text = (folder / "README.md").read_text()
    assert "`decode_z`" in text
    assert "decoder.tflite" not in text


def test_weights_are_in_the_file_once(made):
    _, folder, _ = made
    import onnx

    model = onnx.load(folder / "decoder.onnx")
    onnx.checker.check_model(model, full_check=True)
    contents = [each.raw_data for each in model.graph.initializer if len(each.raw_data) > 64]
    assert len(contents) == len(set(contents))
    weights = tiny_built().decoder.count_params()
    floats = sum(int(np.prod(each.dims)) for each in model.graph.initializer if each.data_type == 1)
    assert floats < 1.5 * weights


@pytest.mark.slow
def test_conditional_models_and_several_parameters(tmp_path):
    installed()
    parts = {"likelihood": kvae.likelihoods.Gaussian("learned"), "prior": "mixture"}
    vae = kvae.VAE(2, hidden_units=(8,), seed=0, condition_shape=(3,), **parts)
    vae.build((None, 6, 5, 1))
    conditions = np.eye(3, dtype=np.float32)
    with quick_parity():
        card = export.bundle(vae, tmp_path / "bundle", formats=["onnx"], conditions=conditions)
    assert card["variants"]["onnx"]["means_error_greatest"] < 1e-5
    decoder, model = runtime.load(tmp_path / "bundle"), KerasDecoder(vae)
    assert decoder.condition_shape == (3,)
    drawn, expected = decoder.sample([1, 2, 3], conditions), model.sample([1, 2, 3], conditions)
    np.testing.assert_allclose(drawn.means, expected.means, rtol=0, atol=1e-5)
    decoded, parameters = decoder.decode(expected.z, conditions), model.decode(expected.z, conditions).parameters
    np.testing.assert_allclose(decoded.parameters, parameters, rtol=0, atol=1e-5)


@pytest.mark.every_case
@pytest.mark.slow
@pytest.mark.parametrize("prior", [*priors.PRIORS.values(), own_parts.Mixture])
def test_convolutions_and_every_prior(prior, tmp_path):
    installed()
    vae = kvae.VAE(
        encoder=kvae.networks.ConvEncoder(3, filters=(4,), dense_units=8, seed=0),
        decoder=kvae.networks.ConvDecoder((8, 7, 3), filters=(4,), dense_units=8, seed=1),
        prior=prior(),
    )
    vae.build((None, 8, 7, 3))
    z_error = check_sampling(vae, tmp_path)
    assert z_error == 0 if prior.exact else z_error < 1e-5


@pytest.mark.every_case
@pytest.mark.slow
@pytest.mark.parametrize("likelihood", likelihoods.LIKELIHOODS)
def test_every_likelihood_but_one_that_is_refused(likelihood, tmp_path):
    installed()
    vae = tiny_built(likelihood=likelihood)
    if likelihood == "continuous_bernoulli":  # whose mean needs an operation that ONNX does not have
        with pytest.raises(UserError, match=r"Received one with others: .*--formats savedmodel"):
            convert(vae)
    else:
        assert check_sampling(vae, tmp_path) == 0


def check_sampling(vae, folder) -> float:
    """Compares what the file of a model draws with what the model draws; the greatest difference of z."""
    (folder / "decoder.onnx").write_bytes(convert(vae))
    seeds = range(-50, 50)
    drawn, expected = runtime.load(folder / "decoder.onnx").sample(seeds), KerasDecoder(vae).sample(seeds)
    # Sums in another order, in float32.
    np.testing.assert_allclose(drawn.means, expected.means, rtol=0, atol=1e-5)
    assert (np.abs(np.int16(drawn.images) - np.int16(expected.images)) > 1).mean() < 1e-3
    return float(np.abs(drawn.z - expected.z).max())


@keras.saving.register_keras_serializable("tests")
class Restless(keras.layers.Layer):
    """A layer that draws random numbers in the decoder."""

    def call(self, x):
        import tensorflow as tf

        return x + tf.random.normal(tf.shape(x))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Restless, "Received one that draws random numbers itself"),
        (lambda: keras.layers.Lambda(lambda x: keras.ops.fft((x, x))[0]), "Received one with others: "),
    ],
    ids=["random", "fft"],
)
def test_a_decoder_that_onnx_cannot_run_is_refused_and_nothing_is_written(layer, expected, tmp_path):
    installed()
    decoder = keras.Sequential([keras.layers.Dense(30), layer(), keras.layers.Reshape((6, 5, 1))])
    encoder = kvae.networks.MLPEncoder(2, hidden_units=(8,))
    vae = kvae.VAE(encoder=encoder, decoder=decoder)
    vae.build((None, 6, 5, 1))
    with pytest.raises(UserError, match=expected):
        export.bundle(vae, tmp_path / "bundle", formats=["onnx"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["tf2onnx", "onnxruntime"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"Missing: .*{package}.* Install them: pip install .*{package}"):
        export.bundle(tiny_built(), tmp_path / "bundle", formats=["onnx"])
    if package == "onnxruntime":
        (tmp_path / "decoder.onnx").touch()
        with pytest.raises(UserError, match="Install it: pip install onnxruntime"):
            runtime.open_decoder(tmp_path / "decoder.onnx")


@pytest.mark.parametrize("content", [b"", b"no protobuf", b"\x08"])
def test_a_file_that_is_not_a_decoder_is_refused(content, tmp_path):
    installed()
    (tmp_path / "decoder.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"decoder\.onnx (is damaged|with the inputs)"):
        runtime.load(tmp_path / "decoder.onnx")


def test_another_onnx_model_is_refused(tmp_path):
    installed()
    from onnx import TensorProto, helper, save

    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Abs", ["a"], ["b"])], "other", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"with the inputs decode_z and sample_seed\. Received .*with the inputs a"):
        runtime.open_decoder(tmp_path / "other.onnx")


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "{tmp_path}/weights.bin"])
def test_a_file_that_names_another_for_its_weights_is_refused(place, made, tmp_path, monkeypatch):
    import onnx

    model = onnx.load(made[1] / "decoder.onnx")
    weights = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    (tmp_path / "within").mkdir()
    for folder in (tmp_path, tmp_path / "within"):
        (folder / "weights.bin").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=place.format(tmp_path=tmp_path))
    (tmp_path / "within" / "decoder.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path / "within")
    with pytest.raises(UserError, match="External data path"):
        runtime.open_decoder("decoder.onnx")
