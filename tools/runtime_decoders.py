"""The decoders that tools/runtimes.py measures, as formats that `kvae.runtime` opens in a process of their own.

Each of them has decoded one point when it is open, so that the time of opening is that until the first image.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kvae import runtime
from kvae.internal.quiet_output import may_retrace, silenced
from kvae.runtime import keras
from kvae.runtime.decoder import Decoder


class ModelDecoder(keras.KerasDecoder):
    """The Keras model, whose functions TensorFlow runs eagerly unless they are compiled.

    Args:
        vae: a built model.
        compiled: what makes a compiled function of a function of tensors. By default nothing is compiled.
    """

    def __init__(self, vae: Any, compiled: Callable[..., Any] = lambda function: function) -> None:
        super().__init__(vae)
        self._functions = {"decode": compiled(self._decode), "sample": compiled(self._sample)}

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        from kvae.internal.tensorflow import tf

        outputs = self._functions[name](*map(tf.constant, inputs.values()))
        return {key: value.numpy() for key, value in outputs.items()}

    def _decode(self, z: Any) -> dict[str, Any]:
        parameters = self._vae.decode(z)
        return {"means": self._vae.likelihood.mean(parameters), "parameters": parameters}

    def _sample(self, seeds: Any) -> dict[str, Any]:
        from kvae.model import sampling

        drawn = sampling.sample_graph(self._vae, seeds)
        return {"images": self._vae.likelihood.as_bytes(drawn.images), "means": drawn.means, "z": drawn.z}


def model(path: Path, threads: int | None = None, *, graph: bool = True, xla: bool = False) -> ModelDecoder:
    """Opens a .keras file.

    Args:
        path: its path.
        threads: the number of threads of TensorFlow, which can only be set before TensorFlow starts.
        graph: whether to compile with `tf.function`. True by default.
        xla: whether to compile with XLA. False by default.
    """
    with silenced():
        from kvae.internal.tensorflow import tf
    if threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    vae = keras.load_model(path)
    if not graph:
        return ModelDecoder(vae)

    def compiled(function: Callable[..., Any]) -> Any:
        return may_retrace(tf.function(function, autograph=False, jit_compile=xla))

    return ModelDecoder(vae, compiled)


def _used(opened: Callable[..., Decoder]) -> runtime.Format:
    """A format whose decoders have decoded one point when they are open."""

    def open_and_decode(path: Path, threads: int | None = None) -> Decoder:
        decoder = opened(path, threads)
        decoder.decode(np.zeros((1, decoder.latent_dim), np.float32))
        return decoder

    return runtime.Format({}, lambda path: False, open_and_decode)


EAGER = _used(partial(model, graph=False))
GRAPH = _used(model)
XLA = _used(partial(model, xla=True))
SAVED_MODEL = _used(runtime.FORMATS["savedmodel"].open)
LITERT = _used(runtime.FORMATS["tflite"].open)
ONNX = _used(runtime.FORMATS["onnx"].open)
NUMPY = _used(runtime.FORMATS["web"].open)
