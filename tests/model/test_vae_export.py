"""Keras's `export` of a model: at once, in the formats that Keras has, and whole or not at all."""

import errno
import importlib.util
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from small_models import SHAPE, compiled, tiny, tiny_built, users_networks

import kvae
from kvae.internal.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_xla")]

ROUNDING = {"rtol": 0, "atol": 1e-6}  # of a sum of 30 float32 terms of about 1, under a sigmoid


def images(count):
    return np.random.default_rng(count).integers(0, 2, (count, *SHAPE)).astype(np.float32)


def fitted(x, tmp_path):
    vae = compiled(tiny())
    vae.fit(x, verbose=0)
    return vae


def evaluated(x, tmp_path):
    vae = compiled(tiny_built())
    vae.evaluate(x, verbose=0)
    return vae


def loaded(x, tmp_path):
    tiny_built().save(tmp_path / "saved.keras")
    return keras.saving.load_model(tmp_path / "saved.keras")


def with_loaded_weights(x, tmp_path):
    tiny_built(seed=3).save_weights(tmp_path / "w.weights.h5")
    vae = tiny_built()
    vae.load_weights(tmp_path / "w.weights.h5")
    return vae


STATES = {
    "fit": fitted,
    "evaluate": evaluated,
    "load_model": loaded,
    "load_weights": with_loaded_weights,
    "build": lambda x, tmp_path: tiny_built(),
    "encode": lambda x, tmp_path: (vae := tiny(), vae.encode(x))[0],
    "networks of a user": lambda x, tmp_path: (
        vae := kvae.VAE(encoder=(networks := users_networks())[0], decoder=networks[1]),
        vae.build(x.shape),
    )[0],
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_a_model_is_exported_without_a_call_of_it(x, tmp_path, state):
    vae = state(x, tmp_path)
    vae.export(tmp_path / "out", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    for count in (1, 7):
        np.testing.assert_allclose(served(x=images(count))["output_0"], vae(images(count)), **ROUNDING)


@keras.saving.register_keras_serializable("test_vae_export")
class Conditional(keras.Model):
    """A dense layer of the input and a condition of 3 numbers, `[B, 3]`."""

    def __init__(self, shapes, **kwargs):
        super().__init__(**kwargs)
        self.shapes = [tuple(shape) for shape in shapes]
        self.layers_of_outputs = [keras.layers.Dense(int(np.prod(shape))) for shape in self.shapes]

    def call(self, x, condition=None):
        h = tf.concat([tf.reshape(x, [tf.shape(x)[0], int(np.prod(x.shape[1:]))]), condition], axis=1)
        outputs = [
            tf.reshape(layer(h), [-1, *shape]) for layer, shape in zip(self.layers_of_outputs, self.shapes, strict=True)
        ]
        return outputs if len(outputs) > 1 else outputs[0]

    def get_config(self):
        return {"shapes": self.shapes}


def conditional():
    vae = kvae.VAE(encoder=Conditional([(2,), (2,)]), decoder=Conditional([SHAPE]), condition_shape=(3,), seed=0)
    vae.build((None, *SHAPE))
    return vae


@pytest.mark.parametrize("ending", ["", ".tflite"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_conditional_model_is_exported_with_its_condition(tmp_path, rng, ending, count):
    vae, path = conditional(), tmp_path / f"out{ending}"
    vae.export(path, format="litert" if ending else "tf_saved_model", verbose=False)
    run = Interpreter(str(path)).get_signature_runner() if ending else None
    run = run or tf.saved_model.load(str(path)).signatures["serving_default"]
    condition = rng.standard_normal((count, 3)).astype(np.float32)
    found = run(x=images(count), condition=condition)["output_0"]
    np.testing.assert_allclose(found, vae(images(count), condition), **ROUNDING)


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("state", ["build", "load_model"])
def test_a_model_is_exported_to_litert(x, tmp_path, count, state, capfd):
    vae = STATES[state](x, tmp_path)
    capfd.readouterr()
    vae.export(tmp_path / "out.tflite", format="litert", verbose=False)
    assert capfd.readouterr() == ("", "")  # the converter has much to say
    run = Interpreter(str(tmp_path / "out.tflite")).get_signature_runner()
    np.testing.assert_allclose(run(x=images(count))["output_0"], vae(images(count)), **ROUNDING)


@pytest.mark.parametrize(
    ("format", "package", "name"), [("onnx", "onnx", "out.onnx"), ("openvino", "openvino", "out.xml")]
)
def test_a_format_whose_package_is_missing_has_the_error_of_keras(tmp_path, format, package, name):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ImportError, match=package):
        tiny_built().export(tmp_path / name, format=format)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out", {"format": "litert"}),
        ("out", {"format": "openvino"}),
        ("out", {"format": "torch"}),
        ("out", {"format": "saved_model"}),
    ],
    ids=["litert", "openvino", "torch", "unknown"],
)
def test_what_keras_refuses_has_the_message_of_keras(tmp_path, name, options):
    messages = []
    for model in (tiny_built(), keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])):
        with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared below
            model.export(str(tmp_path / name), **options)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", ["tf_saved_model", "litert", "onnx"])
def test_a_model_that_is_not_built_says_what_to_do(tmp_path, format):
    with pytest.raises(UserError, match=r"Call fit, or build\(\(None, 28, 28, 1\)\), first"):
        tiny().export(tmp_path / "out.tflite", format=format)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("shape", [(4, *SHAPE), (None, *SHAPE)], ids=["fixed batch", "any batch"])
def test_another_signature_may_be_given(tmp_path, shape):
    vae = tiny_built()
    vae.export(tmp_path / "out", verbose=False, input_signature=[tf.TensorSpec(shape, tf.float32, "pixels")])
    (spec,) = (
        tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"].structured_input_signature[1].values()
    )
    assert (spec.name, tuple(spec.shape)) == ("pixels", shape)


@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize("state", ["build", "fit", "load_model"])
def test_a_network_is_exported_as_well(x, tmp_path, name, state):
    network = getattr(STATES[state](x, tmp_path), name)
    network.export(tmp_path / "out", verbose=False)
    inputs = images(5) if name == "encoder" else np.ones((5, 2), np.float32)
    served = tf.saved_model.load(str(tmp_path / "out"))
    for found, expected in zip(tf.nest.flatten(served.serve(inputs)), tf.nest.flatten(network(inputs)), strict=True):
        np.testing.assert_allclose(found, expected, **ROUNDING)


@pytest.mark.parametrize("verbose", [True, None])
@pytest.mark.parametrize(("name", "format"), [("out", "tf_saved_model"), ("out.tflite", "litert")])
def test_what_is_printed_names_the_place_of_the_export(tmp_path, capsys, verbose, name, format):
    tiny_built().export(tmp_path / name, format=format, verbose=verbose)
    printed = capsys.readouterr().out
    assert f"Saved artifact at '{tmp_path / name}'." in printed
    assert ".partial" not in printed


# --- what was there


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_an_export_replaces_an_earlier_one_and_keeps_other_files(tmp_path):
    tiny_built(seed=1).export(tmp_path / "out", verbose=False)
    (tmp_path / "out" / "notes.txt").write_bytes(b"mine")
    vae = tiny_built(seed=2)
    vae.export(tmp_path / "out", verbose=False)
    assert (tmp_path / "out" / "notes.txt").read_bytes() == b"mine"
    served = tf.saved_model.load(str(tmp_path / "out"))
    np.testing.assert_allclose(served.serve(images(3)), vae(images(3)), **ROUNDING)


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
@pytest.mark.parametrize(("name", "format"), [("out", "tf_saved_model"), ("out.tflite", "litert")])
def test_an_export_that_breaks_off_leaves_everything_as_it_was(tmp_path, monkeypatch, fault, name, format):
    vae = tiny_built()
    vae.export(tmp_path / name, format=format, verbose=False)
    (tmp_path / "notes.txt").write_bytes(b"mine")
    before, save = tree(tmp_path), tf.saved_model.save

    def break_off(*args, **kwargs):
        save(*args, **kwargs)
        raise fault

    monkeypatch.setattr(tf.saved_model, "save", break_off)
    with pytest.raises((KeyboardInterrupt, OSError)):
        vae.export(tmp_path / name, format=format, verbose=False)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("name", "format"), [("out", "tf_saved_model"), ("out.tflite", "litert")])
def test_a_thing_of_another_kind_is_not_replaced(tmp_path, name, format):
    (tmp_path / name).mkdir() if format == "litert" else (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(UserError, match="Could not write"):
        tiny_built().export(tmp_path / name, format=format, verbose=False)
    assert os.listdir(tmp_path) == [name]
