"""What a model draws beside the images of `VAE.generate` and `VAE.sample`. Users have it as `kvae.sampling`.

    for images in kvae.sampling.image_batches(vae, 1_000_000, seed=0):  # the memory of one batch
        ...
    z = kvae.sampling.draw_z(vae, 16, seed=0)  # the z behind vae.generate(16, seed=0)

All functions take a built `kvae.VAE` first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kvae.internal import batch_sizes
from kvae.internal.errors import check_seed, check_whole
from kvae.internal.tensorflow import tf
from kvae.model import priors
from kvae.model.compiled_functions import compiled
from kvae.model.conditions import check_condition
from kvae.model.hints import Array
from kvae.model.objectives import Draws
from kvae.model.pixel_check import check_pixels
from kvae.noise import portable
from kvae.noise.keyed import Keyed, PortableTensors
from kvae.noise.streams import Stream

if TYPE_CHECKING:
    from kvae.model.vae import VAE


class Samples(NamedTuple):
    """Images drawn from a model, one per seed. An exported decoder has them as `kvae.runtime.Sample`, in uint8."""

    images: tf.Tensor  # [n, *image]  draws of p(x|z), float32
    means: tf.Tensor  # [n, *image]  E[x|z], float32
    z: tf.Tensor  # [n, D]  float32


def draw_z(vae: VAE, n: int, seed: int | None = None, condition: Array | None = None) -> tf.Tensor:
    """n draws z ~ p(z): the z of the images that `vae.generate` returns for the same arguments.

    Args:
        vae: a built model.
        n: number of draws, at least 1.
        seed: seed of the set, in 0..2^31 - 1. If it is None, the default, the seed is random.
        condition: condition per draw, `[n, ...]`, for a conditional model; else None.

    Returns:
        `[n, D]` float32.

    Raises:
        UserError: if n, the seed or the condition is not valid, or the model is not built.
    """
    vae._check_built()
    seeds = tf.constant(portable.seeds(n, seed_of(seed)))
    return vae.prior.sample(PortableTensors(seeds), check_condition(condition, vae.condition_shape, n))


def image_batches(
    vae: VAE, n: int, seed: int | None = None, batch_size: int = 1000, condition: Array | None = None
) -> Iterator[tf.Tensor]:
    """The images of `vae.generate` in batches, so that a million images need only the memory of one batch.

    Args:
        vae: a built model.
        n: number of images, at least 1.
        seed: as in `generate`, which returns the same images.
        batch_size: number of images per batch; the last batch may have fewer. 1000 by default.
        condition: condition per image, `[n, ...]`, for a conditional model; else None.

    Yields:
        `[batch_size, *image]` float32.

    Raises:
        UserError: if n, batch_size, the seed or the condition is not valid, or the model is not built.
    """
    vae._check_built()
    check_whole("batch_size", batch_size)
    seeds, conditions = portable.seeds(n, seed_of(seed)), check_condition(condition, vae.condition_shape, n)
    slices = (slice(start, start + batch_size) for start in range(0, n, batch_size))
    return (vae.sample(seeds[part], None if conditions is None else conditions[part]).images for part in slices)


def sample_graph(
    vae: VAE, seeds: tf.Tensor, condition: tf.Tensor | None = None, prior: priors.Prior | None = None
) -> Samples:
    """What `vae.sample` computes for one batch, with operations that are built into LiteRT.

    Args:
        vae: a built model.
        seeds: one seed per image, `[n]` int32.
        condition: condition per image, `[n, ...]`, for a conditional model; else None.
        prior: prior from which z is drawn, such as `Prior.frozen` returns it. By default that of the model.

    Returns:
        As `vae.sample`.
    """
    noise = PortableTensors(seeds)
    z = (prior or vae.prior).sample(noise, condition)
    parameters = vae._decode(z, condition)
    return Samples(vae.likelihood.sample(parameters, noise), vae.likelihood.mean(parameters), z)


compiled_sample = compiled(sample_graph)


def elbo_draws(vae: VAE, x: Array, seed: int | None = None, condition: Array | None = None) -> Draws:
    """The draws from which `vae.elbo` computes its result for the same arguments.

    Its `reconstruction` and `kl` are the terms of the ELBO of each image, `[B]`.

    Args:
        vae: a model.
        x: images, `[B, *image]`.
        seed: seed of the draws, in 0..2^31 - 1. If it is None, the default, the seed is random.
        condition: condition per image, `[B, ...]`, for a conditional model; else None.

    Raises:
        UserError: if x, the seed or the condition is not valid.
    """
    images = vae._check_x(x)
    if not tf.is_symbolic_tensor(images):
        check_pixels(vae.likelihood, images)
    noise = Keyed(vae.seed, Stream.ELBO_TERMS, seed_of(seed), tf.range(tf.shape(images)[0]))
    return vae.draw(images, noise, vae.samples, condition)


def images_at_once(vae: VAE) -> int:
    """Number of images that are decoded in one batch, chosen so that a float32 tensor of them has about 13 MB."""
    vae._check_built()
    return batch_sizes.images_at_once(vae.likelihood.parameters_shape(vae.image_shape))


def seed_of(seed: int | tf.Tensor | None) -> int | tf.Tensor:
    """A seed as an int, drawn from Python's `random` if it is None. A tensor, as in a graph, is returned unchanged."""
    if tf.is_tensor(seed):
        return seed
    return random.randrange(2**31) if seed is None else check_seed("seed", seed)
