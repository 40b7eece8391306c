"""What each kind of picture shows of a model: from a model and its data to the arrays that `kvae.plotting.plots` draws.

`KINDS` names them all; `kvae plot RUN KIND` and `kvae.training.callbacks.Plots` draw by these names.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvae.completion import Completion, Inferred, article_options, complete
from kvae.data import Data
from kvae.evaluation import quadrature
from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.pictures import enlarge, tile
from kvae.internal.tensorflow import tf
from kvae.model.posteriors import Distribution
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream
from kvae.plotting import plots
from kvae.runtime import latent

Drawings = dict[str, plots.Drawing]  # by the name of the file, without its suffix
SHOWN = 2 / 7  # of the prior's region, which a lattice spans
WINDOW = 4 / 7  # of the prior's region, which a picture of the plane spans at least
CONTOUR_POINTS = 201  # a side
DIGIT_PAIRS = (("0", "5"), ("1", "4"), ("2", "9"))


class Unsuitable(UserError):  # noqa: N818 - read as "except figures.Unsuitable"
    """This kind of picture cannot be made of this model or these data; others can."""


@dataclass(frozen=True)
class Subject:
    """What pictures are made of.

    Attributes:
        vae: a built model.
        data: its data, or None where the kind does not look at them.
        history: columns of history.csv, for `learning_curves`.
        held_out: what the `val_...` columns were measured on.
    """

    vae: VAE
    data: Data | None = None
    history: Mapping[str, Any] | None = None
    held_out: str = "validation"

    def test(self) -> Data:
        if self.data is None:
            raise Unsuitable("Expected data for this kind of picture. Received none.")
        return self.data


def samples(subject: Subject, *, n: int = 20, seed: int = 0) -> Drawings:
    """n prior samples as means above draws; ten, a row each, as means followed by 3 draws; ten draws in a strip.

    The same seed gives the same z in all of them, those of `VAE.generate`.
    """
    vae = subject.vae
    check_whole("n", n)
    z = vae.sample_prior(10, seed)
    index = tf.range(10)
    noises = [Keyed(seed, Stream.PICTURES, index, number) for number in range(3)]
    draws = [vae.likelihood.sample(vae.decode(z), noise).numpy() for noise in noises]
    return {
        "samples": plots.samples(vae.generate_means(n, seed).numpy(), vae.generate(n, seed).numpy()),
        "samples_grid": enlarge(plots.rows(_means(vae, z), *draws), 480),
        "samples_strip": enlarge(tile(vae.generate(10, seed).numpy(), 10), 1120),
    }


def reconstructions(subject: Subject, *, seed: int = 0) -> Drawings:
    """40 test images above their reconstructions; and 4 test images with 2 latent draws each: x, means, a draw."""
    vae = subject.vae
    x, labels = subject.test().examples("test", 40)
    chosen = np.repeat(np.arange(min(4, len(x))), 2)
    if labels is not None:  # of different classes, where there are some
        _, firsts = np.unique(labels, return_index=True)
        chosen = np.repeat(np.sort(firsts)[:4], 2)
    index = tf.range(len(chosen))
    z, _ = vae.encode(x[chosen]).sample_and_log_prob(Keyed(seed, Stream.PICTURES, index), 1)
    parameters = vae.decode(z[0])
    columns = {
        "x": x[chosen],
        "means": _clipped(vae.likelihood.mean(parameters)),
        "draw": vae.likelihood.sample(parameters, Keyed(seed, Stream.PICTURES, index, 1)).numpy(),
    }
    return {
        "reconstructions": plots.reconstructions(x, _clipped(vae.reconstruct(x, seed=seed))),
        "reconstructions_draws": plots.titled_columns(columns),
    }


def latent_scatter(subject: Subject, *, n: int = 5000) -> Drawings:
    """Posterior means of n test images by label."""
    data = subject.test()
    if data.examples("test", 1)[1] is None:
        raise Unsuitable("Expected labels to colour the latent space by. The test images have none; try lattice.")
    x, labels = data.examples("test", check_whole("n", n))
    title = f"posterior means of {len(x):,} test images, {Path(data.info.source).name}"
    mean = np.concatenate([subject.vae.encode(x[start : start + 1000]).mean for start in range(0, len(x), 1000)])
    return {"latent_scatter": plots.latent_scatter(mean, labels, data.info.label_names, title)}


def lattice(subject: Subject, *, n: int = 20, extent: float | None = None, quantiles: bool = False) -> Drawings:
    """Decoded means of an n x n lattice: of [-extent, extent]^2, of equal prior probability, or by default of the
    middle of the prior's region, which is [-2, 2]^2 for a standard normal."""
    _check_plane(subject.vae)
    if quantiles and extent is not None:
        raise UserError("Expected either extent or quantiles. Received both.")
    if extent is not None:
        points = latent.lattice(n, extent)
    elif quantiles:
        points = latent.rows(*[_quantiles(subject.vae, check_whole("n", n))] * 2)
    else:
        low, high = subject.vae.prior.region()
        middle, half = (low + high) / 2, SHOWN * (high - low) / 2
        sides = [latent.spaced(a, b, check_whole("n", n)) for a, b in zip(middle - half, middle + half, strict=True)]
        points = latent.rows(*sides)
    return {"lattice": plots.lattice(_means(subject.vae, points))}


def interpolation(
    subject: Subject,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    between: Sequence[tuple[int, int]] = (),
    steps: int = 10,
    spherical: bool = False,
) -> Drawings:
    """Decoded means between the posterior means of two test images, a row a pair.

    Args:
        subject: with data.
        pairs: of classes, by number or name: the first test image of each; 0-5, 1-4 and 2-9 by default.
        between: pairs of places of test images, instead.
        steps: from the one to the other, both included.
        spherical: along great circles.
    """
    data, vae = subject.test(), subject.vae
    if between and pairs is not None:
        raise UserError("Expected either pairs of classes or pairs of places. Received both.")
    if pairs is not None and len(pairs) == 0:
        raise UserError("Expected at least one pair to go between. Received none.")
    if between:
        places, names = np.array(between), [(f"{a}", f"{b}") for a, b in between]
    else:
        chosen = _default_pairs(data) if pairs is None else pairs
        numbers = [[data.class_number("test", label) for label in pair] for pair in chosen]
        places = np.array([[data.places_of("test", label)[0] for label in pair] for pair in chosen])
        names = [(data.class_name(first), data.class_name(last)) for first, last in numbers]
    mean = np.asarray(vae.encode(data.images_at("test", places.ravel())).mean).reshape(*places.shape, -1)
    z = latent.path(mean[:, 0], mean[:, 1], steps, spherical).swapaxes(0, 1)
    return {"interpolation": plots.interpolation(_means(vae, z), names)}


def learning_curves(subject: Subject) -> Drawings:
    """Loss, reconstruction and KL over the epochs, training and held out."""
    if subject.history is None:
        raise Unsuitable("Expected a history of the training. Received none.")
    return {"learning_curves": plots.learning_curves(subject.history, subject.held_out)}


def completion(
    subject: Subject,
    *,
    observed: Any = "top",
    places: Sequence[int] | None = None,
    draws: int = 3,
    plain: bool = False,
    seed: int = 0,
) -> Drawings:
    """Test images completed from what is observed of them: by default the first of each of the first six classes.

    Args:
        subject: with data.
        observed: a mask, as in `kvae.completion.complete`.
        places: of the test images.
        draws: completions an image.
        plain: infer by the article's plain gradient descent, `kvae.completion.article_options`.
        seed: of the inference and the draws.
    """
    data = subject.test()
    x = data.images_at("test", _one_a_class(data) if places is None else places)
    options = _article_options(subject.vae) if plain else {}
    found = complete(subject.vae, x, observed, draws=draws, seed=seed, **options)
    return {"completion": completion_rows(x, found)}


def completion_rows(x: np.ndarray, found: Completion) -> plots.Drawing:
    """Completions as a figure, a row an image, with its score."""
    titles = ["" if np.isnan(value) else f"{value:.1f}" for value in found.score.log_density]
    means = _clipped(found.means), _clipped(found.draw_means)
    return plots.completion(x, found.observed, *means, found.draws, titles)


def posterior_contours(
    subject: Subject, *, observed: Any = "top", places: Sequence[int] = (0,), plain: bool = False, seed: int = 0
) -> Drawings:
    """The true posterior of a test image's z given its observed pixels, and q before and after the inference.

    Arguments as in `completion`, but `places` is of one test image.
    """
    _check_plane(subject.vae)
    if len(places) != 1:
        raise UserError(f"Expected one test image for posterior_contours. Received {len(places)}.")
    x = subject.test().images_at("test", places)
    options = _article_options(subject.vae) if plain else {}
    found = complete(subject.vae, x, observed, draws=1, samples=3, seed=seed, **options)
    return {"posterior_contours": contour_panels(subject.vae, x[0], found.observed[0], found.inferred)}


def contour_panels(vae: VAE, x: np.ndarray, observed: np.ndarray, inferred: Inferred, number: int = 0) -> plots.Drawing:
    """The observed image; the plane with q at the start and at the end of the inference; and the latter from near.

    Args:
        vae: of 2 latent dimensions.
        x: one image, `[*image]`.
        observed: its mask, `[*image]`.
        inferred: for a batch.
        number: of the image in that batch.
    """
    before, after = (_ellipse(q, number) for q in (inferred.start, inferred.q))
    low, high = vae.prior.region()
    middle, half = (low + high) / 2, (high - low) / 2
    reach = max(np.max((np.abs(q.mean - middle) + 2 * q.sigma) / half) for q in (before, after))
    half = half * min(max(float(reach), WINDOW), 1.0)
    plane = _window(vae, x, observed, middle - half, middle + half)
    inside = np.argwhere(plane[2] > plane[2].max() + np.log(plots.CONTOURS[0]))
    sigma = after.sigma
    low = np.minimum(after.mean - 3 * sigma, [plane[0][inside[:, 1].min()], plane[1][inside[:, 0].min()]])
    high = np.maximum(after.mean + 3 * sigma, [plane[0][inside[:, 1].max()], plane[1][inside[:, 0].max()]])
    half = np.max(high - low) / 2 * np.ones(2)
    near = _window(vae, x, observed, (low + high) / 2 - half, (low + high) / 2 + half)
    steps = inferred.losses.shape[1]
    panels = (
        ("q before the first step", plane, before),
        (f"q after {steps} steps", plane, after),
        ("the same, closer", near, after),
    )
    picture = plots.with_missing(x, observed)
    return plots.posterior_contours(picture, [plots.ContourPanel(title, window, q) for title, window, q in panels])


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
    """Raises `UserError` for a name that is none of `KINDS`, with the nearest match."""
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("kind of plot", kind, KINDS)


def options_of(kind: str) -> set[str]:
    """The names of the options that a kind takes."""
    return set(inspect.signature(KINDS[kind]).parameters) - {"subject"}


def draw(
    kind: str, subject: Subject, folder: str | Path, *, suffix: str = ".png", label: str = "", **options: Any
) -> list[Path]:
    """Draws one kind of picture into a folder.

    Args:
        kind: a name in `KINDS`.
        subject: what it is made of.
        folder: where the files go.
        suffix: `.png`, `.svg` or `.pdf`.
        label: goes into the names of the files, e.g. `epoch_0010`.
        **options: of the kind's function.

    Returns:
        The files, one or more.

    Raises:
        UserError: an unknown kind or option, or a kind that this model or these data are unsuitable for.
    """
    check_kinds([kind])
    if subject.vae.condition_shape is not None and kind != "learning_curves":
        raise Unsuitable(
            f"Expected a model without a condition for {kind}. This one needs a condition for every image."
        )
    for option in options:
        if option not in options_of(kind):
            raise unknown(f"option of {kind}", option, options_of(kind))
    paths = []
    for name, drawing in KINDS[kind](subject, **options).items():
        path = Path(folder) / f"{name}{'_' * bool(label)}{label}{suffix}"
        plots.save(drawing, path)
        paths.append(path)
    return paths


def _means(vae: VAE, z: Any) -> np.ndarray:
    """E[x|z] as pictures, `[..., D]` -> `[..., H, W, C]`."""
    points = np.asarray(z)
    flat = points.reshape(-1, points.shape[-1])
    size = vae.images_at_once
    parts = [_clipped(vae.likelihood.mean(vae.decode(flat[i : i + size]))) for i in range(0, len(flat), size)]
    return np.concatenate(parts).reshape(*points.shape[:-1], *parts[0].shape[1:])


def _clipped(means: Any) -> np.ndarray:
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


def _ellipse(q: Distribution, number: int) -> plots.Ellipse:
    """q of one image of a batch, as contours show it."""
    covariance = q.covariance
    if covariance is None:
        raise Unsuitable("Expected a q whose covariance is known, to draw its ellipse. This one has none.")
    return plots.Ellipse(np.asarray(q.mean)[number], np.asarray(covariance)[number])


def _article_options(vae: VAE) -> dict[str, Any]:
    _check_plane(vae)
    return article_options(vae)


def _window(vae: VAE, x: np.ndarray, observed: np.ndarray, low: Any, high: Any) -> plots.Window:
    """Both axes and log p(x_observed, z) over a window of the plane, for a `ContourPanel`."""
    first, second = (np.linspace(low[axis], high[axis], CONTOUR_POINTS) for axis in range(2))
    grid = np.stack([part.ravel() for part in np.meshgrid(first, second)], axis=1).astype(np.float32)
    values = quadrature.Integrand(vae, x, observed).log_value(grid)
    return first, second, values.reshape(CONTOUR_POINTS, CONTOUR_POINTS)


def _one_a_class(data: Data, classes: int = 6) -> np.ndarray:
    """Places of the first test image of each of the first classes; of the first images where there are no labels."""
    labels = data.examples("test", min(1000, data.info.sizes["test"]))[1]
    if labels is None:
        return np.arange(min(classes, data.info.sizes["test"]))
    return np.unique(labels, return_index=True)[1][:classes]


def _default_pairs(data: Data) -> list[tuple[str, str]]:
    """0-5, 1-4 and 2-9 where there are such classes; else the first class with each of the next three."""
    labels = data.examples("test")[1]
    if labels is None:
        raise Unsuitable("Expected labels to choose classes by. The test images have none; try pairs of places.")
    present = [data.class_name(number) for number in np.unique(labels)]
    if {label for pair in DIGIT_PAIRS for label in pair} <= set(present):
        return list(DIGIT_PAIRS)
    return [(present[0], other) for other in present[1:4]] or [(present[0], present[0])]
