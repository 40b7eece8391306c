"""SavedModel: a decoder in a folder, which TensorFlow runs."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from kvae.internal.errors import UserError, check_whole
from kvae.internal.files import has_pattern, temporary_folder
from kvae.internal.quiet_output import silenced
from kvae.runtime.decoder import Decoder

FILE = "saved_model.pb"  # the file that every SavedModel has
VARIANTS = {  # for each variant, its folder in a bundle
    "saved_model": "saved_model",
    "saved_model_decoder": "saved_model_decoder",
}


def holds(path: Path) -> bool:
    """Whether a path is the folder of a SavedModel."""
    return (path / FILE).is_file()


class SavedModelDecoder(Decoder):
    """A decoder in a SavedModel.

    Args:
        path: the path of the folder.
        threads: the number of threads of TensorFlow, which can only be set before TensorFlow starts. By default
            TensorFlow decides.

    Raises:
        UserError: if the folder is not a SavedModel that kvae exported, or if the threads cannot be set.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        if threads is not None:
            _use_threads(check_whole("threads", threads))
        try:
            with silenced():
                self._model = _load(self.path)
            self._functions = {name: self._model.signatures[name] for name in ("decode", "sample")}
            inputs = self._functions["decode"].structured_input_signature[1]
            self.latent_dim = int(inputs["z"].shape[1])
            if "condition" in inputs:
                self.condition_shape = tuple(inputs["condition"].shape[1:])
            self.image_shape = tuple(self._functions["decode"].structured_outputs["means"].shape[1:])
        except UserError:  # it says what is missing, such as TensorFlow
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"Expected a SavedModel that kvae exported. Received {path} ({reason}).") from error

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        from kvae.internal.tensorflow import check_process, tf

        check_process()
        outputs = self._functions[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in outputs.items()}


def _load(folder: Path) -> Any:
    """`tf.saved_model.load`, also of a folder whose path has [, ], * or ?, by way of a copy."""
    from kvae.internal.tensorflow import check_process, tf

    check_process()
    if not has_pattern(folder):
        return tf.saved_model.load(str(folder))
    with temporary_folder() as temporary:
        return tf.saved_model.load(str(shutil.copytree(folder, temporary / "saved_model")))


def _use_threads(threads: int) -> None:
    with silenced():
        from kvae.internal.tensorflow import tf

        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError as error:
            raise UserError(f"Expected threads to be set before TensorFlow starts. {error}") from error
