"""Keras opens a saved model wherever kvae and Keras were imported, in either order; `import kvae` imports neither."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from slow_cases import slow

ROOT = Path(__file__).parents[2]
ORDERS = (
    "import kvae, keras",
    "import keras, kvae",
    "import kvae, tensorflow",
    "import tensorflow, kvae",
    "import kvae.data",
    "import kvae.noise.keyed",
    "import kvae.internal.tensorflow",
    "import kvae.training.callbacks",
    "import kvae; kvae.VAE",
    "from kvae.model.likelihoods import Bernoulli",
)


def python(code: str, *arguments: object) -> str:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "error::DeprecationWarning:kvae", "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("imports", [*ORDERS[:2], *slow(*ORDERS[2:])])
def test_keras_opens_a_model_that_it_was_told_nothing_of(imports):
    code = f"{imports}; import keras, sys; print(type(keras.saving.load_model(sys.argv[1])).__name__)"
    assert python(code, ROOT / "saved_models" / "mnist_2d" / "model.keras") == "VAE\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MLPEncoder", "ConvDecoder", "ResidualEncoder", "ResidualDecoder"])
def test_keras_opens_a_network_alone(name, tmp_path):
    import kvae

    kind = name.replace("Decoder", "Encoder")
    vae = kvae.VAE(encoder=getattr(kvae.networks, kind)(2))
    vae.build((None, 8, 8, 1))
    network = vae.encoder if name == kind else vae.decoder
    network.save(tmp_path / "network.keras")
    code = "import kvae, keras, sys; print(type(keras.saving.load_model(sys.argv[1])).__name__)"
    assert python(code, tmp_path / "network.keras") == f"{name}\n"


@pytest.mark.slow
def test_a_model_of_keras_with_a_network_of_kvae_in_it_opens(tmp_path):
    import keras

    import kvae

    network = kvae.networks.MLPDecoder((4, 4, 1))
    keras.Sequential([keras.layers.Input((2,)), network]).save(tmp_path / "sequential.keras")
    code = "import kvae, keras, sys; print(keras.saving.load_model(sys.argv[1]).output_shape)"
    assert python(code, tmp_path / "sequential.keras") == "(None, 4, 4, 1)\n"


@pytest.mark.slow
def test_the_import_of_keras_alone_is_what_it_was():
    code = "import kvae, keras, sys; print(keras.__spec__.name, 'kvae.model.vae' in sys.modules, len(sys.meta_path))"
    name, imported, finders = python(code).split()
    assert (name, imported) == ("keras", "False")
    assert finders == python("import keras, sys; print(len(sys.meta_path))").strip()


def test_without_keras_kvae_is_imported_still():
    code = """
import sys
import importlib.abc
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "keras":
            raise ModuleNotFoundError("No module named 'keras'", name="keras")
sys.meta_path.insert(0, Nothing())
import kvae
try:
    import keras
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert python(code) == "keras\n"
