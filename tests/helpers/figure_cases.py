"""Every kind of figure with its files and options, and the data that figures are drawn of."""

import numpy as np
from scipy import special

HISTORY = {"epoch": [1, 2], "loss": [9.0, 8.0], "reconstruction": [8.0, 6.0], "kl": [1.0, 2.0]}
FILES = {
    "samples": ["samples", "samples_grid", "samples_strip"],
    "reconstructions": ["reconstructions", "reconstructions_draws"],
    "latent_scatter": ["latent_scatter"],
    "lattice": ["lattice"],
    "map": ["map"],
    "interpolation": ["interpolation"],
    "outliers": ["outliers"],
    "learning_curves": ["learning_curves"],
    "completion": ["completion"],
    "posterior_contours": ["posterior_contours"],
}
OPTIONS = {
    "samples": {"n", "seed"},
    "reconstructions": {"seed"},
    "latent_scatter": {"n"},
    "lattice": {"n", "extent", "quantiles", "seamless"},
    "map": {"n", "extent"},
    "interpolation": {"pairs", "between", "steps", "spherical"},
    "outliers": {"n", "samples", "seed"},
    "learning_curves": set(),
    "completion": {"observed", "places", "draws", "plain", "seed"},
    "posterior_contours": {"observed", "places", "plain", "seed"},
}
SHAPES = {"odd": (9, 13), "colour": (8, 6, 3), "tiny": (3, 4), "one class": (3, 4), "unlabelled": (3, 4)}
LABELS = np.array([2, 0, 2, 1, 1, 0, 2, 1])  # of the test images, except those of mnist5k
# A matrix product of another batch size rounds differently: some eps of float32 of numbers in [0, 1].
PIXEL_ROUNDING = {"rtol": 0, "atol": 1e-6}


def decoded(vae, z) -> np.ndarray:
    return special.expit(np.float64(vae.decode(np.asarray(z, np.float32))))


def first_places(labels: np.ndarray) -> dict[int, int]:
    """The place of the first image of every class."""
    return {int(label): int(np.argmax(labels == label)) for label in sorted(set(labels.tolist()))}
