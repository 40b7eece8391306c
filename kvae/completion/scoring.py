"""log p(missing | observed): estimated by importance sampling, or by quadrature for 1 to 3 latent dimensions."""

from typing import Any, NamedTuple

import numpy as np

from kvae.completion.masked_images import MaskedImages, batches, check_images, indices, select_condition
from kvae.completion.variational_inference import Inferred
from kvae.evaluation import evidence, mixture_proposals
from kvae.model.vae import VAE
from kvae.noise.streams import Stream

# Effective samples below which a score is unreliable. Its standard error, about 1 / sqrt(5) nats there, is too.
LEAST_EFFECTIVE = 5


class Score(NamedTuple):
    """log p(missing | observed) per image, in nats, with its uncertainty; NaN if the missing pixels are not known."""

    log_density: np.ndarray  # [B]
    standard_error: np.ndarray  # [B]  of the Monte Carlo estimate
    effective_samples: np.ndarray  # [B]  the number of equally weighted draws that would be as precise

    def head(self, count: int) -> "Score":
        """The scores of the first `count` images."""
        return Score(*[part[:count] for part in self])


def score(vae: VAE, images: MaskedImages, inferred: Inferred, whole: Inferred, samples: int, seed: int) -> Score:
    """Estimates the score by importance sampling.

    Args:
        vae: a built model.
        images: images with their mask and the true values of the missing pixels.
        inferred: q(z | observed).
        whole: q(z | the whole image). Nearly all of the numerator of the estimate comes from where the posterior of
            the whole image has its mass, and that posterior is narrower; so the proposal is a mixture of this q, of
            q(z | observed) and of the prior.
        samples: the number of draws of z per image.
        seed: the seed of the draws.
    """
    parts = []
    for batch in batches(vae, len(images.x)):
        x, mask, condition = images.x[batch], images.observed[batch], select_condition(images.condition, batch)
        components = [inferred.select(batch).q, whole.select(batch).q]
        log_weights, log_densities = [], []
        for drawn in mixture_proposals.draws(vae, components, indices(batch), samples, seed, Stream.SCORE, condition):
            parameters = vae.decode(drawn.z, condition)
            log_joint = vae.log_joint(x, drawn.z, condition, mask, parameters=parameters).numpy()
            log_weights.append(log_joint.astype(np.float64) - drawn.log_proposal)
            log_densities.append(vae.likelihood.log_prob(x, parameters, ~mask).numpy().astype(np.float64))
        parts.append(importance_estimate(np.concatenate(log_weights), np.concatenate(log_densities)))
    result = Score(*[np.concatenate(part) for part in zip(*parts, strict=True)])
    return Score(*[np.where(images.known, part, np.nan) for part in result])


def importance_estimate(log_weights: np.ndarray, log_densities: np.ndarray) -> Score:
    """The logarithm of the self-normalized estimate r = sum_k w_k f_k / sum_k w_k, with its standard error.

    The error is that of the delta method: Var(r) = sum_k W_k^2 (f_k - r)^2 with W = w / sum w, and the standard error
    of log r is the square root of Var(r), divided by r; Owen, "Monte Carlo theory, methods and examples" (2013),
    equation 9.9.

    Args:
        log_weights: log w_k = log p(x_observed, z_k) - log proposal(z_k), `[K, B]`, nats.
        log_densities: log f_k = log p(missing|z_k), `[K, B]`, nats.

    Returns:
        The estimate. Its `effective_samples` is the smaller of two effective sample sizes, 1 / sum W^2 (Owen, equation
        9.13): that of w and that of w f. The few draws that dominate either sum limit the precision of the estimate.
    """
    log_w = log_weights - np.logaddexp.reduce(log_weights, axis=0)
    log_terms = log_w + log_densities
    log_ratio = np.logaddexp.reduce(log_terms, axis=0)
    relative = np.exp(log_terms - log_ratio) - np.exp(log_w)  # W_k (f_k - r) / r
    effective = [np.exp(-np.logaddexp.reduce(2 * part, axis=0)) for part in (log_w, log_terms - log_ratio)]
    return Score(log_ratio, np.sqrt(np.square(relative).sum(axis=0)), np.minimum(*effective))


def quadrature_score(vae: VAE, x: Any, observed: Any, condition: Any = None) -> evidence.Integral:
    """log p(missing | observed) = log p(x) - log p(x_observed) by quadrature, with its error.

    Args:
        vae: a built model with 1 to 3 latent dimensions.
        x: images, `[B, *image]`, with the true values of the missing pixels.
        observed: a mask as in `complete`.
        condition: conditions, `[B, ...]`, for a model that takes one.

    Returns:
        The score and the sum of the errors of both integrals, each `[B]`, nats; NaN for an image whose missing pixels
        are not known.

    Raises:
        UserError: if the model has more latent dimensions, or if `complete` does not accept the images,
            the mask or the condition.
    """
    images = check_images(vae, x, observed, condition=condition)
    evidence.check_latent_dim(vae)
    whole = evidence.log_evidence(vae, images.x, condition=images.condition)
    observed_part = evidence.log_evidence(vae, images.x, images.observed, images.condition)
    result = evidence.Integral(whole.log_value - observed_part.log_value, whole.error + observed_part.error)
    return evidence.Integral(*[np.where(images.known, part, np.nan) for part in result])
