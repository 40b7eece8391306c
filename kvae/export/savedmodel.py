"""SavedModel: the endpoints for any batch size, which `tf.saved_model.load` opens without kvae."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from kvae.export import endpoints
from kvae.internal import files, reading, replacing
from kvae.internal.errors import UserError
from kvae.internal.quiet_output import silenced, without_tensorflow_reports
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE
from kvae.runtime.savedmodel import FILE, VARIANTS, SavedModelDecoder

PURPOSES = {
    "saved_model": "TensorFlow and TensorFlow Serving; it also encodes images",
    "saved_model_decoder": "TensorFlow and TensorFlow Serving, without the weights of the encoder",
}
FILES = r"saved_model\.pb | fingerprint\.pb | variables/variables\.(index|data-\d+-of-\d+) | assets/.*"
TOLERANCE = {"means": 1e-4, "elbo": 0.01}  # of every variant


def saved_model(
    vae: VAE, folder: str | os.PathLike[str], names: Iterable[str] = endpoints.ENDPOINTS, *, overwrite: bool = False
) -> Path:
    """Writes a SavedModel: either all of it, or nothing if there is an error.

    The signatures, all for any batch size, are `decode(z [n, D]) -> means, logits`, `sample(seed int32 [n]) -> images
    uint8, means, z`, `encode(x) ->` the parameters of q(z|x), `reconstruct(x, seed int32 []) -> means`, and `elbo(x,
    seed int32 []) -> elbo, reconstruction, kl`. The last two return the same as `VAE.reconstruct` and
    `kvae.sampling.elbo_draws` with the same seed. A conditional model has the further input `condition`.

    Args:
        vae: a built model.
        folder: the folder of the SavedModel.
        names: names of endpoints. By default all of them; those in `kvae.export.DECODER` do not need the encoder.
        overwrite: whether to replace an existing SavedModel. False by default.

    Returns:
        The folder.

    Raises:
        UserError: if the folder exists or cannot be written, if the model is not built or cannot be exported, or if an
            endpoint is unknown.
    """
    folder = Path(folder)
    replacing.check_free(folder, overwrite, noun="a SavedModel", strangers=strangers)
    replace = folder.exists()
    module, signatures = endpoints.traced(vae, names)
    with files.atomic_folder(folder, overwrite=replace) as partial, silenced(), without_tensorflow_reports():
        tf.saved_model.save(module, partial, signatures=signatures)
    return folder


def strangers(folder: Path) -> list[str]:
    """The files in the folder of a SavedModel that do not belong to it.

    Raises:
        UserError: if the folder is not a SavedModel that kvae wrote.
    """
    if not (folder / FILE).is_file():
        raise UserError(f"It has no {FILE}.")
    signatures = _signatures(_content(folder))
    if not signatures & set(endpoints.ENDPOINTS):
        raise UserError(f"Its signatures are {', '.join(sorted(signatures)) or 'none'}.")
    return replacing.not_among(replacing.files_in(folder), FILES)


def _content(folder: Path) -> Any:
    """What a SavedModel has but for the values of its weights; raises `UserError` if it is damaged."""
    content = saved_model_pb2.SavedModel()
    encoded = reading.read_bytes(folder / FILE)
    try:
        content.ParseFromString(encoded)
    except Exception as error:  # of protobuf, which has no stubs
        raise UserError(f"{FILE} is damaged.") from error
    return content


def _signatures(content: Any) -> set[str]:
    return {name for graph in content.meta_graphs for name in graph.signature_def}


def write(vae: VAE, folder: Path, variants: Iterable[str], conditions: Any = None) -> None:
    """Writes the SavedModels of a bundle: `saved_model` with every endpoint, `saved_model_decoder` without the encoder.

    Args:
        vae: a built model.
        folder: the folder of the bundle.
        variants: names in `kvae.runtime.savedmodel.VARIANTS`.
        conditions: not used.
    """
    for variant in variants:
        names = endpoints.ENDPOINTS if variant == "saved_model" else endpoints.DECODER
        saved_model(vae, folder / VARIANTS[variant], names)


def describe(variant: str, decoder: SavedModelDecoder) -> dict[str, Any]:
    """What a model card states of a SavedModel for those who use it; arguments as in `kvae.export.Format`."""
    content = _content(decoder.path or Path())
    return {
        "purpose": PURPOSES[variant],
        "least_runtime": {"TensorFlow": content.meta_graphs[0].meta_info_def.tensorflow_version},
        "least_runtime_is": "the version that wrote it; older ones may run it, but were not tried",
        "signatures": [name for name in endpoints.ENDPOINTS if name in _signatures(content)],
    }
