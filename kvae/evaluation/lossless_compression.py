"""Compression: how many bits a model needs to store images without loss, by the ELBO and in truth."""

import bz2
import struct
from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.bits_back import FOREIGN, LOWEST_HEAD, Codec, Stack
from kvae.evaluation.elbo_terms import elbo
from kvae.evaluation.estimate import Estimate, batches
from kvae.internal import batch_sizes, finite
from kvae.internal.errors import UserError, check_seed
from kvae.internal.progress_bars import counted
from kvae.internal.tensorflow import tf
from kvae.model import likelihoods, posteriors, priors
from kvae.model.conditions import check_condition
from kvae.model.vae import VAE
from kvae.noise import portable
from kvae.noise.streams import Stream

IMAGES_PER_LANE = 250  # which share the initial bits of a lane
MOST_LANES = 100
MOST_VALUES = 4096  # of a pixel
HEADER = struct.Struct("<II")  # the number of images and the seed


class Compression(NamedTuple):
    """How many bits the images of a set take, and whether they were decoded."""

    bits_per_image: Estimate  # [N]  -ELBO / log 2
    coded_bits_per_image: Estimate  # [N]  by which the message grew
    coded_to_elbo: float  # the ratio of these two means
    initial_bits_per_image: float  # the rest of the message, divided by N
    bz2_bits_per_image: float  # of the same pixels, packed and compressed by bzip2, which knows no model
    decoded: float  # the share of images that were decoded without any difference


def compression(vae: VAE, data: Any, *, seed: int = 0, verbose: int = 0) -> Compression:
    """Compresses a set with `compress`, decompresses it, and compares with the ELBO.

    In the mean over images and draws of z, the message grows by -ELBO / log 2 bits per image; Townsend, Bird and
    Barber, "Practical Lossless Compression with Latent Variables using Bits Back Coding" (2019), section 2.3. The rest
    are the initial bits: random words that are popped before there are others, and the state of the coder. Every 250
    images add as many of them, up to 25,000 images, and further images none. bzip2 is the best compressor in Python's
    library for the binary images of MNIST, whose 10,000 test images are coded and decoded in a minute on one core.

    Args:
        vae, data, seed, verbose: as in `compress`.

    Raises:
        UserError: as `compress`, and if the networks do not compute the same bits again, so that decoding fails.
    """
    pixels, conditions = _read(_check_model(vae), data)
    count, images = len(pixels), _values(vae)[pixels].reshape(-1, *vae.image_shape)
    by_elbo = -elbo(vae, images if conditions is None else (images, conditions), seed=seed).elbo.per_example / np.log(2)
    message, coded = _encode(vae, pixels, conditions, seed, verbose)
    same = decompress(vae, message, conditions, verbose=verbose) == images
    packed = np.packbits(pixels, axis=1) if vae.likelihood.binary else pixels.astype(np.min_scalar_type(pixels.max()))
    return Compression(
        Estimate(by_elbo),
        Estimate(coded),
        float(coded.mean() / by_elbo.mean()),
        float((8 * len(message) - coded.sum()) / count),
        8 * len(bz2.compress(packed.tobytes())) / count,
        float(same.reshape(count, -1).all(axis=1).mean()),
    )


def compress(vae: VAE, data: Any, *, seed: int = 0, verbose: int = 0) -> bytes:
    """Stores images in as few bytes as the ELBO allows, by bits-back coding. `decompress` returns them without loss.

    For each image, z is popped from the message with q(z|x), which takes bits that decoding gives back; then x is
    pushed with p(x|z), and z with p(z).

    Args:
        vae: a built model with a likelihood of few possible values per pixel, such as `bernoulli`, the prior
            `standard_normal` and the posterior `diagonal_gaussian`.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        seed: the seed of the random bits with which the message begins.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.

    Returns:
        The message. To decode it, every bit that the networks compute must be the same again: the same model, machine,
        and versions of kvae and TensorFlow. So it is no format to keep images in.

    Raises:
        UserError: if the model has other parts, if an argument is not valid, if there are no data, or if a pixel has a
            value that is not possible.
    """
    return _encode(vae, *_read(_check_model(vae), data), seed, verbose)[0]


def decompress(vae: VAE, message: bytes, condition: Any = None, *, verbose: int = 0) -> np.ndarray:
    """The images of a message that `compress` has made.

    Args:
        vae: the model that made it.
        message: the bytes.
        condition: the condition per image, `[N, ...]`, for a conditional model; else None.
        verbose: as in `compress`.

    Returns:
        `[N, *image]` float32.

    Raises:
        UserError: if another model or machine made the message, or if the condition is not valid.
    """
    codec = Codec(_check_model(vae), _values(vae), _most_lanes(vae))
    try:
        count, seed = HEADER.unpack_from(message)
        lanes = _lanes(vae, count)
        heads = np.frombuffer(message, "<u8", lanes, HEADER.size).astype(np.uint64)
    except (struct.error, ValueError):
        raise UserError(FOREIGN) from None
    condition = check_condition(condition, vae.condition_shape, count)
    stack, parts = Stack(heads, message[HEADER.size + heads.nbytes :]), []
    with counted(verbose, "decoding", "batches", -(-count // lanes)) as one_more, np.errstate(all="ignore"):
        for part in codec.decode(stack, count, condition):
            parts.append(part)
            one_more()
    if not parts or (stack.heads != LOWEST_HEAD).any() or not _initial(vae, seed, lanes).endswith(stack.words):
        raise UserError(FOREIGN)
    return codec.values[np.concatenate(parts[::-1])].reshape(-1, *vae.image_shape)


def _encode(vae: VAE, pixels: np.ndarray, conditions: Any, seed: int, verbose: int) -> tuple[bytes, np.ndarray]:
    """The message, and the bits of each image, `[N]`."""
    lanes = _lanes(vae, len(pixels))
    stack = Stack(np.full(lanes, LOWEST_HEAD, np.uint64), _initial(vae, check_seed("seed", seed), lanes))
    codec, lengths = Codec(vae, _values(vae), _most_lanes(vae)), []
    with (
        counted(verbose, "encoding", "batches", -(-len(pixels) // lanes)) as one_more,
        np.errstate(all="ignore", invalid="raise"),
    ):
        try:
            for part in codec.encode(stack, pixels, conditions):
                lengths.append(part)
                one_more()
        except FloatingPointError:
            raise UserError("Expected finite numbers of the encoder and the decoder. Received NaN.") from None
    heads = stack.heads.astype("<u8").tobytes()
    return HEADER.pack(len(pixels), seed) + heads + stack.words[stack.untouched :], np.concatenate(lengths)


def _read(vae: VAE, data: Any) -> tuple[np.ndarray, Any]:
    """The pixels `[N, P]`, as numbers of their values, and the conditions `[N, ...]` or None."""
    parts, conditions, values = [], [], _values(vae)
    for x, condition, _ in batches(vae, data):
        if not np.all(vae.likelihood.is_possible(x.numpy())):
            raise UserError(
                f"Expected pixels with one of the {len(values)} values that the likelihood knows, because others "
                "cannot be coded without loss. Received others. Binarize or round the images first."
            )
        part = (x.numpy() - values[0]) / (values[-1] - values[0]) * (len(values) - 1)
        parts.append(np.rint(part).astype(np.uint16).reshape(len(part), -1))
        conditions.append(condition)
    return np.concatenate(parts), None if vae.condition_shape is None else tf.concat(conditions, axis=0)


def _initial(vae: VAE, seed: int, lanes: int) -> bytes:
    """Random words, more than are ever needed before there are others."""
    return portable.bits([seed], Stream.INITIAL_BITS, 2 * lanes * vae.latent_dim)[0].astype("<u4").tobytes()


def _lanes(vae: VAE, count: int) -> int:
    return min(max(count // IMAGES_PER_LANE, 1), _most_lanes(vae))


def _most_lanes(vae: VAE) -> int:
    return min(MOST_LANES, batch_sizes.images_at_once((*vae.image_shape, len(_values(vae)))))


def _values(vae: VAE) -> np.ndarray:
    """The possible values of a pixel, in rising order."""
    low, high, _ = vae.likelihood.support
    steps = int(vae.likelihood.levels or high - low + 1) - 1
    return np.arange(steps + 1, dtype=np.float32) * (high - low) / steps + low  # k / steps, rounded as data are


def _check_model(vae: VAE) -> VAE:
    """Refuses a model with parts whose probabilities cannot be coded."""
    finite.check_trained(vae)
    likelihood = vae.likelihood
    values = likelihood.levels or likelihood.support[1] - likelihood.support[0] + 1
    gaussian = (type(vae.prior), type(vae.posterior)) == (priors.StandardNormal, posteriors.DiagonalGaussian)
    if not (gaussian and likelihood.discrete and likelihood.normalized and values <= MOST_VALUES):
        names = [likelihoods.name_of(likelihood), priors.name_of(vae.prior), posteriors.name_of(vae.posterior)]
        raise UserError(
            f"Expected a likelihood of at most {MOST_VALUES} possible values of a pixel, such as bernoulli, the prior "
            f"standard_normal and the posterior diagonal_gaussian. Received {', '.join(names)}."
        )
    return vae
