"""SavedModel: every endpoint with a dynamic batch, for `tf.saved_model.load` where kvae is not installed."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kvae import files, portable
from kvae.errors import UserError
from kvae.export import endpoints
from kvae.quiet import silenced
from kvae.runtime import Decoded, check_z
from kvae.tensorflow import tf
from kvae.vae import VAE

CHUNK = 256  # images at a time


def saved_model(
    vae: VAE, folder: str | os.PathLike[str], names: Iterable[str] = endpoints.ENDPOINTS, *, overwrite: bool = False
) -> Path:
    """Writes a SavedModel; it appears whole or not at all.

    Signatures, all of any batch: `decode(z [n, D]) -> means, logits`, `sample(seed int32 [n]) -> images uint8, means,
    z`, `encode(x) -> mean, log_var`, `reconstruct(x, seed int32 []) -> means`, `elbo(x, seed int32 []) -> elbo,
    reconstruction, kl`. The last two return what `VAE.reconstruct` and `VAE.elbo_terms` do with the same seed.

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
            self.latent_dim = int(self._decode.structured_input_signature[1]["z"].shape[1])
        except Exception as error:
            raise UserError(f"{folder} is not a SavedModel that kvae exported ({_first_line(error)}).") from error
        self.image_shape = shapes["means"][1:]

    def decode(self, z: Any) -> Decoded:
        """Means and logits, as `kvae.runtime.Decoder.decode`."""
        z = check_z(z, self.latent_dim)
        parts = [self._decode(z=tf.constant(z[start : start + CHUNK])) for start in range(0, len(z), CHUNK)]
        return Decoded(*[np.concatenate([part[name] for part in parts]) for name in Decoded._fields])

    def sample(self, seeds: Any) -> portable.Sample:
        """One image a seed, as `kvae.runtime.Decoder.sample`."""
        seeds = portable.check_seeds(seeds)
        parts = [self._sample(seed=tf.constant(seeds[start : start + CHUNK])) for start in range(0, len(seeds), CHUNK)]
        return portable.Sample(*[np.concatenate([part[name] for part in parts]) for name in portable.Sample._fields])


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
