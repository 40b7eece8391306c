"""SavedModel: every endpoint with a dynamic batch, for `tf.saved_model.load` where kvae is not installed."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kvae.export import endpoints
from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.internal.quiet import silenced
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE
from kvae.noise import portable
from kvae.runtime import Decoded, check_condition, check_z

CHUNK = 256  # images at a time


def saved_model(
    vae: VAE, folder: str | os.PathLike[str], names: Iterable[str] = endpoints.ENDPOINTS, *, overwrite: bool = False
) -> Path:
    """Writes a SavedModel; it appears whole or not at all.

    Signatures, all of any batch: `decode(z [n, D]) -> means, logits`, `sample(seed int32 [n]) -> images uint8, means,
    z`, `encode(x) ->` the parameters of q(z|x), `reconstruct(x, seed int32 []) -> means`, `elbo(x, seed int32 []) ->
    elbo, reconstruction, kl`. The last two return what `VAE.reconstruct` and `VAE.elbo_terms` do with the same seed. A
    model with a condition has it as a further input, `condition`.

    Args:
        vae: a built model.
        folder: to write.
        names: of the endpoints; `kvae.export.DECODER` leaves the encoder's weights out.
        overwrite: replace a folder that stands there.

    Raises:
        UserError: the folder exists or cannot be written, a model that was not built, or an unknown endpoint.
    """
    folder = Path(folder)
    files.check_free(folder, overwrite, "saved_model.pb")
    replace = folder.exists()
    module, signatures = endpoints.traced(vae, names)
    with files.atomic_folder(folder, overwrite=replace) as partial, silenced():
        tf.saved_model.save(module, partial, signatures=signatures)
    return folder


class SavedModelDecoder:
    """A SavedModel of kvae with the interface of `kvae.runtime.Decoder`.

    Args:
        folder: that `saved_model` wrote.

    Raises:
        UserError: it is none, or one of something else.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        try:
            with silenced():
                self._model = tf.saved_model.load(str(folder))
            self._decode, self._sample = (self._model.signatures[name] for name in endpoints.DECODER)
            shapes = {name: tuple(spec.shape) for name, spec in self._decode.structured_outputs.items()}
            inputs = self._decode.structured_input_signature[1]
            self.latent_dim = int(inputs["z"].shape[1])
            self.condition_shape = tuple(inputs["condition"].shape[1:]) if "condition" in inputs else None
            self._emitted = "parameters" if "parameters" in shapes else "logits"
        except Exception as error:
            raise UserError(f"{folder} is not a SavedModel that kvae exported ({_first_line(error)}).") from error
        self.image_shape = shapes["means"][1:]

    def decode(self, z: Any, condition: Any = None) -> Decoded:
        """Means and logits, as `kvae.runtime.Decoder.decode`."""
        z = check_z(z, self.latent_dim)
        parts = self._called(self._decode, "z", z, condition)
        return Decoded(*[np.concatenate([part[name] for part in parts]) for name in ("means", self._emitted)])

    def sample(self, seeds: Any, condition: Any = None) -> portable.Sample:
        """One image a seed, as `kvae.runtime.Decoder.sample`."""
        parts = self._called(self._sample, "seed", portable.check_seeds(seeds), condition)
        return portable.Sample(*[np.concatenate([part[name] for part in parts]) for name in portable.Sample._fields])

    def _called(self, function: Any, name: str, values: np.ndarray, condition: Any) -> list[dict[str, Any]]:
        inputs = {name: values, **check_condition(condition, self.condition_shape, len(values))}
        starts = range(0, len(values), CHUNK)
        return [
            function(**{key: tf.constant(value[start : start + CHUNK]) for key, value in inputs.items()})
            for start in starts
        ]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
