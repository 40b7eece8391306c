"""LiteRT: a decoder in a .tflite file, which ai-edge-litert runs without TensorFlow."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from kvae.internal.errors import UserError, check_whole
from kvae.internal.quiet_output import silenced
from kvae.runtime.decoder import Decoder

MAGIC = b"TFL3"  # bytes 4 to 7 of every .tflite file
VARIANTS = {  # for each variant, its file in a bundle
    "float32": "decoder.tflite",
    "float16": "decoder_float16.tflite",
    "int8": "decoder_int8.tflite",
    "full_int8": "decoder_full_int8.tflite",
}


def holds(path: Path) -> bool:
    """Whether a path is taken for a .tflite file, as every file is that has no other format."""
    return path.is_file() and path.suffix not in (".keras", ".h5")


class LiteRTDecoder(Decoder):
    """A decoder in a .tflite file.

    Args:
        path: the path of the file.
        threads: the number of threads of the runtime. By default the runtime decides.

    Raises:
        UserError: if the file cannot be read, if it is damaged, or if it is not a decoder that kvae exported.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        super().__init__()
        if threads is not None:
            check_whole("threads", threads)
        self.path = path = Path(path)
        interpreter = _interpreter(path, threads)
        signatures = {
            name: ({*signature["inputs"]} - {"condition"}, {*signature["outputs"]})
            for name, signature in interpreter.get_signature_list().items()
        }
        decode, sample = signatures.get("decode"), signatures.get("sample")
        parameters = "parameters" if decode is not None and "parameters" in decode[1] else "logits"
        if decode != ({"z"}, {"means", parameters}) or sample != ({"seed"}, {"images", "means", "z"}):
            raise UserError(
                f"Expected a .tflite file that kvae exported, with the signatures decode(z) and sample(seed). Received "
                f"{path} with the signatures {', '.join(sorted(signatures)) or 'none'}."
            )
        self._runners = {name: interpreter.get_signature_runner(name) for name in ("decode", "sample")}
        inputs = self._runners["decode"].get_input_details()
        self.latent_dim = int(inputs["z"]["shape"][1])
        if "condition" in inputs:
            self.condition_shape = tuple(map(int, inputs["condition"]["shape"][1:]))
        one = {"seed": np.zeros(1, np.int32)}
        if self.condition_shape is not None:
            one["condition"] = np.zeros((1, *self.condition_shape), np.float32)
        try:
            drawn = self.run("sample", one)  # with a dynamic batch size, shapes are known only after a call
        except (ValueError, RuntimeError) as error:
            raise _damaged(path, error) from error
        self.image_shape = tuple(drawn["images"].shape[1:])

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._runners[name](**inputs)


def _interpreter(path: Path, threads: int | None) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError("Expected the package ai-edge-litert. Install it: pip install ai-edge-litert") from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"Could not read {path}: {error.strerror or error}.") from error
    if content[4:8] != MAGIC:
        raise UserError(f"{path} is not a .tflite file.")
    with silenced():  # the runtime prints which delegate it uses
        try:
            interpreter = Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
            return interpreter
        except (ValueError, RuntimeError) as error:
            reason = error
    raise _damaged(path, reason) from reason


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged, or needs operations that LiteRT does not have: {str(error).strip()}")
