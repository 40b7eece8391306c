"""The parity report: the difference between each exported decoder and the Keras model, with a tolerance."""

import math
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.estimate import batches
from kvae.export.endpoints import cycled
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE
from kvae.noise import portable
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream
from kvae.runtime import Decoder, footprint, formats

LATENTS = 4096  # number of z ~ p(z) at which the means are compared, at most
IMAGES = 10_000  # number of samples whose pixels are compared, at most
SIZE = 28 * 28  # pixels of the images for which the tolerances of the ELBO are stated
PIXELS = IMAGES * SIZE  # in these samples
PIXELS_OF_LARGER = PIXELS // 2  # in samples of larger images, whose decoders also take longer for a pixel
LEAST = 100  # samples of the largest images
QUICK = 10  # times as few samples are compared in a quick export
CHUNK = 1000  # samples that are compared at a time
THREADS = (1, 2)  # numbers of threads with which the costs are measured, if a process can have several
Z_TOLERANCE = 1e-4  # of z if it depends on weights of the prior; otherwise z must be the same bit for bit


class Counts(NamedTuple):
    """How much is compared."""

    latents: int  # z at which the means are compared
    images: int  # samples whose pixels are compared


def counts(image_shape: Iterable[int], *, quick: bool = False) -> Counts:
    """How much is compared of a model: fewer images if they are larger, because their decoding takes longer.

    Args:
        image_shape: the shape of one image.
        quick: whether to compare a tenth of it. False by default.
    """
    size = math.prod(image_shape)
    images = max(LEAST, (PIXELS if size <= SIZE else PIXELS_OF_LARGER) // size) // (QUICK if quick else 1)
    return _of_images(min(IMAGES // (QUICK if quick else 1), images))


def stated_counts(variants: Mapping[str, Any], image_shape: Iterable[int]) -> Counts:
    """How much was compared according to the `variants` of a model card, which state the number of pixels.

    A number that no export can have compared is not used: it would make the comparison say nothing, or last long.
    """
    size = math.prod(image_shape)
    stated = [variant.get("pixels") for variant in variants.values()]
    images = [pixels // size for pixels in stated if type(pixels) is int and pixels % size == 0]
    possible = [number for number in images if LEAST // QUICK <= number <= IMAGES]
    return _of_images(max(possible)) if possible else counts(image_shape)


def _of_images(images: int) -> Counts:
    """Counts of z and of images, which always have the same ratio."""
    return Counts(max(1, LATENTS * images // IMAGES), images)


def errors(
    reference: Decoder, decoders: Mapping[str, Decoder], compared: Counts, conditions: np.ndarray | None = None
) -> dict[str, dict[str, Any]]:
    """Compares the means and samples of decoders with those of a reference, which is computed once for all of them.

    Args:
        reference: the decoder of the Keras model, or the decoder of a bundle that is closest to it.
        decoders: the decoders that are compared, by name.
        compared: how much is compared.
        conditions: for a conditional model, examples `[M, ...]`, which are repeated in their order.

    Returns:
        For each name a dictionary that can be written as JSON: `means_error_greatest` and `means_error_mean`, the
        largest and the mean absolute error of the means at the z of the first samples; for all, the number of `pixels`,
        the number of them that differ, `pixels_differing`, the largest difference in levels of 0 to 255,
        `pixels_difference_greatest`, and whether all z are the same, `z_identical`; if they are not,
        `z_error_greatest`.
    """
    seeds = portable.seeds(compared.images, 0)
    mean_total, mean_greatest, differing, greatest, z_error = (dict.fromkeys(decoders, 0.0) for _ in range(5))
    size = math.prod(reference.image_shape)
    for start in range(0, compared.images, CHUNK):
        some = seeds[start : start + CHUNK]
        condition = cycled(conditions, start, start + len(some))
        expected = reference.sample(some, condition)
        z = expected.z[: max(0, compared.latents - start)]
        decoded = (z, None if condition is None else condition[: len(z)])
        means = reference.decode(*decoded).means if len(z) else None
        for name, decoder in decoders.items():
            actual = decoder.sample(some, condition)
            difference = np.abs(expected.images.astype(np.int16) - actual.images)
            differing[name] += int((difference > 0).sum())
            greatest[name] = max(greatest[name], int(difference.max()))
            z_error[name] = max(z_error[name], float(np.abs(expected.z - actual.z).max()))
            if means is not None:
                error = np.abs(decoder.decode(*decoded).means - means)
                mean_total[name] += float(error.sum(dtype=np.float64))
                mean_greatest[name] = float(np.maximum(mean_greatest[name], error.max()))  # NaN if one of them is
    return {
        name: {
            "means_error_greatest": mean_greatest[name],
            "means_error_mean": mean_total[name] / (compared.latents * size),
            "pixels_differing": int(differing[name]),
            "pixels_difference_greatest": int(greatest[name]),
            "pixels": compared.images * size,
            "z_identical": z_error[name] == 0,
            **({"z_error_greatest": z_error[name]} if z_error[name] != 0 else {}),
        }
        for name in decoders
    }


def elbo_changes(vae: VAE, decoders: Mapping[str, Any], data: Any) -> dict[str, float]:
    """The ELBO with each decoder in place of the model's decoder, minus the model's ELBO.

    Args:
        vae: a built model.
        decoders: the decoders by name.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).

    Returns:
        For each name, the mean difference over the images, in nats.

    Raises:
        UserError: if there are no data, or if they do not fit the model.
    """
    totals, count = dict.fromkeys(decoders, 0.0), 0
    for x, condition, index in batches(vae, data):
        draws = vae.draw(x, Keyed(0, Stream.PARITY, index), 1, condition)
        z, expected = draws.z[0].numpy(), draws.log_likelihood[0].numpy().astype(np.float64)
        for name, decoder in decoders.items():
            parameters = decoder.decode(z, condition).parameters
            actual = vae.likelihood.log_prob(x, tf.convert_to_tensor(parameters)).numpy().astype(np.float64)
            totals[name] += float((actual - expected).sum())
        count += int(x.shape[0])
    return {name: total / count for name, total in totals.items()}


def costs(path: Path, name: str, threads: Iterable[int] = THREADS) -> dict[str, Any]:
    """The costs of a decoder, as a dictionary that can be written as JSON.

    Args:
        path: the file or folder of the decoder.
        name: the name of its format.
        threads: the numbers of threads with which it is called, of which the first is 1. 1 and 2 by default. If all
            decoders of a process have the same number, as those of TensorFlow, only the first is used: a process for
            every number would take seconds.

    Returns:
        `bytes`, its size, and what `kvae.runtime.footprint.footprint` returns.
    """
    counts = list(threads) if formats.find(name).own_threads else list(threads)[:1]
    return {"bytes": size(path), **footprint.footprint(path, counts, name)}


def size(path: Path) -> int:
    """The size of a file, or of all files in a folder, in bytes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def tolerance_for(image_shape: Iterable[int], tolerance: Mapping[str, float]) -> dict[str, float]:
    """The largest permitted errors for images of a shape: that of the ELBO grows with the number of their pixels."""
    return {**tolerance, "elbo": tolerance["elbo"] * max(1.0, math.prod(image_shape) / SIZE)}


def failures(variant: str, report: Mapping[str, Any], tolerance: Mapping[str, float]) -> list[str]:
    """One line for each error of a variant that exceeds its tolerance.

    Args:
        variant: the name of the variant.
        report: the result of `errors`, with `elbo_change` if it was measured.
        tolerance: the largest permitted errors: `means`, `elbo` in nats, and `z`, which is 0 by default.
    """
    result = []
    greatest, change = report["means_error_greatest"], report.get("elbo_change")
    if not greatest <= tolerance["means"]:  # also true for NaN
        result.append(
            f"{variant}: its means differ by {greatest:.2g}, more than the tolerance of {tolerance['means']:g}"
        )
    if change is not None and not abs(change) <= tolerance["elbo"]:
        result.append(f"{variant}: the test ELBO changes by {change:.3g} nats, more than {tolerance['elbo']:g}")
    if not report["z_identical"]:
        z_error = report.get("z_error_greatest", math.inf)
        if not z_error <= tolerance.get("z", 0.0):
            result.append(f"{variant}: its z differ from those of the Keras model by up to {z_error:.2g}")
    return result


def machine() -> str:
    """The machine on which the costs are measured."""
    return f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
