"""A fork of a process that has used TensorFlow: a model refuses to compute there, a .tflite decoder does not."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from small_models import SHAPE, compiled, tiny, tiny_built

from kvae import runtime
from kvae.internal.errors import UserError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no forks")

PATIENCE = 30  # seconds, after which a child is taken for one that waits for ever
DECODER = Path(__file__).parents[2] / "saved_models" / "mnist_2d" / "bundle" / "decoder.tflite"


@pytest.fixture(scope="module")
def used():
    """A model that has computed something, so that the threads of TensorFlow exist."""
    vae = compiled(tiny_built())
    vae.generate(1, seed=0)
    return vae


def in_a_fork(function) -> str:
    """What a fork of this process answers: `done`, or the message of a UserError."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "another error"
        try:
            function()
            answer = "done"
        except UserError as error:
            answer = str(error)
        finally:
            os.write(writing, answer.encode())
            os._exit(0)  # without what pytest would do at its end
    os.close(writing)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            with open(reading, "rb") as pipe:
                return pipe.read().decode()
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    return "it waits for ever"


X = np.zeros((20, *SHAPE), np.float32)
USES = {
    "generate": lambda vae: vae.generate(4, seed=0),
    "generate_means": lambda vae: vae.generate_means(4, seed=0),
    "sample": lambda vae: vae.sample([1, 2]),
    "encode": lambda vae: vae.encode(X),
    "decode": lambda vae: vae.decode(np.zeros((4, 2), np.float32)),
    "reconstruct": lambda vae: vae.reconstruct(X, seed=0),
    "elbo": lambda vae: vae.elbo(X, seed=0),
    "fit": lambda vae: vae.fit(X, verbose=0),
    "evaluate": lambda vae: vae.evaluate(X, verbose=0),
    "predict": lambda vae: vae.predict(X, verbose=0),
    "train_on_batch": lambda vae: vae.train_on_batch(X),
    "a new model": lambda vae: tiny(),
    "a model file": lambda vae: runtime.load(DECODER.parents[1] / "model.keras"),
}


@pytest.mark.parametrize("use", USES)
def test_a_model_says_that_it_cannot_be_used_in_a_fork(used, use):
    assert 'multiprocessing.get_context("spawn")' in in_a_fork(lambda: USES[use](used))


def test_a_tflite_decoder_draws_in_a_fork(used):
    decoder = runtime.load(DECODER)
    decoder.sample(range(300))
    assert in_a_fork(lambda: decoder.sample(range(300))) == "done"
    assert in_a_fork(lambda: runtime.load(DECODER).sample(range(300))) == "done"
