"""Stochastic variational inference: the parameters of q of each image, by gradient steps on the image's own ELBO.

The encoder computes the parameters of q(z|x) for all images at once; here they are optimised for each image apart, as
Hoffman et al., "Stochastic Variational Inference" (2013) do, with reparameterized gradients.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from kvae.internal import finite
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model.compiled_functions import compiled
from kvae.model.posteriors import MEAN_DRAWS, Distribution, Gaussian
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

Parts = list[tf.Tensor]  # parameters, their gradients or moments, each [B, ...]

OPTIMIZERS = ("adam", "gradient_descent")
CANDIDATES = 2048  # draws of the prior among which `distinct_starts` searches
SPREAD = 2.0  # of half of them, because modes lie beyond where the prior draws often
APART = 5.0  # standard deviations between two starts


class Settings(NamedTuple):
    """How q is fitted."""

    steps: int
    learning_rate: float  # for Adam the initial one, which decreases to 0 along a cosine; else constant
    gradient_samples: int  # draws of z per image and step
    optimizer: str = "adam"  # of `OPTIMIZERS`


class Fit(NamedTuple):
    """The parameters of q of B images after the last step."""

    parameters: Any  # as they were given, each [B, ...]
    losses: tf.Tensor  # [S, B]  the negative ELBO before every step, nats
    gradients: Any  # of the loss at the end, as the parameters; zero if there are no `final_draws`


def factorized_gaussian(parameters: Any) -> Gaussian:
    """The factorized Gaussian with the parameters (mean, log sigma), each `[B, D]`."""
    mean, log_sigma = parameters
    return Gaussian(mean, 2 * log_sigma)


def fit(
    vae: VAE,
    x: tf.Tensor,
    mask: tf.Tensor | None,
    condition: Any,
    index: tf.Tensor,
    parameters: Any,
    settings: Settings,
    seed: int,
    *,
    family: Callable[[Any], Distribution] | None = None,
    final_draws: int = 0,
) -> Fit:
    """Minimises E_q[log q(z) - log p(x_observed, z)], the negative ELBO of the observed pixels, for each image.

    The gradient leaves out the score function of q, whose expectation is zero: Roeder, Wu and Duvenaud, "Sticking the
    Landing" (2017), equation 7. So the gradient has no noise where q is the exact posterior.

    Args:
        vae: a built model.
        x: images, `[B, *image]`; no more than fit in memory `gradient_samples` times.
        mask: booleans that broadcast to x, True for the observed pixels; None for all of them.
        condition: conditions, `[B, ...]`, or None.
        index: the indices of the images, `[B]`, which their noise depends on.
        parameters: the first parameters, a tensor or a tuple of tensors, each `[B, ...]`.
        settings: how q is fitted.
        seed: the seed of the draws.
        family: a function of a module that makes q of the parameters. By default `vae.posterior.distribution`, whose
            parameters are what the encoder returns.
        final_draws: at least so many draws of z make the gradient at the end; it costs as much as the steps with as
            many draws. With 0 it is left out.
    """
    # Tensors, so that other values do not need another graph.
    steps, rate = tf.constant(settings.steps), tf.constant(settings.learning_rate, tf.float32)
    options = settings.gradient_samples, settings.optimizer, family, final_draws
    return _fit(vae, x, mask, condition, index, parameters, steps, rate, tf.constant(seed), *options)


@compiled
def _fit(
    vae: VAE,
    x: tf.Tensor,
    mask: tf.Tensor | None,
    condition: Any,
    index: tf.Tensor,
    parameters: Any,
    steps: tf.Tensor,
    learning_rate: tf.Tensor,
    seed: tf.Tensor,
    samples: int,
    optimizer: str,
    family: Callable[[Any], Distribution] | None,
    final_draws: int,
) -> Fit:
    make = family or vae.posterior.distribution

    def losses_and_gradients(flat: list[tf.Tensor], noise: Keyed) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(flat)
            q = make(tf.nest.pack_sequence_as(parameters, flat))
            draws = vae.draw(x, noise, samples, condition, mask, q)
            log_joint = draws.log_likelihood + draws.log_prior
            losses = tf.reduce_mean(q.stop_gradient().log_prob(draws.z) - log_joint, axis=0)
        return losses, tape.gradient(losses, flat, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def step(number: tf.Tensor, flat: Parts, first: Parts, second: Parts, record: Any) -> tuple[Any, ...]:
        losses, gradients = losses_and_gradients(flat, Keyed(seed, Stream.STEPS, index, number))
        if optimizer == "adam":  # Kingma and Ba (2015), algorithm 1
            count = tf.cast(number + 1, tf.float32)
            first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
            second = [0.999 * v + 0.001 * tf.square(g) for v, g in zip(second, gradients, strict=True)]
            rate = 0.5 * learning_rate * (1 + tf.cos(math.pi * (count - 1) / tf.cast(steps, tf.float32)))
            directions = [
                m / (1 - 0.9**count) / (tf.sqrt(v / (1 - 0.999**count)) + 1e-8)
                for m, v in zip(first, second, strict=True)
            ]
        else:
            rate, directions = learning_rate, gradients
        flat = [part - rate * direction for part, direction in zip(flat, directions, strict=True)]
        return number + 1, flat, first, second, record.write(number, losses)

    def add(number: tf.Tensor, sums: Parts) -> tuple[Any, ...]:
        gradients = losses_and_gradients(flat, Keyed(seed, Stream.FINAL, index, number))[1]
        return number + 1, [part + gradient / rounds for part, gradient in zip(sums, gradients, strict=True)]

    flat = tf.nest.flatten(parameters)
    nothing = [tf.zeros_like(part) for part in flat]
    loop = (tf.constant(0), flat, nothing, nothing, tf.TensorArray(tf.float32, steps, element_shape=index.shape))
    *_, record = end = tf.while_loop(lambda number, *_: number < steps, step, loop, parallel_iterations=1)
    flat, rounds = end[1], final_draws // samples + 1 if final_draws else 0
    sums = tf.while_loop(lambda number, *_: number < rounds, add, (tf.constant(0), nothing), parallel_iterations=1)[1]
    packed, packed_gradients = (tf.nest.pack_sequence_as(parameters, part) for part in (flat, sums))
    return Fit(packed, record.stack(), packed_gradients)


@compiled
def candidates(
    vae: VAE, x: tf.Tensor, mask: tf.Tensor | None, condition: Any, seed: tf.Tensor, count: int, spread: float = 1.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws z of the prior as starts, and log p(x_observed, z) at each: `[count, B, D]` and `[count, B]` nats.

    Args:
        vae: a built model.
        x: images, `[B, *image]`.
        mask: booleans that broadcast to x, True for the observed pixels; None for all of them.
        condition: conditions, `[B, ...]`, or None.
        seed: the seed of the draws. They are the same for every image.
        count: the number of candidates.
        spread: a factor by which every second candidate is moved away from the mean of all.
    """
    batch = tf.shape(x)[0]

    def draw(number: tf.Tensor) -> tf.Tensor:
        """A draw of the prior `[B, D]`, which has the same noise for every image."""
        return vae.prior.sample(Keyed(seed, Stream.START, tf.zeros([batch], tf.int32) + number), condition)

    def log_joint(z: tf.Tensor) -> tf.Tensor:
        """log p(x_observed, z) of every image at one candidate z, `[B]` nats."""
        parameters = None
        if condition is None:  # z is the same for all images, so it is decoded once
            shape = vae.likelihood.parameters_shape(vae.image_shape)
            parameters = tf.broadcast_to(vae.decode(z[:1]), tf.concat([[batch], shape], axis=0))
        return vae.log_joint(x, z, condition, mask, parameters=parameters)

    z = tf.map_fn(draw, tf.range(count), fn_output_signature=tf.float32)
    if spread != 1:
        centre, odd = tf.reduce_mean(z, axis=0), tf.range(count) % 2 == 1
        z = tf.where(odd[:, None, None], centre + spread * (z - centre), z)
    # One candidate at a time, so that the memory does not grow with their number.
    return z, tf.map_fn(log_joint, z)


@compiled(xla=True)
def distinct_starts(vae: VAE, x: tf.Tensor, condition: Any, seed: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Points where modes of the posterior may be, and the standard deviation of the encoder's q.

    The most probable of the encoder's mean and of `CANDIDATES` draws of the prior, half of them spread, is the first
    (with a condition, of a quarter as many).
    Each further one is the most probable of those that are at least `APART` standard deviations of the encoder's q away
    from the earlier ones (the root of the mean over the latent dimensions).

    Returns:
        The points `[count, B, D]`, and the deviations `[B, D]`.
    """
    mean, variance = moments(vae.encode(x, condition))
    searched = CANDIDATES if condition is None else CANDIDATES // 4  # With a condition each image decodes its own.
    z, log_joint = candidates(vae, x, None, condition, seed, searched, SPREAD)
    z = tf.concat([z, mean[None]], axis=0)
    log_joint = tf.concat([log_joint, vae.log_joint(x, mean, condition)[None]], axis=0)
    points = []
    for _ in range(count):
        points.append(take_best(z, log_joint))
        distance = tf.reduce_mean(tf.square(z - points[-1]) / variance, axis=-1)
        log_joint = tf.where(distance < APART**2, log_joint.dtype.min, log_joint)
    return tf.stack(points), tf.sqrt(variance)


def take_best(z: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """The z of each image with the largest value, `[B, D]`, of z `[C, B, D]` and values `[C, B]`."""
    return tf.gather(tf.transpose(z, [1, 0, 2]), tf.argmax(values, axis=0), batch_dims=1)


def moments(q: Distribution) -> tuple[tf.Tensor, tf.Tensor]:
    """The mean and the variance of each latent dimension, `[B, D]`; those of 64 draws if they have no closed form."""
    covariance = q.covariance
    if covariance is not None:
        return q.mean, tf.linalg.diag_part(covariance)
    z, _ = q.sample_and_log_prob(Keyed(0, Stream.POSTERIOR_MEAN, tf.zeros([1], tf.int32)), MEAN_DRAWS)
    return q.mean, tf.math.reduce_variance(z, axis=0)


def fits_of_modes(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, count: int, settings: Settings, seed: int
) -> Fit:
    """Factorized Gaussians, fitted to the posterior of each image from each of its `distinct_starts`.

    Returns:
        The fit of `count` times B images, those of the first start first.
    """
    points, deviation = distinct_starts(vae, x, condition, tf.constant(seed), count)
    x, condition, index, deviation = (
        None if part is None else tf.concat([part] * count, axis=0) for part in (x, condition, index, deviation)
    )
    start = tf.reshape(points, [-1, vae.latent_dim]), tf.math.log(deviation)
    return fit(vae, x, None, condition, index, start, settings, seed, family=factorized_gaussian)


def check_density(vae: VAE) -> None:
    """Raises `UserError` if a model is not built, or the density of its posterior is not known at draws of others."""
    finite.check_trained(vae)
    x = tf.zeros([1, *vae.image_shape])
    condition = None if vae.condition_shape is None else tf.zeros([1, *vae.condition_shape])
    q = vae.encode(x, condition)
    if type(q).log_prob is Distribution.log_prob:
        raise UserError(
            f"Expected a posterior whose density is known at any z. Received {type(vae.posterior).__name__}, whose "
            "distribution has no method log_prob(z). Define it, or use the evaluation bounds, which does not need it."
        )
