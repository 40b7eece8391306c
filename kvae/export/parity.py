"""The parity report: the difference between each exported decoder and the Keras model, with a tolerance."""

import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kvae.evaluation.estimate import batches
from kvae.export.endpoints import cycled
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE
from kvae.noise import portable
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream
from kvae.runtime import Decoder, footprint

LATENTS = 4096  # number of z ~ p(z) at which the means are compared
IMAGES = 10_000  # number of samples whose pixels are compared
CHUNK = 1000  # samples that are compared at a time
THREADS = (1, 2)  # numbers of threads with which the costs are measured
Z_TOLERANCE = 1e-4  # of z if it depends on weights of the prior; otherwise z must be the same bit for bit


def errors(reference: Decoder, decoder: Decoder, conditions: np.ndarray | None = None) -> dict[str, Any]:
    """Compares the means and samples of a decoder with those of a reference.

    Args:
        reference: the decoder of the Keras model, or the decoder of a bundle that is closest to it.
        decoder: the decoder that is compared.
        conditions: for a conditional model, examples `[M, ...]`, which are repeated in their order.

    Returns:
        A dictionary that can be written as JSON: `means_error_greatest` and `means_error_mean`, the largest and the
        mean absolute error of the means at 4,096 z ~ p(z); for 10,000 samples, the number of `pixels`, the number of
        them that differ, `pixels_differing`, the largest difference in levels of 0 to 255,
        `pixels_difference_greatest`, and whether all z are the same, `z_identical`; if they are not,
        `z_error_greatest`.
    """
    seeds = portable.seeds(IMAGES, 0)
    condition = cycled(conditions, 0, LATENTS)
    z = reference.sample(seeds[:LATENTS], condition).z
    mean_errors = np.abs(decoder.decode(z, condition).means - reference.decode(z, condition).means)
    differing, greatest, z_error = 0, 0, 0.0
    for start in range(0, IMAGES, CHUNK):
        some, condition = seeds[start : start + CHUNK], cycled(conditions, start, min(start + CHUNK, IMAGES))
        expected, actual = (each.sample(some, condition) for each in (reference, decoder))
        difference = np.abs(expected.images.astype(np.int16) - actual.images)
        differing, greatest = differing + int((difference > 0).sum()), max(greatest, int(difference.max()))
        z_error = max(z_error, float(np.abs(expected.z - actual.z).max()))
    return {
        "means_error_greatest": float(mean_errors.max()),
        "means_error_mean": float(mean_errors.mean()),
        "pixels_differing": differing,
        "pixels_difference_greatest": greatest,
        "pixels": IMAGES * int(np.prod(reference.image_shape)),
        "z_identical": z_error == 0,
        **({"z_error_greatest": z_error} if z_error != 0 else {}),
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


def costs(path: Path, name: str) -> dict[str, Any]:
    """The costs of a decoder, as a dictionary that can be written as JSON.

    Args:
        path: the file or folder of the decoder.
        name: the name of its format.

    Returns:
        `bytes`, its size; `load_seconds` and `peak_memory_mb` with 1 thread; `latency_us` with 1 and with 2 threads.
    """
    measured = {threads: footprint.footprint(path, threads, name) for threads in THREADS}
    return {
        "bytes": size(path),
        "load_seconds": measured[1]["load_seconds"],
        "peak_memory_mb": measured[1]["peak_memory_mb"],
        "latency_us": {f"{threads} threads": cost["latency_us"] for threads, cost in measured.items()},
    }


def size(path: Path) -> int:
    """The size of a file, or of all files in a folder, in bytes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


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
