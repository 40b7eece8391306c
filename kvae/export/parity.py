"""How far an exported decoder is from the Keras model: measured for every variant, with a tolerance that stops."""

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

LATENTS = 4096  # z ~ p(z) at which the means are compared
IMAGES = 10_000  # samples whose pixels are compared
CHUNK = 1000
THREADS = (1, 2)

Z_TOLERANCE = 1e-4  # of z where the prior's weights take part in it; else z are the same bit for bit


def errors(reference: Decoder, decoder: Decoder, conditions: np.ndarray | None = None) -> dict[str, Any]:
    """The errors of a decoder's means and samples against those of the reference, JSON-ready.

    Args:
        reference: the model, or the decoder that is nearest to it.
        decoder: the other one.
        conditions: examples `[M, ...]` that the images go through, for a model with a condition.

    Returns:
        `means_error_greatest` and `means_error_mean` over 4,096 z ~ p(z); of 10,000 samples, `pixels_differing` of
        `pixels`, `pixels_difference_greatest` in levels of 0 to 255, whether all `z_identical`, and where they are not
        `z_error_greatest`.
    """
    seeds = portable.seeds(IMAGES, 0)
    shown = cycled(conditions, 0, LATENTS)
    z = reference.sample(seeds[:LATENTS], shown).z
    difference = np.abs(decoder.decode(z, shown).means - reference.decode(z, shown).means)
    differing, greatest, z_error = 0, 0, 0.0
    for start in range(0, IMAGES, CHUNK):
        chosen, shown = seeds[start : start + CHUNK], cycled(conditions, start, min(start + CHUNK, IMAGES))
        ours, theirs = (each.sample(chosen, shown) for each in (reference, decoder))
        apart = np.abs(ours.images.astype(np.int16) - theirs.images)
        differing, greatest = differing + int((apart > 0).sum()), max(greatest, int(apart.max()))
        z_error = max(z_error, float(np.abs(ours.z - theirs.z).max()))
    return {
        "means_error_greatest": float(difference.max()),
        "means_error_mean": float(difference.mean()),
        "pixels_differing": differing,
        "pixels_difference_greatest": greatest,
        "pixels": IMAGES * int(np.prod(reference.image_shape)),
        "z_identical": z_error == 0,
        **({"z_error_greatest": z_error} if z_error != 0 else {}),
    }


def elbo_changes(vae: VAE, decoders: Mapping[str, Any], data: Any) -> dict[str, float]:
    """ELBO with each decoder in place of the model's own, minus the model's, in nats: a mean over the examples.

    Args:
        vae: a built model.
        decoders: by name.
        data: a `tf.data.Dataset` of batches, or an array `[N, *image]`.
    """
    totals, count = dict.fromkeys(decoders, 0.0), 0
    for x, condition, place in batches(vae, data):
        draws = vae.draw(x, Keyed(0, Stream.PARITY, place), 1, condition)
        z, own = draws.z[0].numpy(), draws.log_likelihood[0].numpy().astype(np.float64)
        for name, decoder in decoders.items():
            parameters = decoder.decode(z, condition).parameters
            theirs = vae.likelihood.log_prob(x, tf.convert_to_tensor(parameters)).numpy().astype(np.float64)
            totals[name] += float((theirs - own).sum())
        count += int(x.shape[0])
    return {name: total / count for name, total in totals.items()}


def costs(path: Path, name: str) -> dict[str, Any]:
    """`bytes`, and what `kvae.runtime.footprint` measures at 1 and 2 threads, JSON-ready; of a format by its name."""
    found = {threads: footprint.footprint(path, threads, name) for threads in THREADS}
    return {
        "bytes": size(path),
        "load_seconds": found[1]["load_seconds"],
        "peak_memory_mb": found[1]["peak_memory_mb"],
        "latency_us": {f"{threads} threads": cost["latency_us"] for threads, cost in found.items()},
    }


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    found = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in found if file.is_file())


def failures(variant: str, report: Mapping[str, Any], tolerance: Mapping[str, float]) -> list[str]:
    """What is wrong with a variant, a line each; none where it is within its tolerance."""
    found = []
    greatest, change = report["means_error_greatest"], report.get("elbo_change")
    if not greatest <= tolerance["means"]:  # also where it is NaN
        found.append(
            f"{variant}: its means are off by {greatest:.2g}, more than the tolerance of {tolerance['means']:g}"
        )
    if change is not None and not abs(change) <= tolerance["elbo"]:
        found.append(f"{variant}: the test ELBO changes by {change:.3g} nats, more than {tolerance['elbo']:g}")
    if not report["z_identical"]:
        z_error = report.get("z_error_greatest", math.inf)
        if not z_error <= tolerance.get("z", 0.0):
            found.append(f"{variant}: its z are not those of the Keras model, but off by up to {z_error:.2g}")
    return found


def machine() -> str:
    """Where the costs were measured."""
    return f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
