"""The priors of kvae's web page, computed with NumPy: what `kvae/web/prior.js` computes in the browser.

A prior is a dictionary with its `kind` and its arrays. `kvae.export.web_prior` makes it from a prior of a model.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kvae.noise.portable import Portable
from kvae.noise.streams import Stream
from kvae.runtime import plain_network

Prior = Mapping[str, Any]
UNITS = 2**24  # the components of a mixture share the whole numbers below it by their weights
MOST_LOG_SCALE = 2.0  # of one coupling


def check(prior: Prior, latent_dim: int) -> None:
    """Raises `ValueError` if the arrays of a prior do not fit each other, or its kind is not known."""
    if prior["kind"] not in KINDS:
        raise ValueError("its prior is not known")
    if prior["kind"] == "mixture":
        ends, shape = prior["ends"], (len(prior["ends"]), latent_dim)
        whole = ends.ndim == 1 and ends[-1] == UNITS and (np.diff(ends, prepend=0) >= 0).all()
        if not whole or prior["means"].shape != shape or prior["deviations"].shape != shape:
            raise ValueError("the components of its prior do not fit")
    for coupling in prior.get("couplings", ()):
        kept, layers = coupling["kept"], coupling["layers"]
        sides = (layers[0]["input"], layers[-1]["output"])
        if len(kept) != latent_dim or not set(kept) <= {0, 1} or sides != ([latent_dim], [2 * latent_dim]):
            raise ValueError("the couplings of its prior do not fit")


def draw(prior: Prior, noise: Portable, latent_dim: int) -> np.ndarray:
    """z ~ p(z), `[n, D]` float32."""
    return KINDS[prior["kind"]](prior, noise, noise.normal((latent_dim,), Stream.LATENT))


def _mixture(prior: Prior, noise: Portable, numbers: np.ndarray) -> np.ndarray:
    """A Gaussian of a component that is chosen by comparing whole numbers."""
    number = (noise.uniform((), Stream.CHOICE) * np.float32(UNITS)).astype(np.int32)
    component = (number[:, None] >= prior["ends"]).sum(axis=1)
    return prior["means"][component] + prior["deviations"][component] * numbers


def _couplings(prior: Prior, noise: Portable, z: np.ndarray) -> np.ndarray:
    """Affine couplings; each keeps some coordinates, from which it computes what it does to the others."""
    for coupling in prior["couplings"]:
        kept = np.array(coupling["kept"], np.float32)
        scale, shift = np.split(plain_network.run(coupling["layers"], z * kept), 2, axis=1)
        log_scale = np.float32(MOST_LOG_SCALE) * np.tanh(scale / np.float32(MOST_LOG_SCALE))
        z = z * np.exp((1 - kept) * log_scale) + (1 - kept) * shift
    return z


KINDS: dict[str, Callable[[Prior, Portable, np.ndarray], np.ndarray]] = {
    "standard_normal": lambda prior, noise, numbers: numbers,
    "mixture": _mixture,
    "couplings": _couplings,
}
