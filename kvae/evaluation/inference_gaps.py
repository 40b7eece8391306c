"""Where the bound is lost: to the family of q, or to the encoder that computes its parameters."""

from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation import defensive_estimate, evidence
from kvae.evaluation.estimate import Estimate
from kvae.evaluation.over_batches import Keep, over_batches
from kvae.evaluation.variational_fits import Settings, check_density, fit, fits_of_modes, take_best
from kvae.internal.errors import check_seed, check_whole
from kvae.internal.tensorflow import tf
from kvae.model import networks, sampling
from kvae.model.compiled_functions import compiled
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

STEPS, DRAWS = 100, 64
LEARNING_RATE, GRADIENT_SAMPLES = 0.1, 4
LAST = 10  # losses of the last steps, whose mean decides between two fits


class Gaps(NamedTuple):
    """What the ELBO of each image loses of log p(x), in nats; log p(x) is the sum of all three."""

    best_elbo: Estimate  # [N]  the ELBO of the best q of the family
    approximation_gap: Estimate  # [N]  log p(x) minus that ELBO: because the family has no better q
    amortization_gap: Estimate  # [N]  that ELBO minus the ELBO of the encoder's q: because the encoder has not found it
    gaps_log_evidence: str  # how log p(x) was computed


def gaps(
    vae: VAE,
    data: Any,
    *,
    images: int = 1000,
    steps: int = STEPS,
    draws: int = DRAWS,
    seed: int = 0,
    verbose: int = 0,
    keep: Keep = None,
) -> Gaps:
    """The approximation gap and the amortization gap of each image.

        log p(x) - ELBO[q]  =  (log p(x) - ELBO[q*])  +  (ELBO[q*] - ELBO[q])

    Cremer, Li and Duvenaud, "Inference Suboptimality in Variational Autoencoders" (2018), section 3. q is that of the
    encoder; q* is the best q of the same family for the image alone. It is found by stochastic variational
    inference of what the encoder returns. It starts from what the encoder returns for the image, and from what it
    returns for E[x|z] at the best mode that the fits of `defensive` have found; the better of both counts. Weights that
    all images share, such as those of an inverse autoregressive flow, stay as they are. A fit that has not converged
    makes the approximation gap too large and the amortization gap too small; more `steps` show it. The KL term of both
    ELBOs is in closed form or sampled, as the model's argument `kl` says, and both use the same random numbers.

    log p(x) is that of `quadrature` for up to 3 latent dimensions. Otherwise it is that of `defensive`, a lower bound,
    so the approximation gap may be larger.

    Args:
        vae: a built model, whose posterior has the method `log_prob`.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        images: the largest number of images: the first ones of the set. 1,000 by default.
        steps: the number of gradient steps per start, at least 1, each with 4 draws of z. There are two fits.
        draws: the number of draws of z per image for each ELBO, at least 1.
        seed: the seed of the draws.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.
        keep: a folder for the results of batches, with which the same call continues after an interruption
            (`kvae.evaluation.over_batches`). By default none are kept.

    Raises:
        UserError: if an argument is not valid, if the density of the posterior is not known, if there are no data, or
            if the images have another shape than the model's.
    """
    check_whole("steps", steps)
    check_whole("draws", draws)
    check_seed("seed", seed)
    check_density(vae)
    settings = Settings(steps, LEARNING_RATE, GRADIENT_SAMPLES)
    method = "quadrature" if vae.latent_dim in evidence.POINTS else "defensive"

    def compute(x: tf.Tensor, condition: Any, index: tf.Tensor) -> list[np.ndarray]:
        if method == "quadrature":
            log_evidence = evidence.log_evidence(vae, x, condition=condition).log_value
        else:
            log_evidence = defensive_estimate.estimate_of_part(vae, x, condition, index, seed)
        encoders, best = _elbos(vae, x, condition, index, settings, draws, seed).astype(np.float64)
        return [best, log_evidence - best, best - encoders]

    best_elbo, approximation, amortization = over_batches(
        compute,
        vae,
        data,
        "best q of each image",
        [settings, draws, seed],
        size=sampling.images_at_once(vae) // max(draws, GRADIENT_SAMPLES),
        images=images,
        verbose=verbose,
        keep=keep,
    )
    return Gaps(Estimate(best_elbo), Estimate(approximation), Estimate(amortization), method)


def _elbos(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, settings: Settings, draws: int, seed: int
) -> np.ndarray:
    """The ELBO of the encoder's q and of the best q, `[2, B]`."""
    short = Settings(defensive_estimate.STEPS, settings.learning_rate, defensive_estimate.GRADIENT_SAMPLES)
    modes = fits_of_modes(vae, x, condition, index, defensive_estimate.MODES, short, seed)
    fits = [
        fit(vae, x, None, condition, index, start, settings, seed)
        for start in _starts(vae, x, condition, modes.parameters[0], modes.losses)
    ]
    first, second = (_last_loss(each.losses) for each in fits)
    better = tf.math.is_nan(first) | (second < first)  # never a second one that is NaN, unless both are

    def choose(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.reshape(better, [-1, *[1] * (first.shape.rank - 1)]), second, first)

    best = tf.nest.map_structure(choose, *(each.parameters for each in fits))
    return _elbos_of(vae, x, condition, index, best, tf.constant(seed), draws).numpy()


def _last_loss(losses: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(losses[-LAST:], axis=0)


@compiled
def _starts(vae: VAE, x: tf.Tensor, condition: Any, means: tf.Tensor, losses: tf.Tensor) -> tuple[Any, Any]:
    """What the encoder returns for x, and for E[x|z] at the mean of the fit with the smallest loss; float32."""
    modes = defensive_estimate.MODES
    means, losses = (tf.stack(tf.split(part, modes, axis=axis)) for part, axis in ((means, 0), (_last_loss(losses), 0)))
    finite = tf.math.is_finite(losses)[..., None] & tf.math.is_finite(means)
    mean = take_best(tf.where(finite, means, 0.0), -tf.where(finite[..., 0], losses, losses.dtype.max))
    images = x, vae.likelihood.mean(vae.decode(mean, condition))
    first, second = (networks.call(vae.encoder, image, condition) for image in images)
    return tuple(tf.nest.map_structure(lambda part: tf.cast(part, tf.float32), each) for each in (first, second))


@compiled(xla=True)
def _elbos_of(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, parameters: Any, seed: tf.Tensor, draws: int
) -> tf.Tensor:
    """The ELBO of the encoder's q and of that with the given parameters, from the same random numbers, `[2, B]`."""
    noise = Keyed(seed, Stream.GAPS, index)
    both = vae.encode(x, condition), vae.posterior.distribution(parameters)
    return tf.stack([vae.draw(x, noise, draws, condition, q=q).elbo for q in both])
