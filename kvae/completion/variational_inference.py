"""q(z | observed) by stochastic variational inference on the joint density of the observed pixels and z."""

import math
import numbers
from typing import Any, NamedTuple

import numpy as np

from kvae.completion.masked_images import MaskedImages, batches, check_images, indices, select_condition
from kvae.evaluation import evidence
from kvae.evaluation.variational_fits import OPTIMIZERS, Fit, Settings, candidates, factorized_gaussian, fit, take_best
from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.tensorflow import tf
from kvae.model.compiled_functions import compiled
from kvae.model.posteriors import Gaussian
from kvae.model.vae import VAE

CANDIDATES = 256  # draws of the prior, the best of which is the default start
START_LOG_SIGMA = -1.0
FINAL_DRAWS = 64  # draws of z per image for the gradient that decides whether an inference has converged
TOLERANCE = 0.1  # nats: an inference whose loss would decrease by less has converged


class Inferred(NamedTuple):
    """q(z | observed), a factorized Gaussian, and the course of its inference. All arrays are NumPy arrays."""

    q: Gaussian  # of B images
    start: Gaussian  # q before the first step
    losses: np.ndarray  # [B, S]  the negative ELBO of the observed pixels before every step, nats
    predicted_decrease: np.ndarray  # [B]  nats by which further steps would reduce the loss, from the last gradient

    @property
    def mean(self) -> np.ndarray:
        """The mean of q, `[B, D]`."""
        return np.asarray(self.q.mean)

    @property
    def converged(self) -> np.ndarray:
        """Whether further steps would reduce the loss by less than 0.1 nats, `[B]` bool."""
        return np.isfinite(self.predicted_decrease) & (self.predicted_decrease < TOLERANCE)

    def select(self, images: Any) -> "Inferred":
        """The inferences of some of the images, which a slice, indices or a mask `[B]` selects."""
        q, start = (Gaussian(*(part[images] for part in distribution)) for distribution in (self.q, self.start))
        return Inferred(q, start, self.losses[images], self.predicted_decrease[images])


# The inference on a whole image takes fewer steps: its q serves as a proposal and need not have converged.
WHOLE_IMAGE = Settings(steps=30, learning_rate=0.1, gradient_samples=8)


def article_options(vae: VAE) -> dict[str, Any]:
    """The options of `infer` for the method of the article that kvae reproduces: 200 gradient steps from a fixed start.

    Args:
        vae: a model with 2 latent dimensions, because the start is a point of the plane.

    Raises:
        UserError: if the model has another number of latent dimensions.
    """
    evidence.check_plane(vae)
    return {
        "start": ((2.0, -2.0), (0.5, 0.0)),
        "steps": 200,
        "learning_rate": 0.01,
        "gradient_samples": 10,
        "optimizer": "gradient_descent",
    }


def infer(
    vae: VAE,
    x: Any,
    observed: Any,
    *,
    start: tuple[Any, Any] | None = None,
    steps: int = 100,
    learning_rate: float = 0.1,
    gradient_samples: int = 8,
    optimizer: str = "adam",
    seed: int = 0,
    condition: Any = None,
) -> Inferred:
    """Fits q(z | observed) by stochastic variational inference; Hoffman et al. (2013), with reparameterized gradients.

    The loss is E_q[log q(z) - log p(x_observed, z)], the negative ELBO of the observed pixels; it is minimised over
    the mean and log sigma of q. The gradient leaves out the score function of q, whose expectation is zero: Roeder, Wu
    and Duvenaud, "Sticking the Landing" (2017), equation 7.

    Args:
        vae: a built model.
        x: images, `[B, *image]`. The values of the missing pixels are not used and may be NaN.
        observed: a mask as in `complete`.
        start: the first (mean, log_sigma) of q, each `[D]` or `[B, D]`. By default log_sigma is -1, and the mean is the
            point with the highest log p(x_observed, z) among 256 draws of the prior and the mean of the encoder's
            q(z|x) for the image with 0 in place of every missing pixel.
        steps: the number of gradient steps, S.
        learning_rate: the initial learning rate. For `"adam"` it decreases to 0 along a cosine; for
            `"gradient_descent"` it is constant.
        gradient_samples: the number of draws of z per image and step.
        optimizer: `"adam"`, or `"gradient_descent"` for plain gradient steps.
        seed: the seed of the draws. Those of an image depend only on the seed and on its index in x.
        condition: conditions, `[B, ...]`, for a model that takes one.

    Raises:
        UserError: if the mask does not fit the images, if nothing or everything of an image is observed, or if another
            argument is not valid.
    """
    images = check_images(vae, x, observed, seed, condition)
    check_whole("steps", steps)
    check_whole("gradient_samples", gradient_samples)
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    is_number = isinstance(learning_rate, numbers.Real) and not isinstance(learning_rate, bool)
    if not is_number or not 0 < learning_rate < math.inf:
        raise UserError(f"Expected a positive learning_rate. Received {learning_rate!r}.")
    start_arrays = None if start is None else _check_start(start, len(images.x), vae.latent_dim)
    settings = Settings(steps, float(learning_rate), gradient_samples, optimizer)
    return _infer(vae, images.zero_filled, images.observed, images.condition, start_arrays, settings, seed)


def infer_whole(vae: VAE, images: MaskedImages, seed: int) -> Inferred:
    """Fits q(z | the whole image) as `infer` fits q(z | observed).

    For an image whose missing pixels are not known, only the observed pixels count.
    """
    known = images.known.reshape(-1, *[1] * (images.x.ndim - 1))
    return _infer(vae, images.x, images.observed | known, images.condition, None, WHOLE_IMAGE, seed)


def _infer(
    vae: VAE,
    x: np.ndarray,
    mask: np.ndarray,
    condition: np.ndarray | None,
    start: list[np.ndarray] | None,
    settings: Settings,
    seed: int,
) -> Inferred:
    parts = []
    for batch in batches(vae, len(x), settings.gradient_samples):
        conditions = select_condition(condition, batch)
        given = (
            tf.constant(x[batch]),
            tf.constant(mask[batch]),
            None if conditions is None else tf.constant(conditions),
        )
        if start is None:
            mean = _best_start(vae, *given, tf.constant(seed))
            log_sigma = tf.fill(tf.shape(mean), START_LOG_SIGMA)
        else:
            mean, log_sigma = (tf.constant(part[batch]) for part in start)
        fitted = fit(
            vae,
            *given,
            tf.constant(indices(batch)),
            (mean, log_sigma),
            settings,
            seed,
            family=factorized_gaussian,
            final_draws=FINAL_DRAWS,
        )
        q, start_q = factorized_gaussian(fitted.parameters), factorized_gaussian((mean, log_sigma))
        decrease = _predicted_decrease(fitted)
        parts.append([part.numpy() for part in (*q, *start_q, tf.transpose(fitted.losses), decrease)])
    q_mean, q_log_var, start_mean, start_log_var, losses, decrease = map(np.concatenate, zip(*parts, strict=True))
    return Inferred(Gaussian(q_mean, q_log_var), Gaussian(start_mean, start_log_var), losses, decrease)


def _check_start(start: Any, count: int, latent_dim: int) -> list[np.ndarray]:
    """The mean and log sigma of `start`, each `[B, D]`; raises `UserError` if it is not valid."""
    shapes = ((latent_dim,), (count, latent_dim))
    try:
        parts = [np.asarray(part, np.float32) for part in start]
        valid = len(parts) == 2 and all(part.shape in shapes and np.isfinite(part).all() for part in parts)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise UserError(
            f"Expected start=(mean, log_sigma), finite, each of shape {shapes[0]} or {shapes[1]}. Received {start!r}."
        )
    return [np.broadcast_to(part, shapes[1]) for part in parts]


@compiled
def _best_start(vae: VAE, x: tf.Tensor, mask: tf.Tensor, condition: Any, seed: tf.Tensor) -> tf.Tensor:
    """The most probable z among draws of the prior and the mean of the encoder's q(z|x), `[B, D]`."""
    z, log_joint = candidates(vae, x, mask, condition, seed, CANDIDATES)
    encoded = vae.encode(x, condition).mean
    of_encoded = vae.log_joint(x, encoded, condition, mask)
    return take_best(tf.concat([z, encoded[None]], axis=0), tf.concat([log_joint, of_encoded[None]], axis=0))


def _predicted_decrease(fitted: Fit) -> tf.Tensor:
    """Nats by which further steps would reduce the loss, `[B]`.

    At the optimum the second derivative of the loss is 1 / sigma^2 in the mean and 2 in log sigma, as for the KL
    divergence of two Gaussians, so a Newton step reduces the loss by (sigma g_mean)^2 / 2 + g_log_sigma^2 / 4.
    """
    sigma, (of_mean, of_log_sigma) = tf.exp(fitted.parameters[1]), fitted.gradients
    return tf.reduce_sum(tf.square(sigma * of_mean) / 2 + tf.square(of_log_sigma) / 4, axis=-1)
