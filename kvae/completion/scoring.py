"""log p(missing | observed): by importance sampling, and exact by quadrature where the latent space is a plane."""

from typing import Any, NamedTuple

import numpy as np

from kvae.completion import proposals
from kvae.completion.masked import Masked, batches, checked, of_batch, places
from kvae.completion.variational import Inferred
from kvae.evaluation import quadrature
from kvae.model.vae import VAE
from kvae.noise.streams import Stream


class Score(NamedTuple):
    """log p(missing | observed) of every image, in nats, and how well it is known; NaN where the truth is not."""

    log_density: np.ndarray  # [B]
    standard_error: np.ndarray  # [B]  of the Monte-Carlo estimate
    effective_samples: np.ndarray  # [B]  of all the draws, how many equally weighted ones would be worth the same

    def head(self, count: int) -> "Score":
        """Those of the first `count` images."""
        return Score(*[part[:count] for part in self])


def score(vae: VAE, images: Masked, inferred: Inferred, whole: Inferred, samples: int, seed: int) -> Score:
    """The score by importance sampling.

    Args:
        vae: a built model.
        images: with the true missing pixels.
        inferred: q(z | observed).
        whole: q(z | the whole image). The posterior of the whole image carries the numerator and is narrower, so it is
            a part of the proposal beside q(z | observed) and the prior.
        samples: draws of z an image.
        seed: of the draws.
    """
    parts = []
    for batch in batches(vae, len(images.x)):
        x, mask, condition = images.x[batch], images.observed[batch], of_batch(images.condition, batch)
        components, log_weights, log_densities = [found.of(batch).q for found in (inferred, whole)], [], []
        for some in proposals.draws(vae, components, places(batch), samples, seed, Stream.SCORE, condition):
            parameters = vae.decode(some.z, condition)
            log_joint = vae.log_joint(x, some.z, condition, mask, parameters=parameters).numpy()
            log_weights.append(log_joint.astype(np.float64) - some.log_proposal)
            log_densities.append(vae.likelihood.log_prob(x, parameters, ~mask).numpy().astype(np.float64))
        parts.append(importance_estimate(np.concatenate(log_weights), np.concatenate(log_densities)))
    result = Score(*[np.concatenate(part) for part in zip(*parts, strict=True)])
    return Score(*[np.where(images.known, part, np.nan) for part in result])


def importance_estimate(log_weights: np.ndarray, log_densities: np.ndarray) -> Score:
    """log of the self-normalized estimate sum_k w_k f_k / sum_k w_k, with its standard error.

    The delta method: Var(r) = sum_k W_k^2 (f_k - r)^2 with W = w / sum w, and the error of log r is that over r; Owen,
    "Monte Carlo theory, methods and examples" (2013), equation 9.9.

    Args:
        log_weights: log w_k = log p(x_observed, z_k) - log proposal(z_k), `[K, B]`.
        log_densities: log f_k = log p(missing|z_k), `[K, B]`.

    Returns:
        With the smaller of the two effective sample sizes, 1 / sum W^2 (Owen, equation 9.13), of w and of w f, since
        the few draws that carry either sum limit the estimate.
    """
    w = log_weights - np.logaddexp.reduce(log_weights, axis=0)
    joint = w + log_densities
    log_ratio = np.logaddexp.reduce(joint, axis=0)
    relative = np.exp(joint - log_ratio) - np.exp(w)  # W_k (f_k - r) / r
    effective = [np.exp(-np.logaddexp.reduce(2 * part, axis=0)) for part in (w, joint - log_ratio)]
    return Score(log_ratio, np.sqrt(np.square(relative).sum(axis=0)), np.minimum(*effective))


def quadrature_score(vae: VAE, x: Any, observed: Any, condition: Any = None) -> quadrature.Integral:
    """log p(missing | observed) = log p(x) - log p(x_observed), by quadrature, `[B]` nats, and its error.

    Raises:
        UserError: a model whose latent space is no plane.
    """
    quadrature.check_plane(vae)
    images = checked(vae, x, observed, condition=condition)
    whole = quadrature.log_evidence(vae, images.x, condition=images.condition)
    part = quadrature.log_evidence(vae, images.x, images.observed, images.condition)
    return quadrature.Integral(whole.log_value - part.log_value, whole.error + part.error)
