"""LiteRT: a decoder in a .tflite file, which ai-edge-litert runs without TensorFlow."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kvae.internal import reading
from kvae.internal.errors import UserError, check_whole
from kvae.internal.missing_packages import MissingPackageError
from kvae.internal.quiet_output import silenced
from kvae.runtime import children, tflite_structure
from kvae.runtime.decoder import Decoder
from kvae.runtime.flatbuffer import StructureError

MAGIC = b"TFL3"  # bytes 4 to 7 of every .tflite file
LARGEST = 2**31 - 1  # bytes of a file; offsets within a flatbuffer are not larger
VARIANTS = {  # for each variant, its file in a bundle
    "float32": "decoder.tflite",
    "float16": "decoder_float16.tflite",
    "int8": "decoder_int8.tflite",
    "full_int8": "decoder_full_int8.tflite",
}


def holds(path: Path) -> bool:
    """Whether a path is taken for a .tflite file, as every file is that has no other format."""
    return path.is_file() and path.suffix not in (".keras", ".h5", ".onnx", ".html")


class LiteRTDecoder(Decoder):
    """A decoder in a .tflite file.

    The structure of the file is checked before the native code of LiteRT reads it, and one image is drawn. Weights that
    are damaged but give finite means cannot be told from others without the SHA-256 in a model card.

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
        content = _content(path)
        with silenced(), _errors_of(path):  # the runtime prints which delegate it uses
            interpreter = _interpreter()(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
            self._runners = _runners(interpreter, path)
            inputs = self._runners["decode"].get_input_details()
            self.latent_dim = int(inputs["z"]["shape"][1])
            if "condition" in inputs:
                self.condition_shape = tuple(map(int, inputs["condition"]["shape"][1:]))
            one = {"seed": np.zeros(1, np.int32)}
            if self.condition_shape is not None:
                one["condition"] = np.zeros((1, *self.condition_shape), np.float32)
            drawn = self.run("sample", one)  # with a dynamic batch size, shapes are known only after a call
            self.image_shape = tuple(drawn["images"].shape[1:])
            self.check_outputs(drawn, 1)
            types = tuple(drawn[name].dtype for name in ("images", "means", "z"))
            if types != (np.uint8, np.float32, np.float32):
                raise ValueError(f"its outputs have the types {', '.join(map(str, types))}")

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return self._runners[name](**inputs)
        except Exception as error:
            raise _damaged(self.path, error) from error


@contextmanager
def _errors_of(path: Path | None) -> Iterator[None]:
    """Turns errors of the native code, which have many types where a file is damaged, into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path | None, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path} is damaged, or needs operations or memory that LiteRT does not have: {reason}")


def _content(path: Path) -> bytes:
    """The content of a .tflite file with a valid structure."""
    content = reading.read_bytes(path, LARGEST)
    if content[4:8] != MAGIC:
        raise UserError(f"{path} is not a .tflite file.")
    try:
        tflite_structure.check(content)
    except StructureError as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    return content


def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingPackageError(
            "Expected the package ai-edge-litert. Install it: pip install ai-edge-litert"
        ) from error
    return Interpreter


def _runners(interpreter: Any, path: Path) -> dict[str, Any]:
    """The functions of a decoder by name; raises `UserError` if the file is not one that kvae exported."""
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
    return {name: interpreter.get_signature_runner(name) for name in ("decode", "sample")}


def try_file(path: Path) -> None:
    """Opens a .tflite file in a new process, and draws and decodes images there, because a damaged file can crash it.

    It takes about 0.4 seconds. A file that passed once is not tried again by the same process. An application that is
    one executable file cannot start Python, and leaves the trial out.

    Args:
        path: the path of the file.

    Raises:
        UserError: if the structure of the file is not valid, or if the process fails, crashes or takes longer than 60
            seconds.
    """
    children.try_decoder(path, _content(path))
