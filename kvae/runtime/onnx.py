"""ONNX: a decoder in an .onnx file, which ONNX Runtime runs without TensorFlow.

The file has both functions of a decoder. The names of their inputs and outputs begin with `decode_` and `sample_`. All
inputs must be given; a function whose inputs have no rows is not computed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kvae.internal import reading
from kvae.internal.errors import UserError, check_whole, first_line
from kvae.internal.missing_packages import MissingPackageError
from kvae.internal.quiet_output import silenced
from kvae.runtime import children
from kvae.runtime.decoder import Decoder

LARGEST = 2**31 - 1  # bytes of a file, as protobuf allows
VARIANTS = {"onnx": "decoder.onnx"}  # the file in a bundle
NAMES = {"decode": ("z", ("means",)), "sample": ("seed", ("images", "means", "z"))}  # the input and the outputs


def holds(path: Path) -> bool:
    """Whether a path is an .onnx file."""
    return path.is_file() and path.suffix == ".onnx"


class OnnxDecoder(Decoder):
    """A decoder in an .onnx file, which is read and draws one image.

    Args:
        path: the path of the file.
        threads: the number of threads of the runtime. By default the runtime decides.

    Raises:
        UserError: if the file cannot be read, if it is damaged, or if it is not a decoder that kvae exported.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        super().__init__()
        self.path = path = Path(path)
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors only
        # An .onnx file may name other files for its weights. None can be in this folder, so that none is read.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        if threads is not None:
            options.intra_op_num_threads = check_whole("threads", threads)
        content = reading.read_bytes(path, LARGEST)
        with silenced(), _errors_of(path):
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            given = self._session.get_inputs()
            inputs = {each.name: each.shape for each in given}
            outputs = [each.name for each in self._session.get_outputs()]
            _check_names(path, set(inputs), outputs)
            types = {"tensor(float)": np.float32, "tensor(int32)": np.int32}
            self._without_rows = {
                each.name: np.zeros((0, *map(int, each.shape[1:])), types[each.type]) for each in given
            }
            self._outputs = {name: [each for each in outputs if each.startswith(f"{name}_")] for name in NAMES}
            self.latent_dim = int(inputs["decode_z"][1])
            if "decode_condition" in inputs:
                self.condition_shape = tuple(map(int, inputs["decode_condition"][1:]))
            one = {"seed": np.zeros(1, np.int32)}
            if self.condition_shape is not None:
                one["condition"] = np.zeros((1, *self.condition_shape), np.float32)
            drawn = self.run("sample", one)
            self.image_shape = tuple(drawn["images"].shape[1:])
            self.check_outputs(drawn, 1)

    @property
    def names(self) -> dict[str, dict[str, str]]:
        """For each function, the name in the file of each of its inputs and outputs."""
        return {
            function: {
                each.removeprefix(f"{function}_"): each
                for each in (*self._without_rows, *self._outputs[function])
                if each.startswith(f"{function}_")
            }
            for function in NAMES
        }

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        outputs = self._outputs[name]
        try:
            given = {f"{name}_{key}": value for key, value in inputs.items()}
            values = self._session.run(outputs, {**self._without_rows, **given})
        except Exception as error:
            raise _damaged(self.path, error) from error
        return {key.removeprefix(f"{name}_"): value for key, value in zip(outputs, values, strict=True)}


def _check_names(path: Path, inputs: set[str], outputs: list[str]) -> None:
    """Raises `UserError` if a file is not one that kvae exported."""
    expected = {f"{name}_{each}" for name, (_, several) in NAMES.items() for each in several}
    parameters = {"decode_logits", "decode_parameters"} & set(outputs)
    conditions = {"decode_condition", "sample_condition"} & inputs
    if (
        inputs - conditions != {f"{name}_{each}" for name, (each, _) in NAMES.items()}
        or len(conditions) == 1
        or set(outputs) != expected | parameters
        or len(parameters) != 1
    ):
        raise UserError(
            f"Expected an .onnx file that kvae exported, with the inputs decode_z and sample_seed. Received {path} "
            f"with the inputs {', '.join(sorted(inputs)) or 'none'}."
        )


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turns errors of ONNX Runtime, which have many types where a file is damaged, into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path | None, error: Exception) -> UserError:
    return UserError(
        f"{path} is damaged, or needs operations or memory that ONNX Runtime does not have: {first_line(error)}"
    )


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError("Expected the package onnxruntime. Install it: pip install onnxruntime") from error
    return onnxruntime


def try_file(path: Path) -> None:
    """Opens an .onnx file in a new process, and draws and decodes images there, because a damaged file may crash it.

    Raises:
        UserError: if the process fails, crashes or takes longer than 60 seconds.
    """
    children.try_decoder(path, reading.read_bytes(path, LARGEST))
