"""Everything that draws arrays, and `save`. Neither this module nor those that it collects know models.

| picture | module |
|---|---|
| samples, reconstructions, interpolations, completions | `sheets.py` |
| scatter, lattice, one over the other | `latent_plane.py` |
| contours of the posterior and of q | `contours.py` |
| learning curves | `curves.py` |
| files, and what all pictures share | `canvas.py`, `colours.py`, `words.py` |
"""

from kvae.plotting.canvas import DPI, Drawing, check_size, check_suffix, save
from kvae.plotting.colours import COLOURS, MARKERS, MISSING
from kvae.plotting.contours import CONTOURS, ContourPanel, Ellipse, Window, missed_modes, posterior_contours
from kvae.plotting.curves import learning_curves
from kvae.plotting.latent_plane import (
    latent_scatter,
    lattice,
    lattice_frame,
    lattice_with_axes,
    principal_components,
    scatter_over_lattice,
)
from kvae.plotting.sheets import (
    completion,
    interpolation,
    mark_missing,
    reconstructions,
    rows,
    samples,
    sheets,
    titled_columns,
)
from kvae.plotting.words import Figure

__all__ = [
    "COLOURS", "CONTOURS", "DPI", "MARKERS", "MISSING", "ContourPanel", "Drawing", "Ellipse", "Figure", "Window",
    "check_size", "check_suffix", "completion", "interpolation", "latent_scatter", "lattice", "lattice_frame",
    "lattice_with_axes", "learning_curves", "mark_missing", "missed_modes", "posterior_contours",
    "principal_components", "reconstructions", "rows", "samples", "save", "scatter_over_lattice", "sheets",
    "titled_columns",
]  # fmt: skip
