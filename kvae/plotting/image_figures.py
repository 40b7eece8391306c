"""Pictures of images: samples, reconstructions and interpolations."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kvae import evaluation
from kvae.data import Data
from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import tf
from kvae.model import sampling
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream
from kvae.plotting import drawing
from kvae.plotting.sheets import Title
from kvae.plotting.subject import Drawings, Subject, Unsuitable, clip, means_at
from kvae.runtime import latent_points

DIGIT_PAIRS = (("0", "5"), ("1", "4"), ("2", "9"))
PAIRS = 3  # rows of an interpolation
CLASSES = 20  # rows of samples of each class, at most


def samples(subject: Subject, *, n: int = 20, seed: int = 0) -> Drawings:
    """Samples from the prior, decoded.

    - `samples`: the means of n samples, above one draw of p(x|z) for each.
    - `samples_grid`: ten samples, one per row, each as its mean and 3 draws.
    - `samples_strip`: ten samples as means in one row, above one draw for each.

    Of a conditional model of classes there is one picture, `samples`: a row of means for each class, with the same z in
    all rows; of more than 20 classes it shows the first 20.

    Args:
        subject: with a model.
        n: the number of samples.
        seed: the seed. It gives the same z in all pictures and in `VAE.generate`.
    """
    vae = subject.vae
    if vae.condition_shape is not None:
        return {"samples": _of_each_class(subject, check_whole("n", n), seed)}
    drawing.check_size(2 * math.ceil(check_whole("n", n) / 10), 10, vae.image_shape)
    z = sampling.draw_z(vae, 10, seed)
    index = tf.range(10)
    noises = [Keyed(seed, Stream.PICTURES, index, number) for number in range(3)]
    columns: dict[Title, Any] = {"mean of x": means_at(vae, z)}
    for number, noise in enumerate(noises, start=1):
        columns[f"draw {number} of x"] = vae.likelihood.sample(vae.decode(z), noise).numpy()
    return {
        "samples": drawing.samples(vae.generate_means(n, seed).numpy(), vae.generate(n, seed).numpy()),
        "samples_grid": drawing.titled_columns(columns),
        "samples_strip": drawing.samples(vae.generate_means(10, seed).numpy(), vae.generate(10, seed).numpy()),
    }


def _of_each_class(subject: Subject, n: int, seed: int) -> drawing.Drawing:
    """Means of a conditional model for n draws of z, one row per class."""
    vae = subject.vae
    if len(vae.condition_shape) != 1:
        raise Unsuitable("Expected a model whose condition is a class for samples. This model has another condition.")
    every = vae.condition_shape[0]
    classes = min(every, CLASSES)
    drawing.check_size(classes, n, vae.image_shape)
    rows = [clip(vae.generate_means(n, seed, label)) for label in range(classes)]
    names = subject.data.info.class_names if subject.data is not None else tuple(map(str, range(classes)))
    columns: dict[Title, Any] = {f"z {number + 1}": [row[number] for row in rows] for number in range(n)}
    note = "Means of every pixel for z drawn from the prior p(z): a class per row, the same z in each column."
    if classes < every:
        note += f" These are the first {classes} of {every:,} classes."
    return drawing.titled_columns(columns, list(names[:classes]), "class", note)


def reconstructions(subject: Subject, *, seed: int = 0) -> Drawings:
    """Test images and their reconstructions.

    If the images are binarized, both pictures show them before and after this.

    - `reconstructions`: 40 test images, above their reconstructions.
    - `reconstructions_draws`: 4 test images, of different classes if they have labels, each with 2 draws of z: in one
      row the image, the mean and a draw of p(x|z) for one z.

    Args:
        subject: with data.
        seed: the seed of the draws.
    """
    vae = subject.vae
    x, labels = subject.test().examples("test", 40)
    originals = subject.originals(x, np.arange(len(x)))
    chosen = np.repeat(np.arange(min(4, len(x))), 2)
    if labels is not None:
        _, firsts = np.unique(labels, return_index=True)
        chosen = np.repeat(np.sort(firsts)[:4], 2)
    index = tf.range(len(chosen))
    z, _ = vae.encode(x[chosen]).sample_and_log_prob(Keyed(seed, Stream.PICTURES, index), 1)
    parameters = vae.decode(z[0])
    columns: dict[Title, Any] = {"image": (x if originals is None else originals)[chosen]}
    if originals is not None:
        columns["binarized"] = x[chosen]
    columns["mean of x"] = clip(vae.likelihood.mean(parameters))
    columns["draw of x"] = vae.likelihood.sample(parameters, Keyed(seed, Stream.PICTURES, index, 1)).numpy()
    return {
        "reconstructions": drawing.reconstructions(x, clip(vae.reconstruct(x, seed=seed)), originals=originals),
        "reconstructions_draws": drawing.titled_columns(columns, ["draw 1 of z", "draw 2 of z"] * (len(chosen) // 2)),
    }


def outliers(subject: Subject, *, n: int = 10, samples: int = 50, seed: int = 0) -> Drawings:
    """`outliers`: the test images with the lowest log p(x), the least likely first, each with its reconstruction.

    log p(x) is the importance-weighted bound (`kvae.evaluation.log_likelihood`). People look for anomalies in this way,
    with a known fault: a model can find images of another kind more likely than its own; Nalisnick et al., "Do Deep
    Generative Models Know What They Don't Know?" (2019).

    Args:
        subject: with a model and data.
        n: the number of images.
        samples: the number of draws of z per image for the bound, K.
        seed: the seed of the draws.
    """
    vae, data = subject.vae, subject.test()
    drawing.check_size(check_whole("n", n), 3, vae.image_shape)
    scores = evaluation.log_likelihood(vae, data.test, samples=samples, seed=seed).per_example
    places = np.argsort(scores, kind="stable")[:n]
    x = data.images_at("test", places)
    originals = subject.originals(x, places)
    columns: dict[Title, Any] = {"image": x if originals is None else originals}
    if originals is not None:
        columns["binarized", "to x"] = x
    columns["mean of x"] = clip(vae.reconstruct(x, seed=seed))
    names = [(f"no. {place}{_class_at(data, place)}", f"{scores[place]:.1f} nats") for place in places]
    note = (
        f"Of {len(scores):,} test images those with the lowest bound of log p(x), {samples} draws of z. A model can "
        "find images of another kind more likely than its own."
    )
    return {"outliers": drawing.titled_columns(columns, names, "least likely", note)}


def _class_at(data: Data, place: int) -> str:
    """The class of a test image, in brackets; empty if the images have no labels."""
    return f" ({data.class_name(data.labels_at('test', [place])[0])})" if data.has_labels("test") else ""


def interpolation(
    subject: Subject,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    between: Sequence[tuple[int, int]] = (),
    steps: int = 10,
    spherical: bool = False,
) -> Drawings:
    """Decoded means on a path between the posterior means of two test images, one pair per row, between these images.

    Args:
        subject: with data.
        pairs: pairs of classes, by number or name; the first test image of each class is used. By default 0-5, 1-4 and
            2-9 if there are these classes, else the first class with each of the next three; the first images if there
            are no labels.
        between: pairs of indices of test images, instead of `pairs`.
        steps: the number of points on a path, its ends included.
        spherical: whether the path follows a great circle instead of a straight line.
    """
    data, vae = subject.test(), subject.vae
    if between and pairs is not None:
        raise UserError("Expected either pairs of classes or pairs of indices. Received both.")
    if pairs is not None and len(pairs) == 0:
        raise UserError("Expected at least one pair of classes. Received none.")
    if pairs is None and not between:
        pairs, between = _default_ends(data)
    if pairs is not None:
        numbers = [[data.class_number("test", label) for label in pair] for pair in pairs]
        indices = np.array([[data.places_of("test", label)[0] for label in pair] for pair in pairs])
        names = [(data.class_name(first), data.class_name(last)) for first, last in numbers]
    else:
        indices = np.array(between)
        names = [(f"image {first}", f"image {last}") for first, last in between]
    drawing.check_size(len(indices), steps + 2, vae.image_shape)
    x = data.images_at("test", indices.ravel())
    originals = subject.originals(x, indices.ravel())
    ends = (x if originals is None else originals).reshape(*indices.shape, *x.shape[1:])
    mean = np.asarray(vae.encode(x).mean).reshape(*indices.shape, -1)
    z = latent_points.path(mean[:, 0], mean[:, 1], steps, spherical).swapaxes(0, 1)
    return {"interpolation": drawing.interpolation(means_at(vae, z), names, (ends[:, 0], ends[:, 1]))}


def _default_ends(data: Data) -> tuple[Sequence[tuple[str, str]] | None, Sequence[tuple[int, int]]]:
    """Pairs of classes, or pairs of indices if there are no labels.

    The classes are 0-5, 1-4 and 2-9 if there are these, else the first class with each of the next three. The indices
    are those of the first images.
    """
    count = data.info.sizes["test"]
    if not data.has_labels("test"):
        if count < 2:
            raise Unsuitable(f"Expected at least two test images. Received {count}.")
        return None, [(2 * number, 2 * number + 1) for number in range(min(PAIRS, count // 2))]
    labels = data.labels_at("test", np.arange(count))  # the images themselves are not read for this
    present = [data.class_name(number) for number in np.unique(labels)]
    if {label for pair in DIGIT_PAIRS for label in pair} <= set(present):
        return list(DIGIT_PAIRS), ()
    return [(present[0], other) for other in present[1 : PAIRS + 1]] or [(present[0], present[0])], ()
