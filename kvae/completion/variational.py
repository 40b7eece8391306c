"""q(z | observed) by stochastic variational inference on the joint density of the observed pixels and z."""

import math
import numbers
from typing import Any, NamedTuple

import numpy as np

from kvae.completion.masked import Masked, batches, checked, of_batch, places
from kvae.evaluation import quadrature
from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.tensorflow import tf
from kvae.model.compiled import compiled
from kvae.model.posteriors import Gaussian
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

OPTIMIZERS = ("adam", "gradient_descent")
CANDIDATES = 256  # draws of the prior among which a start is chosen
START_LOG_SIGMA = -1.0
WHOLE_STEPS = 30  # of the inference on a whole image: a proposal need not have converged
FINAL_DRAWS = 64  # of the gradient that tells whether there is more to gain
TOLERANCE = 0.1  # nats: an inference with less to gain has converged


class Inferred(NamedTuple):
    """q(z | observed), a factorized Gaussian, and how it was found; NumPy arrays with the images first."""

    q: Gaussian  # of B images
    start: Gaussian  # where the steps began
    losses: np.ndarray  # [B, S]  negative ELBO of the observed pixels before every step, nats
    to_gain: np.ndarray  # [B]  nats by which the loss would still fall, predicted from the gradient at the end

    @property
    def mean(self) -> np.ndarray:
        """Of q, `[B, D]`."""
        return np.asarray(self.q.mean)

    @property
    def converged(self) -> np.ndarray:
        """Whether less than 0.1 nats are to gain, `[B]`."""
        return np.isfinite(self.to_gain) & (self.to_gain < TOLERANCE)

    def of(self, images: Any) -> "Inferred":
        """Those of some of the images, given by a slice or by places."""
        q, start = (Gaussian(*(part[images] for part in found)) for found in (self.q, self.start))
        return Inferred(q, start, self.losses[images], self.to_gain[images])


def article_options(vae: VAE) -> dict[str, Any]:
    """Options of `infer` for the form of the article that kvae reproduces: 200 plain gradient steps from a fixed start.

    Raises:
        UserError: a model whose latent space is no plane, which the start is a point of.
    """
    quadrature.check_plane(vae)
    start = ((2.0, -2.0), (0.5, 0.0))
    return {"start": start, "steps": 200, "learning_rate": 0.01, "gradient_samples": 10, "optimizer": OPTIMIZERS[1]}


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

    Minimises E_q[log q(z) - log p(x_observed, z)], the negative ELBO of the observed pixels, over the mean and log
    sigma of q. The gradient leaves out the score of q, whose mean is zero: Roeder, Wu and Duvenaud, "Sticking the
    Landing" (2017), equation 7.

    Args:
        vae: a built model.
        x: `[B, *image]`; the missing pixels are not looked at and may be NaN.
        observed: a mask as in `complete`.
        start: (mean, log_sigma), each `[D]` or `[B, D]`. By default the best of 256 draws of the prior and of the
            encoder's guess for the image with its missing pixels at 0, judged by log p(x_observed, z), with
            log_sigma -1.
        steps: S.
        learning_rate: the first; Adam's falls to 0 along a cosine, that of `"gradient_descent"` stays.
        gradient_samples: draws of z a step.
        optimizer: `"adam"`, or `"gradient_descent"` for plain steps of constant size.
        seed: of the draws; those of an image are a function of (seed, its place in x) alone.
        condition: `[B, ...]`, of a model that has one.

    Raises:
        UserError: a mask that does not fit, observes nothing or everything, or another argument that cannot be.
    """
    images = checked(vae, x, observed, seed, condition)
    check_whole("steps", steps)
    check_whole("gradient_samples", gradient_samples)
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    number = isinstance(learning_rate, numbers.Real) and not isinstance(learning_rate, bool)
    if not number or not 0 < learning_rate < math.inf:
        raise UserError(f"Expected a positive learning_rate. Received {learning_rate!r}.")
    given = None if start is None else _given_start(start, len(images.x), vae.latent_dim)
    settings = (steps, float(learning_rate), gradient_samples, optimizer)
    return _infer(vae, images.seen, images.observed, images.condition, given, *settings, seed)


def infer_whole(vae: VAE, images: Masked, seed: int) -> Inferred:
    """q(z | the whole image), as `infer` finds q(z | observed); of what is observed where the rest is not known."""
    known = images.known.reshape(-1, *[1] * (images.x.ndim - 1))
    mask = images.observed | known
    return _infer(vae, images.x, mask, images.condition, None, WHOLE_STEPS, 0.1, 8, "adam", seed)


def _infer(
    vae: VAE,
    seen: np.ndarray,
    mask: np.ndarray,
    condition: np.ndarray | None,
    start: list[np.ndarray] | None,
    steps: int,
    learning_rate: float,
    samples: int,
    optimizer: str,
    seed: int,
) -> Inferred:
    settings = (tf.constant(steps), tf.constant(learning_rate, tf.float32), tf.constant(seed))
    parts = []
    for batch in batches(vae, len(seen), samples):
        own = of_batch(condition, batch)
        given = (tf.constant(seen[batch]), tf.constant(mask[batch]), None if own is None else tf.constant(own))
        if start is None:
            mean = _best_start(vae, *given, settings[-1])
            log_sigma = tf.fill(tf.shape(mean), START_LOG_SIGMA)
        else:
            mean, log_sigma = (tf.constant(part[batch]) for part in start)
        found = _fit(vae, *given, mean, log_sigma, tf.constant(places(batch)), *settings, samples, optimizer)
        fitted_mean, fitted_scale, losses, to_gain = (part.numpy() for part in found)
        parts.append((fitted_mean, fitted_scale, mean.numpy(), 2 * log_sigma.numpy(), losses.T, to_gain))
    mean, scale, start_mean, start_scale, losses, to_gain = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Inferred(Gaussian(mean, scale), Gaussian(start_mean, start_scale), losses, to_gain)


def _given_start(start: Any, count: int, latent_dim: int) -> list[np.ndarray]:
    shapes = ((latent_dim,), (count, latent_dim))
    try:
        parts = [np.asarray(part, np.float32) for part in start]
        fits = len(parts) == 2 and all(part.shape in shapes and np.isfinite(part).all() for part in parts)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"Expected start=(mean, log_sigma), finite, each of shape {shapes[0]} or {shapes[1]}. Received {start!r}."
        )
    return [np.broadcast_to(part, shapes[1]) for part in parts]


@compiled
def _best_start(vae: VAE, x: tf.Tensor, mask: tf.Tensor, condition: Any, seed: tf.Tensor) -> tf.Tensor:
    """The most probable z among draws of the prior and the encoder's guess, `[B, D]`."""
    batch = tf.shape(x)[0]

    def candidate(number: tf.Tensor) -> tf.Tensor:
        """A draw of the prior `[B, D]`, made of the same numbers for every image."""
        return vae.prior.sample(Keyed(seed, Stream.START, tf.zeros([batch], tf.int32) + number), condition)

    def judge(number: tf.Tensor) -> tf.Tensor:
        """log p(x_observed, z) of every image at one z: one at a time, so that memory does not grow with them."""
        z, parameters = candidate(number), None
        if condition is None:  # the same z for all, which is decoded once
            shape = vae.likelihood.parameters_shape(vae.image_shape)
            parameters = tf.broadcast_to(vae.decode(z[:1]), tf.concat([[batch], shape], axis=0))
        return vae.log_joint(x, z, condition, mask, parameters=parameters)

    values = tf.map_fn(judge, tf.range(CANDIDATES), fn_output_signature=tf.float32)
    guess = vae.encode(x, condition).mean
    best = candidate(tf.argmax(values, axis=0, output_type=tf.int32))
    better = vae.log_joint(x, guess, condition, mask) > tf.reduce_max(values, axis=0)
    return tf.where(better[:, None], guess, best)


@compiled
def _fit(
    vae: VAE,
    x: tf.Tensor,
    mask: tf.Tensor,
    condition: Any,
    mean: tf.Tensor,
    log_sigma: tf.Tensor,
    place: tf.Tensor,
    steps: tf.Tensor,
    learning_rate: tf.Tensor,
    seed: tf.Tensor,
    samples: int,
    optimizer: str,
) -> tuple[tf.Tensor, ...]:
    """Takes all the steps: to q's two parameters `[B, D]`, losses `[S, B]`, what is to gain `[B]`."""

    def losses_and_gradients(parameters: Any, noise: Keyed) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            mean, log_sigma = tf.unstack(parameters)
            q = Gaussian(mean, 2 * log_sigma)
            draws = vae.draw(x, noise, samples, condition, mask, q)
            log_joint = draws.log_likelihood + draws.log_prior
            losses = tf.reduce_mean(q.stopped().log_prob(draws.z) - log_joint, axis=0)
        return losses, tape.gradient(losses, parameters)

    parameters = tf.stack([mean, log_sigma])  # [2, B, D]
    momentum, scale = tf.zeros_like(parameters), tf.zeros_like(parameters)
    record = tf.TensorArray(tf.float32, steps)
    for step in tf.range(steps):
        losses, gradients = losses_and_gradients(parameters, Keyed(seed, Stream.STEPS, place, step))
        record = record.write(step, losses)
        if optimizer == "adam":  # Kingma and Ba (2015), algorithm 1
            count = tf.cast(step + 1, tf.float32)
            momentum = 0.9 * momentum + 0.1 * gradients
            scale = 0.999 * scale + 0.001 * tf.square(gradients)
            rate = 0.5 * learning_rate * (1 + tf.cos(math.pi * (count - 1) / tf.cast(steps, tf.float32)))
            direction = momentum / (1 - 0.9**count) / (tf.sqrt(scale / (1 - 0.999**count)) + 1e-8)
            parameters -= rate * direction
        else:
            parameters -= learning_rate * gradients
    # At the optimum the loss curves by 1 / sigma^2 in the mean and by 2 in log sigma, as the KL of two Gaussians does,
    # so a Newton step gains (sigma g_mean)^2 / 2 + g_log_sigma^2 / 4.
    gradients = tf.zeros_like(parameters)
    for number in tf.range(FINAL_DRAWS // samples + 1):
        noise = Keyed(seed, Stream.FINAL, place, number)
        gradients += losses_and_gradients(parameters, noise)[1] / (FINAL_DRAWS // samples + 1)
    sigma = tf.exp(parameters[1])
    to_gain = tf.reduce_sum(tf.square(sigma * gradients[0]) / 2 + tf.square(gradients[1]) / 4, axis=-1)
    return parameters[0], 2 * parameters[1], record.stack(), to_gain
