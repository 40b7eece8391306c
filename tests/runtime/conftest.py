"""Exported decoders beside the models that they are made of."""

import shutil
from pathlib import Path

import pytest
from decoder_cases import DECODERS, decoder_model
from exports import quick_parity

from kvae import export, runtime


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Every model with its decoder, made when it is first asked for."""
    made = {}

    def pair(name):
        if name not in made:
            vae, path = decoder_model(**DECODERS[name]), tmp_path_factory.mktemp(name) / "decoder.tflite"
            path.write_bytes(export.convert(vae, ["float32"])["float32"])
            made[name] = (vae, runtime.load(path))
        return made[name]

    return pair


@pytest.fixture(scope="session")
def bundled(tmp_path_factory):
    """A bundle of the Bernoulli model, not to be changed."""
    folder = tmp_path_factory.mktemp("run") / "bundle"
    vae = decoder_model(**DECODERS["bernoulli"])
    with quick_parity():
        export.bundle(vae, folder, formats=["tflite"], variants=["float32", "float16"])
    return folder


@pytest.fixture
def bundle(bundled, tmp_path):
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(bundled, tmp_path / "bundle"))


@pytest.fixture(params=DECODERS)
def pair(request, pairs):
    """A model and its exported decoder, for every likelihood."""
    return pairs(request.param)


@pytest.fixture
def decoder(pairs):
    """The exported decoder of the Bernoulli model."""
    return pairs("bernoulli")[1]
