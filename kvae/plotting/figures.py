"""The kinds of pictures of a model: each computes the arrays that `kvae.plotting.drawing` draws.

`KINDS` is the table of their names, which `kvae plot RUN KIND` and `kvae.training.callbacks.Plots` accept.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvae.completion import Completion, Inferred, article_options, complete
from kvae.data import Data
from kvae.evaluation import quadrature
from kvae.internal import memory
from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.pictures import enlarge, tile
from kvae.internal.tensorflow import tf
from kvae.model import sampling
from kvae.model.posteriors import Distribution
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream
from kvae.plotting import drawing
from kvae.runtime import latent_points

Drawings = dict[str, drawing.Drawing]  # by the name of the file, without its suffix
LATTICE_FRACTION = 2 / 7  # of each side of the prior's region: what a lattice covers
PLANE_FRACTION = 4 / 7  # of each side of the prior's region: what a picture of the plane covers at least
CONTOUR_POINTS = 201  # per side of a grid
DIGIT_PAIRS = (("0", "5"), ("1", "4"), ("2", "9"))


class Unsuitable(UserError):  # noqa: N818 - read as "except figures.Unsuitable"
    """This kind of picture cannot be made of this model or these data, but others can."""


@dataclass(frozen=True)
class Subject:
    """What pictures are made of.

    Attributes:
        vae: a built model.
        data: its data, or None for kinds that do not use them.
        history: the columns of history.csv by name, for `learning_curves`.
        held_out: a name for the data that the `val_...` columns were measured on.
    """

    vae: VAE
    data: Data | None = None
    history: Mapping[str, Any] | None = None
    held_out: str = "validation"

    def test(self) -> Data:
        """The data, for a kind that uses test images; raises `Unsuitable` if there are none."""
        if self.data is None:
            raise Unsuitable("Expected data for this kind of picture. Received none.")
        return self.data


def samples(subject: Subject, *, n: int = 20, seed: int = 0) -> Drawings:
    """Samples from the prior, decoded.

    - `samples`: the means of n samples, above one draw of p(x|z) for each.
    - `samples_grid`: ten samples, one per row, each as its mean and 3 draws.
    - `samples_strip`: draws for ten samples in one row.

    Args:
        subject: with a model.
        n: the number of samples.
        seed: the seed. It gives the same z in all pictures and in `VAE.generate`.
    """
    vae = subject.vae
    drawing.check_size(2 * math.ceil(check_whole("n", n) / 10), 10, vae.image_shape)
    z = sampling.draw_z(vae, 10, seed)
    index = tf.range(10)
    noises = [Keyed(seed, Stream.PICTURES, index, number) for number in range(3)]
    draws = [vae.likelihood.sample(vae.decode(z), noise).numpy() for noise in noises]
    return {
        "samples": drawing.samples(vae.generate_means(n, seed).numpy(), vae.generate(n, seed).numpy()),
        "samples_grid": enlarge(drawing.rows(_means(vae, z), *draws), 480),
        "samples_strip": enlarge(tile(vae.generate(10, seed).numpy(), 10), 1120),
    }


def reconstructions(subject: Subject, *, seed: int = 0) -> Drawings:
    """Test images and their reconstructions.

    - `reconstructions`: 40 test images, above their reconstructions.
    - `reconstructions_draws`: 4 test images, of different classes if they have labels, each with 2 draws of z: in one
      row the image, the mean and a draw of p(x|z).

    Args:
        subject: with data.
        seed: the seed of the draws.
    """
    vae = subject.vae
    x, labels = subject.test().examples("test", 40)
    chosen = np.repeat(np.arange(min(4, len(x))), 2)
    if labels is not None:
        _, firsts = np.unique(labels, return_index=True)
        chosen = np.repeat(np.sort(firsts)[:4], 2)
    index = tf.range(len(chosen))
    z, _ = vae.encode(x[chosen]).sample_and_log_prob(Keyed(seed, Stream.PICTURES, index), 1)
    parameters = vae.decode(z[0])
    columns = {
        "x": x[chosen],
        "means": _clip(vae.likelihood.mean(parameters)),
        "draw": vae.likelihood.sample(parameters, Keyed(seed, Stream.PICTURES, index, 1)).numpy(),
    }
    return {
        "reconstructions": drawing.reconstructions(x, _clip(vae.reconstruct(x, seed=seed))),
        "reconstructions_draws": drawing.titled_columns(columns),
    }


def latent_scatter(subject: Subject, *, n: int = 5000) -> Drawings:
    """The posterior means of test images, coloured by label.

    Args:
        subject: with data that have labels.
        n: the largest number of test images.
    """
    data = subject.test()
    if data.examples("test", 1)[1] is None:
        raise Unsuitable("Expected labels to colour the latent space by. The test images have none; try lattice.")
    x, labels = data.examples("test", check_whole("n", n))
    title = f"posterior means of {len(x):,} test images, {Path(data.info.source).name}"
    mean = np.concatenate([subject.vae.encode(x[start : start + 1000]).mean for start in range(0, len(x), 1000)])
    return {"latent_scatter": drawing.latent_scatter(mean, labels, data.info.label_names, title)}


def lattice(subject: Subject, *, n: int = 20, extent: float | None = None, quantiles: bool = False) -> Drawings:
    """Decoded means on an n x n lattice of the latent plane.

    By default the lattice covers the middle of the prior's region, which is [-2, 2]^2 for a standard normal prior.

    Args:
        subject: with a model of 2 latent dimensions.
        n: the number of points per side.
        extent: covers [-extent, extent]^2 instead.
        quantiles: whether to place the points at quantiles of the prior instead.
    """
    _check_plane(subject.vae)
    values = check_whole("n", n) ** 2 * math.prod(subject.vae.image_shape)
    # the means, a copy of them as a picture, and the picture as bytes
    memory.check(9 * values, f"a lattice of {n:,} x {n:,} images", "Choose a smaller -n.")
    if quantiles and extent is not None:
        raise UserError("Expected either extent or quantiles. Received both.")
    if extent is not None:
        points = latent_points.lattice(n, extent)
    elif quantiles:
        points = latent_points.rows(*[_quantiles(subject.vae, n)] * 2)
    else:
        low, high = subject.vae.prior.region()
        centre, half = (low + high) / 2, LATTICE_FRACTION * (high - low) / 2
        sides = [latent_points.spaced(a, b, n) for a, b in zip(centre - half, centre + half, strict=True)]
        points = latent_points.rows(*sides)
    return {"lattice": drawing.lattice(_means(subject.vae, points))}


def interpolation(
    subject: Subject,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    between: Sequence[tuple[int, int]] = (),
    steps: int = 10,
    spherical: bool = False,
) -> Drawings:
    """Decoded means on a path between the posterior means of two test images, one pair per row.

    Args:
        subject: with data.
        pairs: pairs of classes, by number or name; the first test image of each class is used. By default 0-5, 1-4 and
            2-9 if there are these classes, else the first class with each of the next three.
        between: pairs of indices of test images, instead of `pairs`.
        steps: the number of points on a path, its ends included.
        spherical: whether the path follows a great circle instead of a straight line.
    """
    data, vae = subject.test(), subject.vae
    if between and pairs is not None:
        raise UserError("Expected either pairs of classes or pairs of indices. Received both.")
    if pairs is not None and len(pairs) == 0:
        raise UserError("Expected at least one pair of classes. Received none.")
    if between:
        indices, names = np.array(between), [(f"{a}", f"{b}") for a, b in between]
    else:
        chosen = _default_pairs(data) if pairs is None else pairs
        numbers = [[data.class_number("test", label) for label in pair] for pair in chosen]
        indices = np.array([[data.places_of("test", label)[0] for label in pair] for pair in chosen])
        names = [(data.class_name(first), data.class_name(last)) for first, last in numbers]
    drawing.check_size(len(indices), steps, vae.image_shape)
    mean = np.asarray(vae.encode(data.images_at("test", indices.ravel())).mean).reshape(*indices.shape, -1)
    z = latent_points.path(mean[:, 0], mean[:, 1], steps, spherical).swapaxes(0, 1)
    return {"interpolation": drawing.interpolation(_means(vae, z), names)}


def learning_curves(subject: Subject) -> Drawings:
    """The loss, reconstruction and KL of every epoch, on the training data and on the held-out data."""
    if subject.history is None:
        raise Unsuitable("Expected a history of the training. Received none.")
    return {"learning_curves": drawing.learning_curves(subject.history, subject.held_out)}


def completion(
    subject: Subject,
    *,
    observed: Any = "top",
    places: Sequence[int] | None = None,
    draws: int = 3,
    plain: bool = False,
    seed: int = 0,
) -> Drawings:
    """Test images, completed from their observed pixels.

    Args:
        subject: with data.
        observed: a mask as in `kvae.completion.complete`.
        places: the indices of the test images. By default the first image of each of the first six classes.
        draws: the number of completions per image.
        plain: whether to infer by the gradient descent of the article, `kvae.completion.article_options`.
        seed: the seed of the inference and the draws.
    """
    data = subject.test()
    x = data.images_at("test", _first_of_each_class(data) if places is None else places)
    options = _article_options(subject.vae) if plain else {}
    completed = complete(subject.vae, x, observed, draws=draws, seed=seed, **options)
    return {"completion": completion_rows(x, completed)}


def completion_rows(x: np.ndarray, completed: Completion) -> drawing.Drawing:
    """Completions as a figure: one row per image, with its score.

    Args:
        x: the images, `[B, H, W, C]`; NaN for a pixel that is not known.
        completed: their completions.
    """
    titles = ["" if np.isnan(value) else f"{value:.1f}" for value in completed.score.log_density]
    means = _clip(completed.means), _clip(completed.draw_means)
    return drawing.completion(x, completed.observed, *means, completed.draws, titles)


def posterior_contours(
    subject: Subject, *, observed: Any = "top", places: Sequence[int] = (0,), plain: bool = False, seed: int = 0
) -> Drawings:
    """The true posterior p(z | observed) of one test image, and q before and after the inference.

    Args:
        subject: with data, and a model of 2 latent dimensions.
        observed: a mask as in `kvae.completion.complete`.
        places: the index of the test image, in a sequence of length 1.
        plain: as in `completion`.
        seed: the seed of the inference.
    """
    _check_plane(subject.vae)
    if len(places) != 1:
        raise UserError(f"Expected one test image for posterior_contours. Received {len(places)}.")
    x = subject.test().images_at("test", places)
    options = _article_options(subject.vae) if plain else {}
    completed = complete(subject.vae, x, observed, draws=1, samples=3, seed=seed, **options)
    return {"posterior_contours": contour_panels(subject.vae, x[0], completed.observed[0], completed.inferred)}


def contour_panels(
    vae: VAE, x: np.ndarray, observed: np.ndarray, inferred: Inferred, index: int = 0
) -> drawing.Drawing:
    """The observed image; the latent plane with q before and after the inference; and a closer view of the latter.

    Args:
        vae: a model with 2 latent dimensions.
        x: one image, `[*image]`.
        observed: its mask, `[*image]`.
        inferred: the inferences of a batch of images.
        index: the index of the image in this batch.
    """
    before, after = (_ellipse(q, index) for q in (inferred.start, inferred.q))
    plane = _log_joint_on_window(vae, x, observed, *_plane_bounds(vae, before, after))
    near = _log_joint_on_window(vae, x, observed, *_near_bounds(plane, after))
    steps = inferred.losses.shape[1]
    panels = (
        ("q before the first step", plane, before),
        (f"q after {steps} steps", plane, after),
        ("the same, closer", near, after),
    )
    picture = drawing.mark_missing(x, observed)
    return drawing.posterior_contours(picture, [drawing.ContourPanel(title, window, q) for title, window, q in panels])


def _plane_bounds(vae: VAE, before: drawing.Ellipse, after: drawing.Ellipse) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the middle of the prior's region: two standard deviations of both q are in it if possible."""
    low, high = vae.prior.region()
    centre, half = (low + high) / 2, (high - low) / 2
    needed = max(np.max((np.abs(q.mean - centre) + 2 * q.sigma) / half) for q in (before, after))
    half = half * min(max(float(needed), PLANE_FRACTION), 1.0)
    return centre - half, centre + half


def _near_bounds(plane: drawing.Window, q: drawing.Ellipse) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the square around the lowest contour of the posterior and three standard deviations of q."""
    first, second, log_joint = plane
    inside = np.argwhere(log_joint > log_joint.max() + np.log(drawing.CONTOURS[0]))
    low = np.minimum(q.mean - 3 * q.sigma, [first[inside[:, 1].min()], second[inside[:, 0].min()]])
    high = np.maximum(q.mean + 3 * q.sigma, [first[inside[:, 1].max()], second[inside[:, 0].max()]])
    half = np.max(high - low) / 2 * np.ones(2)
    return (low + high) / 2 - half, (low + high) / 2 + half


KINDS: dict[str, Callable[..., Drawings]] = {
    "samples": samples,
    "reconstructions": reconstructions,
    "latent_scatter": latent_scatter,
    "lattice": lattice,
    "interpolation": interpolation,
    "learning_curves": learning_curves,
    "completion": completion,
    "posterior_contours": posterior_contours,
}


def check_kinds(kinds: Iterable[str]) -> None:
    """Raises `UserError`, with the nearest match, if a name is not in `KINDS`."""
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("kind of plot", kind, KINDS)


def options_of(kind: str) -> set[str]:
    """The names of the options of a kind."""
    return set(inspect.signature(KINDS[kind]).parameters) - {"subject"}


def draw(
    kind: str, subject: Subject, folder: str | Path, *, suffix: str = ".png", label: str = "", **options: Any
) -> list[Path]:
    """Draws one kind of picture and writes it into a folder.

    Args:
        kind: a name in `KINDS`.
        subject: the model, its data and its history.
        folder: the folder for the files.
        suffix: the suffix of the files: `.png`, `.svg` or `.pdf`.
        label: a label to append to the names of the files, for example `epoch_0010`.
        **options: keyword arguments of the kind's function.

    Returns:
        The paths of the files, one or more.

    Raises:
        UserError: if the kind or an option is unknown, or if the files cannot be written.
        Unsuitable: if the kind cannot be made of this model or these data; a `UserError` too.
    """
    check_kinds([kind])
    if subject.vae.condition_shape is not None and kind != "learning_curves":
        raise Unsuitable(
            f"Expected a model without a condition for {kind}. This model needs a condition for every image."
        )
    for option in options:
        if option not in options_of(kind):
            raise unknown(f"option of {kind}", option, options_of(kind))
    drawing.check_suffix(f"{kind}{suffix}")
    if not set(label + suffix).isdisjoint("/\\"):
        raise UserError(f"Expected a label and a suffix of file names. Received {label!r} and {suffix!r}.")
    paths = []
    for name, picture in KINDS[kind](subject, **options).items():
        path = Path(folder) / f"{name}{'_' * bool(label)}{label}{suffix}"
        drawing.save(picture, path)
        paths.append(path)
    return paths


def _means(vae: VAE, z: Any) -> np.ndarray:
    """E[x|z] as pictures: z `[..., D]` -> `[..., H, W, C]`, clipped to [0, 1]."""
    points = np.asarray(z)
    flat = points.reshape(-1, points.shape[-1])
    size = sampling.images_at_once(vae)
    parts = [_clip(vae.likelihood.mean(vae.decode(flat[i : i + size]))) for i in range(0, len(flat), size)]
    return np.concatenate(parts).reshape(*points.shape[:-1], *parts[0].shape[1:])


def _clip(means: Any) -> np.ndarray:
    return np.clip(np.asarray(means), 0, 1)


def _check_plane(vae: VAE) -> None:
    try:
        quadrature.check_plane(vae)
    except UserError as error:
        raise Unsuitable(str(error)) from None


def _quantiles(vae: VAE, n: int) -> np.ndarray:
    try:
        return vae.prior.quantiles(n)
    except UserError as error:
        raise Unsuitable(str(error)) from None


def _ellipse(q: Distribution, index: int) -> drawing.Ellipse:
    """The mean and covariance of q for one image of a batch."""
    covariance = q.covariance
    if covariance is None:
        raise Unsuitable("Expected a q whose covariance is known, to draw its ellipse. This q has none.")
    return drawing.Ellipse(np.asarray(q.mean)[index], np.asarray(covariance)[index])


def _article_options(vae: VAE) -> dict[str, Any]:
    _check_plane(vae)
    return article_options(vae)


def _log_joint_on_window(vae: VAE, x: np.ndarray, observed: np.ndarray, low: Any, high: Any) -> drawing.Window:
    """log p(x_observed, z) on a grid over a window of the latent plane with these corners."""
    first, second = (np.linspace(low[axis], high[axis], CONTOUR_POINTS) for axis in range(2))
    grid = np.stack([part.ravel() for part in np.meshgrid(first, second)], axis=1).astype(np.float32)
    values = quadrature.Integrand(vae, x, observed).log_value(grid)
    return first, second, values.reshape(CONTOUR_POINTS, CONTOUR_POINTS)


def _first_of_each_class(data: Data, classes: int = 6) -> np.ndarray:
    """Indices of the first test image of each of the first classes; of the first images if there are no labels."""
    labels = data.examples("test", min(1000, data.info.sizes["test"]))[1]
    if labels is None:
        return np.arange(min(classes, data.info.sizes["test"]))
    return np.unique(labels, return_index=True)[1][:classes]


def _default_pairs(data: Data) -> list[tuple[str, str]]:
    """0-5, 1-4 and 2-9 if there are these classes, else the first class with each of the next three."""
    labels = data.examples("test")[1]
    if labels is None:
        raise Unsuitable("Expected labels to choose classes by. The test images have none; try pairs of indices.")
    present = [data.class_name(number) for number in np.unique(labels)]
    if {label for pair in DIGIT_PAIRS for label in pair} <= set(present):
        return list(DIGIT_PAIRS)
    return [(present[0], other) for other in present[1:4]] or [(present[0], present[0])]
