"""The web page: one HTML file with a decoder, its weights and the code that runs it, which needs no network.

The code is in `kvae/web`; docs/WEB.md lists its files. The content security policy of the page permits its script and
its style by their hash, and nothing else.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae.export import endpoints, quantization
from kvae.export.web_network import Arrays, encoder, layers_of, network, unknown_layers
from kvae.export.web_prior import prior, unknown_prior
from kvae.internal.errors import UserError
from kvae.model import likelihoods, sampling
from kvae.model.posteriors import DiagonalGaussian
from kvae.model.vae import VAE
from kvae.noise import portable
from kvae.runtime.web import LIKELIHOODS, VARIANTS, VERSION, WebDecoder

TOLERANCES = {"web_int8": {"means": 0.1, "elbo": 1.0}, "web_float32": {"means": 1e-4, "elbo": 0.01}}
PURPOSES = {
    "web_int8": "people: a page that opens in a browser by a double click, without a network",
    "web_float32": "people: the same page, as exact as the Keras model",
}
# By the documentation of browsers: worker-src of a content security policy (Safari), CSS aspect-ratio (the others).
BROWSERS = {"Chrome": "88", "Edge": "88", "Firefox": "89", "Safari": "15.5"}
POINTS = 5000  # encoded images in the plane, at most
MARGIN = 1.15  # of the side of the plane that is shown, beside the encoded images in it
ENGINE = (
    "runtime.js",
    "prior.js",
    "inference.js",
    "sampling.js",
    "completion.js",
    "worker.js",
)  # the script of the worker
PAGE = ("page.js", "plane.js", "samples.js", "masking.js", "start.js")  # the script of the page
STEPS = 2**16 - 1  # of a coordinate of an encoded image


class About(NamedTuple):
    """What a page says of its model, beside the decoder."""

    name: str | None = None
    description: str | None = None
    means: np.ndarray | None = None  # [N, D], posterior means of test images
    labels: np.ndarray | None = None  # [N], their classes; -1 for an image without a label
    label_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None  # of a conditional model, those of its condition, if they are known
    kl_per_dimension: list[float] | None = None  # [D] nats, by which the dimensions are ordered
    digits: bool = False  # whether the data were centred and scaled as MNIST


def unknown(vae: VAE) -> list[str]:
    """What the page cannot compute or show of a model, in words; nothing if it can have a page."""
    found = unknown_layers(vae.decoder)
    found += unknown_prior(vae)
    if likelihoods.LIKELIHOODS.get(_likelihood(vae)) is not type(vae.likelihood) or _likelihood(vae) not in LIKELIHOODS:
        found.append(f"the likelihood {type(vae.likelihood).__name__}")
    shape: tuple[int, ...] = vae.image_shape or ()
    if not (len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))):
        found.append(f"images of shape {shape}")
    if vae.condition_shape is not None and len(vae.condition_shape) != 1:
        found.append(f"a condition of shape {vae.condition_shape}, which is not a class")
    return found


def check(vae: VAE) -> None:
    """Raises `UserError` if the page does not know a layer of the decoder, or another part of the model."""
    found = unknown(vae)
    if found:
        raise UserError(
            "Expected a model that the web page knows: an MLPDecoder, a ConvDecoder, or a keras.Sequential of dense, "
            "convolutional and similar layers, with a likelihood and a prior that docs/WEB.md lists. "
            f"Received {', '.join(found)}."
        )


def write(vae: VAE, folder: Path, variants: Iterable[str], conditions: Any = None, about: About | None = None) -> None:
    """Writes the pages of a bundle.

    Args:
        vae: a built model.
        folder: the folder of the bundle.
        variants: names in `kvae.runtime.web.VARIANTS`: the type of the weights.
        conditions: for a conditional model, examples of the condition `[M, C]`; by default every class once.
        about: what the page says of the model.

    Raises:
        UserError: as in `check`.
    """
    check(vae)
    for variant in variants:
        path = folder / VARIANTS[variant]
        path.parent.mkdir(exist_ok=True)
        path.write_text(page(vae, variant, about or About(), conditions), encoding="utf-8")


def describe(variant: str, decoder: WebDecoder) -> dict[str, Any]:
    """What a model card states of a page for those who use it; arguments as in `kvae.export.Format`."""
    return {
        "purpose": PURPOSES[variant],
        "least_runtime": dict(BROWSERS),
        "least_runtime_is": "the first that have what the page uses, by their documentation; only Chromium was tried",
        "signatures": [],
    }


def page(vae: VAE, variant: str, about: About, conditions: Any = None) -> str:
    """The page as HTML. Arguments as in `write`."""
    arrays, int8, count = Arrays(), variant == "web_int8", quantization.examples(vae.image_shape)
    if vae.condition_shape is not None and conditions is None:
        conditions = np.eye(vae.condition_shape[0], dtype=np.float32)
    condition = endpoints.cycled(conditions, 0, count)
    z = sampling.draw_z(vae, count, 1, condition).numpy()
    log_variance = getattr(vae.likelihood, "log_variance", None)
    decoder = network(layers_of(vae.decoder) or [], z, arrays, int8, condition)
    facts = {
        "format": VERSION,
        "name": about.name,
        "description": about.description,
        "latent_dim": vae.latent_dim,
        "image_shape": list(vae.image_shape),
        **_classes(vae, about),
        **prior(vae, z, arrays),
        "weights": "int8" if any("scales" in layer.get("kernel", ()) for layer in decoder) else "float32",
        "likelihood": {
            "name": _likelihood(vae),
            "binary": vae.likelihood.binary,
            **({} if log_variance is None else {"variance": float(np.exp(np.float64(log_variance)))}),
        },
        "quantiles": arrays.add(portable._QUANTILES, "int32"),
        "decoder": decoder,
        **_encoder(vae, arrays, int8, condition),
        "order": _order(vae.latent_dim, about.kl_per_dimension),
        "kl_per_dimension": about.kl_per_dimension,
        "digits": about.digits,
        **_plane(vae, about, z, arrays),
    }
    return assembled(facts, arrays.content())


def assembled(facts: dict[str, Any], arrays: bytes) -> str:
    """A page from its template, with a policy that permits its own script and style by their hashes, and a worker."""
    # "<" could end the script element; in JSON it can be written in another way.
    description = json.dumps(facts, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "engine": "\n" + "".join(map(_asset, ENGINE)),
        "page": "\n" + "".join(map(_asset, PAGE)),
        "style": "\n" + _asset("style.css"),
    }
    hashes = {name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for name, text in parts.items()}
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['page']}'; style-src 'sha256-{hashes['style']}'; "
        "worker-src blob:; base-uri 'none'; form-action 'none'"
    )
    values = {**parts, "policy": policy, "model": description, "arrays": base64.b64encode(arrays).decode()}
    pieces = _asset("page.html").split("%%")  # text, name, text, name, ..., text
    return "".join(values[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def _asset(name: str) -> str:
    return (resources.files("kvae") / "web" / name).read_text(encoding="utf-8")


def _likelihood(vae: VAE) -> str:
    return likelihoods.name_of(vae.likelihood)


def _classes(vae: VAE, about: About) -> dict[str, Any]:
    """The classes of a conditional model, with their names or None. Any vector is taken for that of a class."""
    if vae.condition_shape is None:
        return {}
    names = None if about.class_names is None else list(about.class_names)
    return {"classes": {"count": vae.condition_shape[0], "names": names}}


def _encoder(vae: VAE, arrays: Arrays, int8: bool, condition: np.ndarray | None) -> dict[str, Any]:
    """The encoder, which the page needs for completions if it cannot integrate over a plane, and if it knows it."""
    if vae.latent_dim == 2 or type(vae.posterior) is not DiagonalGaussian:
        return {}
    found = encoder(vae.encoder, vae.image_shape, arrays, int8, None if condition is None else condition[:1])
    return {} if found is None else {"encoder": found}


def _order(latent_dim: int, kl: list[float] | None) -> list[int]:
    """The order of the sliders: of more than 2 dimensions, that with the largest KL term first, if it is known."""
    return (
        list(range(latent_dim))
        if kl is None or latent_dim <= 2
        else np.argsort(-np.asarray(kl), kind="stable").tolist()
    )


def _plane(vae: VAE, about: About, z: np.ndarray, arrays: Arrays) -> dict[str, Any]:
    """The square of the latent plane that is shown, and the encoded images in it, for models of 2 dimensions.

    The place where the page begins is in it, even if a model was trained so little that all images are elsewhere.
    Without encoded images it is the square of the draws z from a learned prior.
    """
    if vae.latent_dim != 2:
        return {}
    means = about.means
    if means is None or not np.isfinite(means).all() or not np.ptp(means, axis=0).any():
        low, high = (np.full(2, -3.0), np.full(2, 3.0)) if vae.prior.exact else _square(z, z.mean(axis=0))
        return {"plane": {"low": low.tolist(), "high": high.tolist()}}
    means = np.asarray(means[:POINTS], np.float64)
    low, high = _square(means, np.zeros(2) if vae.prior.exact else z.mean(axis=0))
    inside = ((means >= low) & (means <= high)).all(axis=1)
    places = np.rint((means[inside] - low) / (high - low) * STEPS)
    plane = {"low": low.tolist(), "high": high.tolist(), "points": arrays.add(places, "uint16")}
    if about.labels is not None:
        labels = np.asarray(about.labels[:POINTS])[inside]
        known, numbers = np.unique(labels, return_inverse=True)
        if vae.condition_shape is not None:  # the numbers are those of the condition
            known, numbers = np.arange(vae.condition_shape[0]), labels
        if len(known) <= 2**8:
            names = about.label_names or about.class_names or ()
            plane["labels"] = arrays.add(numbers, "uint8")
            plane["classes"] = [_class(label, names) for label in known.tolist()]
    return {"plane": plane}


def _square(points: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a square around nearly all of some points of the plane, and around the point `start`."""
    low, high = np.percentile(np.asarray(points, np.float64), [1, 99], axis=0)
    ends = np.stack([np.minimum(low, start), np.maximum(high, start)])
    centre, half = ends.mean(axis=0), MARGIN * np.ptp(ends, axis=0).max() / 2
    return centre - half, centre + half


def _class(label: int, names: tuple[str, ...]) -> str:
    """The name of a class, for people."""
    if label < 0:
        return "without a class"
    return names[label] if label < len(names) else str(label)
