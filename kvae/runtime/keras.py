"""Keras: the decoder of a `kvae.VAE` in memory or in a .keras file."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from kvae.internal import finite
from kvae.internal.batch_sizes import images_at_once
from kvae.internal.errors import UserError, first_line
from kvae.internal.quiet_output import silenced
from kvae.runtime.decoder import Decoder

CHUNK = 1000  # images per call, or fewer if they are large


def holds(path: Path) -> bool:
    """Whether a path is a .keras file."""
    return path.is_file() and path.suffix == ".keras"


class KerasDecoder(Decoder):
    """The decoder of a Keras model.

    Args:
        vae: a built `kvae.VAE`.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.latent_dim, self.image_shape, self.condition_shape = vae.latent_dim, vae.image_shape, vae.condition_shape
        self.chunk = min(CHUNK, images_at_once(vae.likelihood.parameters_shape(vae.image_shape)))
        self._vae = vae

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        condition = inputs.get("condition")
        if name == "decode":
            parameters = self._vae.decode(inputs["z"], condition)
            return {"means": self._vae.likelihood.mean(parameters).numpy(), "parameters": parameters.numpy()}
        drawn = self._vae.sample(inputs["seed"], condition)
        images = self._vae.likelihood.as_bytes(drawn.images)
        return {"images": images.numpy(), "means": drawn.means.numpy(), "z": drawn.z.numpy()}


def load_model(path: str | os.PathLike[str]) -> Any:
    """The model in a .keras file, without the state of its optimizer.

    Raises:
        UserError: if the file is damaged, is not a model, has a class of the user's own that is not imported, or has a
            weight that is NaN or infinite.
    """
    with silenced():
        from kvae.internal.tensorflow import check_process, keras
    check_process()
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras does not convert the errors of zip, HDF5 and JSON
        own = re.search(r"Could not locate class '(\w+)'", str(error))
        if own:
            raise UserError(
                f"{path} has the class {own[1]}, which is not one of kvae. Import its file first; on the command line "
                "with --import FILE.py."
            ) from error
        raise UserError(f"{path} is damaged or not a model of kvae ({first_line(error)}).") from error
    if hasattr(model, "log_joint") and (not model.built or model.image_shape is None):
        raise UserError(f"{path} is damaged, or was saved before its model was built: it has no weights.")
    finite.check_weights(model, os.fspath(path))
    return model


def open_file(path: str | os.PathLike[str], threads: int | None = None) -> KerasDecoder:
    """Opens the decoder of the model in a .keras file.

    Args:
        path: the path of the file.
        threads: not used. TensorFlow determines the number of threads.

    Raises:
        UserError: if the file cannot be read, or if it is not a model of kvae.
    """
    vae = load_model(path)
    if not hasattr(vae, "log_joint"):
        raise UserError(
            f"Expected a whole model of kvae, such as RUN/model.keras. Received {path}, which is a "
            f"{type(vae).__name__}."
        )
    decoder = KerasDecoder(vae)
    decoder.path = Path(path)
    return decoder
