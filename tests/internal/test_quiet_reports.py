"""What TensorFlow logs in ordinary use: nothing about files and functions that kvae makes, and all about the user's."""

import logging
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow
from small_models import SHAPE, compiled, tiny, tiny_built

import kvae
from kvae import export
from kvae.internal.quiet_output import may_retrace, without_tensorflow_reports
from kvae.model.compiled_functions import compiled as compiled_function

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_xla")]

TIMES = 7  # TensorFlow warns after 5 calls that trace


@pytest.fixture
def logged():
    """The messages that the logger of TensorFlow passes on, at the level that it has in a notebook."""
    messages, logger = [], tf.get_logger()
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.setLevel(level)
    logger.removeHandler(handler)


def images(count):
    return np.random.default_rng(count).integers(0, 2, (count, *SHAPE)).astype(np.float32)


def sizes(call):
    """Calls a function with ever other numbers of images."""
    for count in range(1, TIMES):
        call(images(count))


def models(call):
    """Calls a function with ever other models."""
    for seed in range(TIMES):
        call(compiled(tiny_built(seed=seed)))


USES = {
    "fit with many sizes": lambda tmp: sizes(lambda x: compiled(tiny()).fit(x, batch_size=2, verbose=0)),
    "fit of a dataset with many models": lambda tmp: models(
        lambda vae: vae.fit(tf.data.Dataset.from_tensor_slices(images(4)).batch(2), verbose=0)
    ),
    "evaluate with many models": lambda tmp: models(lambda vae: vae.evaluate(images(4), verbose=0)),
    "predict with many models": lambda tmp: models(lambda vae: vae.predict(images(4), verbose=0)),
    "predict with many sizes": lambda tmp: sizes(lambda x: tiny_built().predict(x, verbose=0)),
    "generate with many models": lambda tmp: models(lambda vae: vae.generate(2, seed=0)),
    "encode with many sizes": lambda tmp, vae=None: sizes((vae or tiny_built()).encode),
    "log_likelihood with many samples": lambda tmp: [
        kvae.evaluation.log_likelihood(vae, images(3), samples=count)
        for vae in [tiny_built()]
        for count in range(1, TIMES)
    ],
    "export": lambda tmp: tiny_built().export(tmp / "out", verbose=False),
    "export to litert": lambda tmp: tiny_built().export(tmp / "out.tflite", format="litert", verbose=False),
    "export of an encoder": lambda tmp: tiny_built().encoder.export(tmp / "out", verbose=False),
    "kvae.export.saved_model": lambda tmp: export.saved_model(tiny_built(), tmp / "out"),
    "kvae.export.convert": lambda tmp: export.convert(tiny_built(), ["float32"]),
    "load and predict": lambda tmp: models(
        lambda vae: (
            vae.fit(images(2), verbose=0),
            vae.save(tmp / "m.keras"),
            keras.saving.load_model(tmp / "m.keras").predict(images(2), verbose=0),
        )
    ),
}


@pytest.mark.parametrize("use", [*list(USES.values())[:4], *slow(*list(USES.values())[4:])], ids=USES.keys())
def test_ordinary_use_logs_nothing(tmp_path, logged, use):
    use(tmp_path)
    assert logged == []


@keras.saving.register_keras_serializable("test_quiet_reports")
class Careless(keras.layers.Layer):
    """A layer that makes a new `tf.function` at every call, of which TensorFlow warns its author."""

    def call(self, x):
        @tf.function
        def careless(x):
            return 2 * x

        for _ in range(TIMES):
            x = careless.python_function(x) if isinstance(x, keras.KerasTensor) else tf.function(careless)(x)
        tf.get_logger().info("Assets of mine")
        return x


@pytest.mark.parametrize("method", ["predict", "evaluate", "fit"])
def test_messages_about_code_of_a_user_pass(logged, method):
    encoder = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), Careless(), Split()])
    vae = compiled(kvae.VAE(encoder=encoder, decoder=tiny_built().decoder))
    getattr(vae, method)(images(4), verbose=0)
    assert "Assets of mine" in logged


@keras.saving.register_keras_serializable("test_quiet_reports")
class Split(keras.layers.Layer):
    """Mean and log variance of 2 dimensions from the first pixels."""

    def call(self, x):
        return x[:, :2], x[:, 2:4]

    def compute_output_shape(self, shape):
        return (shape[0], 2), (shape[0], 2)


def retraced(function):
    for count in range(1, TIMES):
        function(tf.constant(count), count)  # another Python number is traced again


def test_a_function_of_the_user_still_warns(logged):
    def users(x, count):
        return x + count

    with without_tensorflow_reports():
        retraced(tf.function(users))
    assert any("users" in message and "retracing" in message for message in logged)


def test_a_function_that_may_retrace_does_not_warn(logged):
    def of_kvae(x, count):
        return x + count

    retraced(may_retrace(tf.function(of_kvae)))
    assert logged == []


def test_a_compiled_function_of_a_model_may_retrace(logged):
    @compiled_function
    def of_kvae(model, x, count):
        return x + count

    vae = tiny_built()
    retraced(lambda x, count: of_kvae(vae, x, count))
    assert logged == []


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("Assets written to: somewhere/assets", False),
        ("5 out of the last 6 calls to <function TensorFlowTrainer.make_predict_function.<locals>.f at 0x1> triggered "
         "tf.function retracing. Tracing is expensive", False),
        ("5 out of the last 6 calls to <function mine at 0x1> triggered tf.function retracing.", True),
        ("Something else", True),
        ("No Assets written to: disk", True),
    ],
)  # fmt: skip
def test_a_block_drops_only_reports(logged, message, passes):
    with without_tensorflow_reports():
        tf.get_logger().warning(message)
    assert logged == ([message] if passes else [])


def test_after_the_block_all_messages_pass(logged):
    for fault in (None, RuntimeError()):
        try:
            with without_tensorflow_reports():
                if fault:
                    raise fault
        except RuntimeError:
            pass
        tf.get_logger().warning("Assets written to: there")
    assert logged == ["Assets written to: there"] * 2


def test_messages_of_another_thread_pass(logged):
    with without_tensorflow_reports():
        thread = threading.Thread(target=tf.get_logger().warning, args=("Assets written to: there",))
        thread.start()
        thread.join()
    assert logged == ["Assets written to: there"]


NOTEBOOK = f"""
import sys
sys.ps1 = ">>> "  # TensorFlow takes this for a notebook, and logs more
import numpy as np, kvae
kvae.model.fast_fit.FastFit.xla_pays = False
vae = kvae.VAE(latent_dim=2, hidden_units=(8,), seed=0)
vae.compile()
x = np.ones((6, *{SHAPE}), np.float32)
vae.fit(x, verbose=0)
print("--- from here", file=sys.stderr, flush=True)
for count in range(1, 7):
    vae.fit(x[:count], verbose=0)
    vae.evaluate(x[:count], verbose=0)
    vae.generate(count)
vae.export("out", verbose=False)
vae.export("out.tflite", format="litert", verbose=False)
kvae.export.saved_model(vae, "saved")
kvae.runtime.open_decoder("saved").sample([1])
"""


@pytest.mark.exhaustive
def test_a_notebook_shows_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.split("--- from here\n")[1] == ""
