"""SavedModel: every endpoint with a dynamic batch, for `tf.saved_model.load` where kvae is not installed."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kvae.export import endpoints
from kvae.internal import files
from kvae.internal.quiet_output import silenced
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE
from kvae.runtime.savedmodel import FILE, VARIANTS

TOLERANCES = {variant: {"means": 1e-4, "elbo": 0.01} for variant in VARIANTS}


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
    files.check_free(folder, overwrite, FILE)
    replace = folder.exists()
    module, signatures = endpoints.traced(vae, names)
    with files.atomic_folder(folder, overwrite=replace) as partial, silenced():
        tf.saved_model.save(module, partial, signatures=signatures)
    return folder


def write(vae: VAE, folder: Path, variants: Iterable[str], conditions: Any = None) -> None:
    """Writes the SavedModels of a bundle: `saved_model` with every endpoint, `saved_model_decoder` without the encoder.

    Args:
        vae: a built model.
        folder: folder of the bundle.
        variants: names of `kvae.runtime.savedmodel.VARIANTS`.
        conditions: not used.
    """
    for variant in variants:
        names = endpoints.ENDPOINTS if variant == "saved_model" else endpoints.DECODER
        saved_model(vae, folder / VARIANTS[variant], names)
