"""What a model card states of a model in words and numbers, apart from what is measured of its exported decoders."""

from typing import Any

import numpy as np

from kvae.export import parity
from kvae.export.endpoints import cycled
from kvae.model import likelihoods, priors, sampling
from kvae.model.vae import VAE
from kvae.noise import portable

REFERENCE = 8  # samples whose z the card contains
GUARANTEE = (
    "z and the uniform random numbers depend only on the seed and on the index of the number. They are computed in "
    "integers and are the same bit for bit in NumPy, TensorFlow (eager, graph, XLA), SavedModel, LiteRT float32, "
    "float16 and int8, ONNX Runtime and the web page. The means are floating-point numbers and differ as stated for "
    "each variant. So a pixel of a draw differs if its uniform random number is between two values of its mean; the "
    "number of such pixels in 10,000 images is stated. Image i depends only on seed i and not on the rest of the "
    "batch, except for the rounding of the means."
)
LEARNED_PRIOR = (
    "The random numbers from which z and the pixels are drawn depend only on the seed and on the index of the number. "
    "They are computed in integers and are the same bit for bit on every runtime. z is computed from them with the "
    "weights of the prior and is the same within the stated tolerance. The means and the pixels of a draw differ as "
    "stated for each variant. Image i depends only on seed i and not on the rest of the batch, except for rounding."
)
# How the costs were measured, after the words for the machine.
COSTS = "; in a separate process; latency in microseconds, the median for one decode of 1 or 64 latent points"


def model(vae: VAE) -> dict[str, Any]:
    """The facts of a model."""
    return {
        "latent_dim": vae.latent_dim,
        "image_shape": list(vae.image_shape),
        "likelihood": likelihoods.name_of(vae.likelihood),
        "prior": priors.name_of(vae.prior),
        "condition_shape": None if vae.condition_shape is None else list(vae.condition_shape),
        "decoder_weights": vae.decoder.count_params(),
    }


def signatures(decoded: str, condition_shape: tuple[int, ...] | None) -> dict[str, str]:
    """The signatures of an exported decoder.

    Args:
        decoded: the name of the second output of `decode`.
        condition_shape: the shape of the condition of one image, or None if the model takes no condition.
    """
    further = "" if condition_shape is None else f", condition float32 [n{''.join(f', {n}' for n in condition_shape)}]"
    return {
        "decode": f"z float32 [n, D]{further} -> means, {decoded} float32 [n, *image]",
        "sample": f"seed int32 [n]{further} -> images uint8 [n, *image], means float32 [n, *image], z float32 [n, D]",
    }


def guarantee(exact: bool) -> str:
    """What is the same on every runtime; `exact` says whether z are the portable random numbers themselves."""
    return GUARANTEE if exact else LEARNED_PRIOR


def reference(vae: VAE, conditions: np.ndarray | None) -> dict[str, Any]:
    """The z of a few samples, with which a runtime can be compared, and the examples of the condition."""
    z = sampling.draw_z(vae, REFERENCE, 0, cycled(conditions, 0, REFERENCE)).numpy().tolist()
    further = {} if conditions is None else {"conditions": conditions.tolist()}
    return {"seeds": portable.seeds(REFERENCE, 0).tolist(), "z": z, **further}


def parity_protocol(compared: parity.Counts) -> str:
    """How the exported decoders were compared, and at how many z and samples."""
    return (
        f"compared with the Keras model: means at {compared.latents:,} z of seed 0 and samples of {compared.images:,} "
        "seeds of seed 0; elbo_change in nats per example, the mean over the test set with one draw of z per example"
    )
