"""The words that tables and lists use for the names in JSON files, which stay as they are."""

from collections.abc import Mapping
from typing import Any

RESULTS = {  # of an evaluation
    "elbo": "ELBO",
    "reconstruction": "reconstruction error",
    "kl": "KL term",
    "kl_per_dimension": "KL term",
    "bits_per_dimension": "bits per pixel and channel, not nats per image; lower is better",
}
HOW_THE_ELBO_IS_MADE = "ELBO = -(reconstruction error + KL term); higher is better. 1 nat = 1.44 bits."
# Likelihoods that are densities, which may exceed 1.
DENSITIES = ("gaussian", "gaussian_per_pixel", "laplace", "student_t", "continuous_bernoulli")
OF_DENSITIES = (
    "For grey and colour images these are densities of the pixel values, so the ELBO may be positive and the "
    "reconstruction error negative; do not compare them with those of binary images."
)
OF_FURTHER_EVALUATIONS = {  # options of evaluations on which the ELBO does not depend
    "importance_images": "images, for the bound of log p(x)",
    "bound_images": "images, for the bounds of log p(x)",
    "bound_sizes": "draws of z per image, for the bounds of log p(x)",
    "defensive_images": "images, for the defensive estimate of log p(x)",
    "defensive_samples": "draws of z per image, for the defensive estimate of log p(x)",
    "defensive_steps": "gradient steps of each fit, for the defensive estimate of log p(x)",
    "quadrature_images": "images, for the quadrature",
    "quadrature_tolerance": "tolerance of the quadrature, in nats",
    "ais_images": "largest number of images, for annealing",
    "ais_temperatures": "temperatures of annealing",
    "ais_chains": "chains of annealing per image",
    "ais_leapfrog_steps": "steps of a trajectory of annealing",
    "ais_betas": "betas of the rate-distortion curve",
    "bdmc_images": "largest number of simulated images",
    "bdmc_temperatures": "temperatures, for simulated images",
    "bdmc_chains": "chains per simulated image and direction",
    "bdmc_leapfrog_steps": "steps of a trajectory, for simulated images",
    "gap_images": "largest number of images, for the gaps",
    "gap_steps": "gradient steps per image, for the gaps",
    "gap_draws": "draws of z per image, for the gaps",
    "information_samples": "draws of z per image, for the mutual information",
    "sample_neighbours": "neighbours, for precision and recall",
    "sample_images": "samples that are compared",
    "sample_features": "features of the samples",
    "neighbours": "nearest neighbours that vote",
    "classification_images": "images, for the classification",
    "classification_samples": "draws of z per image and class, for the classification",
    "gaps_log_evidence": "log p(x), for the gaps",
}
PROTOCOL = {
    **OF_FURTHER_EVALUATIONS,
    "train": "training images",
    "validation": "validation images",
    "test": "test images",
    "evaluation_binarization": "binarization of the test images",
    "split": "measured on the split",
    "examples": "number of images",
    "images": "number of images",
    "kl": "KL term",
    "elbo_draws": "draws of z per image, for the ELBO",
    "importance_samples": "draws of z per image, for the bound of log p(x)",
    "condition": "condition of the model",
    "latent_samples": "draws of z per image",
    "test_images": "images",
    "observed": "observed pixels",
    "active_units": "active latent dimensions",
    "levels": "possible values of a pixel",
}
ONLY_IN_JSON = ("noise",)  # keys of a protocol that a reader does not need
NOT_DRAWN = ": not drawn. "  # between the kind of a figure and the reason
UNITS = {"nats per example": "nats per image"}


def of_unreliable(share: float, latent_dim: int) -> str:
    """What the share of the images for which `kvae.evaluation.defensive` is unreliable means, from 0 to 1."""
    exact = "; --only quadrature is exact" if latent_dim <= 3 else ""
    return (
        f"The estimate of log p(x) by defensive proposals may be wrong for {share:.1%} of the images: the weights of "
        f"their draws have a heavy tail, or too few draws count. Try --only 'defensive(samples=10000)'{exact}."
    )


def of_protocol(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol for people: its values, without those that are None, by the words for its keys."""
    return {
        in_words(key): _value_in_words(key, value)
        for key, value in protocol.items()
        if value is not None and key not in ONLY_IN_JSON
    }


def _value_in_words(key: str, value: Any) -> Any:
    if key == "units":
        return UNITS.get(value, value)
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else value


def of_comparison(protocol: str, elbo: bool) -> str:
    """How the decoders of a bundle were compared, as its model card says it, in words of which the card has others.

    Args:
        protocol: the words of the card.
        elbo: whether the change of the test ELBO was measured, so that the words about it are needed.
    """
    if not elbo:
        protocol = protocol.partition("; elbo_change")[0]
    return protocol.replace("elbo_change", "change of the test ELBO").replace("per example", "per image")


def in_words(key: str) -> str:
    """The words for a key of a protocol."""
    return PROTOCOL.get(key, key.replace("_", " "))
