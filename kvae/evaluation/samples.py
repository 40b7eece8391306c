"""How close images drawn from a model are to the images of a set: a kernel two-sample test, precision and recall."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation import digit_features
from kvae.evaluation.estimate import Estimate, batches
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.internal.progress_bars import counted
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE
from kvae.noise import portable

NEIGHBOURS = 3  # Kynkäänniemi et al. (2019), section 3
BLOCKS = 20  # of the standard errors of precision and recall, if each has `SMALLEST_BLOCK` images and more than k
SMALLEST_BLOCK = 50  # images
ROUNDING = 1e-9  # of a squared distance, relative to the largest squared length of a vector, in float64
DRAWS = "draws of p(x|z)"
MEANS = "means of p(x|z), because the images of the set are grey and draws are 0 or 1"
FEATURES = "a classifier of digits trained on mnist5k, not Inception; of little meaning for other images than digits"
NO_FEATURES = "none, because kvae has them for grey images of 28 x 28 only: precision and recall are of pixels"


class SampleQuality(NamedTuple):
    """Drawn images y compared with the N images x of a set. Distances are times 1,000, and all else is a share."""

    kernel_distance_of_pixels_x1000: Estimate  # [N] pseudo-values of the jackknife
    kernel_distance_of_features_x1000: Estimate | None  # [N] the same; None if there are no features
    sample_precision: float  # share of y that are close to x
    sample_precision_standard_error: float
    sample_recall: float  # share of x that are close to y
    sample_recall_standard_error: float
    ideal_sample_precision: float  # share of x that are close to the others: what perfect images would have, as both
    ideal_sample_precision_standard_error: float
    sample_images: str  # what y are, in words
    sample_features: str


def sample_quality(
    vae: VAE, data: Any, *, neighbours: int = NEIGHBOURS, seed: int = 0, verbose: int = 0
) -> SampleQuality:
    """Compares as many images drawn from the model as a set has with the images of the set.

    The kernel distance is the unbiased estimate of the squared maximum mean discrepancy,

        MMD^2 = mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j),  k(a, b) = (a'b / d + 1)^3,

    for vectors of d numbers, where the first two means are over i != j: Gretton et al., "A Kernel Two-Sample Test"
    (2012), equation 3, with the kernel of Binkowski et al., "Demystifying MMD GANs" (2018), section 4, who call it KID
    for the features of Inception. Here it is of the pixels, and for grey images of 28 x 28 also of the features of
    `kvae.evaluation.digit_features`. For images of the same distribution its expectation is 0, so it is sometimes
    negative, and less than three standard errors are no visible difference. The standard error is for other images x
    and other draws y, by the jackknife, which fits a mean over pairs (Arvesen, "Jackknifing U-Statistics", 1969). In
    expectation it is never too small (Efron and Stein 1981), and up to sqrt(2) too large where the distance is 0.

    Precision is the share of the drawn images that are no further from some image of the set than the k-th neighbour
    of that image within the set. Recall is the same with set and drawn images exchanged. Kynkäänniemi et al., "Improved
    Precision and Recall Metric for Assessing Generative Models" (2019), equations 1 and 2. Both are of the features, or
    of the pixels if there are no features. Even perfect images have less than 1: `ideal_sample_precision` is what they
    have in expectation, as both, which is the share of the images of the set that are within the k-th neighbour of
    another one. The standard errors are from the values on up to 20 disjoint blocks of the images: the jackknife would
    overestimate them, by half or more, because each image changes all balls near it.

    The drawn images are those of `vae.generate(N, seed)`. A conditional model has the conditions of the set, and
    k(x_i, y_i), of the same condition, is then left out. If the likelihood has only 0 and 1, so have the draws, as
    binarized images of the set; but if those are grey, means E[x|z] are compared with them. For a model without
    condition, another order of the images changes distances and shares only by rounding, and standard errors by chance.

    The time grows with N^2: 10,000 digits take about a minute on one core. The memory is 20 bytes per number of all
    images, drawn or of the set.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        neighbours: k, the number of neighbours, at least 1.
        seed: the seed of the drawn images.
        verbose: 1 for a bar that counts steps, 2 for a line every ten seconds. 0 by default.

    Raises:
        UserError: if an argument is not valid, if there are too few images, or if the images have another shape than
            the model's.
    """
    check_whole("neighbours", neighbours)
    check_seed("seed", seed)
    x, condition = _images(vae, data)
    # The k-th neighbour within a block exists only if the block has more than k images.
    blocks = max(2, min(BLOCKS, len(x) // max(SMALLEST_BLOCK, neighbours + 1)))
    fewest = 2 * (neighbours + 1)
    if len(x) < fewest:
        raise UserError(f"Expected at least {fewest} images, for {neighbours} neighbours. Received {len(x)}.")
    drawn, means = vae.sample(portable.seeds(len(x), seed), condition), vae.likelihood.binary and not _is_binary(x)
    y = (drawn.means if means else drawn.images).numpy()
    spaces = [(_vectors(x), _vectors(y))]
    has_features = vae.image_shape in digit_features.IMAGE_SHAPES
    if has_features:
        spaces.append((_vectors(digit_features.features(x)), _vectors(digit_features.features(y))))
    distances, of_blocks = [], []
    with counted(verbose, "quality of samples", "steps", len(spaces) + 1 + blocks) as one_more:
        for each in spaces:
            distances.append(Estimate(1000 * kernel_distance(*each, paired=condition is not None)))
            one_more()
        of_x, of_y = spaces[-1]
        shares = precision_and_recall(of_x, of_y, neighbours)
        one_more()
        for block in range(blocks):
            of_blocks.append(precision_and_recall(of_x[block::blocks], of_y[block::blocks], neighbours))
            one_more()
    errors = np.std(of_blocks, axis=0, ddof=1) / np.sqrt(blocks)
    (precision, recall, ideal), (of_precision, of_recall, of_ideal) = shares.tolist(), errors.tolist()
    return SampleQuality(
        kernel_distance_of_pixels_x1000=distances[0],
        kernel_distance_of_features_x1000=distances[1] if has_features else None,
        sample_precision=precision,
        sample_precision_standard_error=of_precision,
        sample_recall=recall,
        sample_recall_standard_error=of_recall,
        ideal_sample_precision=ideal,
        ideal_sample_precision_standard_error=of_ideal,
        sample_images=MEANS if means else DRAWS,
        sample_features=FEATURES if has_features else NO_FEATURES,
    )


def kernel_distance(x: np.ndarray, y: np.ndarray, *, paired: bool = False) -> np.ndarray:
    """The pseudo-values of the jackknife for the kernel distance of two sets of vectors.

    Their mean is the unbiased estimate of MMD^2. With g_i, the mean over j of k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j)
    - k(x_j, y_i), they are MMD^2 + 2 (N - 1) / (N - 2) (g_i - MMD^2). This is the jackknife that leaves out pairs
    (x_i, y_i), exactly if `paired`, and otherwise up to terms of 1 / N.

    Args:
        x: vectors, `[N, d]` float64, N at least 3.
        y: others, `[N, d]` float64.
        paired: whether x_i and y_i depend on each other, so that k(x_i, y_i) is left out. False by default.

    Returns:
        `[N]` float64.
    """
    count = len(x)
    of_image = _mean_kernel(x, x, own=True) + _mean_kernel(y, y, own=True)
    of_image -= _mean_kernel(x, y, own=paired) + _mean_kernel(y, x, own=paired)
    distance = of_image.mean()
    return distance + 2 * (count - 1) / (count - 2) * (of_image - distance)


def precision_and_recall(x: np.ndarray, y: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """The share of y that are close to x, that of x that are close to y, and that of x that are close to the others.

    A vector is close to a set if it is no further from one of the set than the k-th neighbour within the set.

    Args:
        x: vectors, `[N, d]` float64.
        y: others, `[N, d]` float64.
        neighbours: k, below N.

    Returns:
        `[3]` float64.
    """
    of_x, of_y = (_squared_radii(each, neighbours) for each in (x, y))
    shares = _is_close(y, x, of_x, own=False), _is_close(x, y, of_y, own=False), _is_close(x, x, of_x, own=True)
    return np.array([share.mean() for share in shares])


def _images(vae: VAE, data: Any) -> tuple[np.ndarray, tf.Tensor | None]:
    """All images of a set, `[N, *image]` float32, and their conditions, `[N, ...]` or None."""
    x, conditions, _ = zip(*batches(vae, data), strict=True)
    return np.concatenate(x), None if conditions[0] is None else tf.concat(conditions, axis=0)


def _is_binary(x: np.ndarray) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def _vectors(x: np.ndarray) -> np.ndarray:
    """`[N, d]` float64, so that rounding does not depend visibly on how much is computed at once."""
    return np.float64(x).reshape(len(x), -1)


def _mean_kernel(a: np.ndarray, b: np.ndarray, *, own: bool) -> np.ndarray:
    """The mean of k(a_i, b_j) over j for each i, without j = i if `own`; `[N]`."""
    return _by_rows(_kernel_sums, a, b, own) / (len(b) - own)


def _squared_radii(x: np.ndarray, neighbours: int) -> np.ndarray:
    """The squared distance of each vector from its k-th neighbour, `[N]`, with a margin for rounding."""
    return _by_rows(_squared_distances_of_neighbours, x, x, neighbours) + ROUNDING * np.square(x).sum(axis=1).max()


def _is_close(a: np.ndarray, b: np.ndarray, squared_radii: np.ndarray, *, own: bool) -> np.ndarray:
    """Whether each a_i is within the radius of some b_j, where j != i if `own`; `[N]`."""
    return _by_rows(_are_within, a, b, own, tf.constant(squared_radii))


def _by_rows(function: Callable[..., tf.Tensor], a: np.ndarray, b: np.ndarray, *arguments: Any) -> np.ndarray:
    """What a function of some rows of a, the index of the first one and all of b returns, for all rows of a."""
    rows, others = batch_sizes.images_at_once((len(b),)), tf.constant(b)
    parts = [
        function(tf.constant(a[start : start + rows]), tf.constant(start), others, *arguments).numpy()
        for start in range(0, len(a), rows)
    ]
    return np.concatenate(parts)


@tf.function(reduce_retracing=True, autograph=False)
def _kernel_sums(a: tf.Tensor, first: tf.Tensor, b: tf.Tensor, own: bool) -> tf.Tensor:
    products = tf.matmul(a, b, transpose_b=True) / tf.cast(tf.shape(b)[1], tf.float64) + 1
    kernel = products * products * products
    return tf.reduce_sum(tf.where(_same(first, kernel), tf.zeros_like(kernel), kernel) if own else kernel, axis=1)


@tf.function(reduce_retracing=True, autograph=False)
def _squared_distances_of_neighbours(a: tf.Tensor, first: tf.Tensor, b: tf.Tensor, neighbours: int) -> tf.Tensor:
    return -tf.math.top_k(-_squared_distances(a, first, b, own=True), neighbours).values[:, -1]


@tf.function(reduce_retracing=True, autograph=False)
def _are_within(a: tf.Tensor, first: tf.Tensor, b: tf.Tensor, own: bool, squared_radii: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(_squared_distances(a, first, b, own) <= squared_radii, axis=1)


def _squared_distances(a: tf.Tensor, first: tf.Tensor, b: tf.Tensor, own: bool) -> tf.Tensor:
    """`[rows, N]`, infinite from a vector to itself if `own`."""
    of_a, of_b = (tf.reduce_sum(tf.square(each), axis=1) for each in (a, b))
    distances = tf.maximum(of_a[:, None] + of_b - 2 * tf.matmul(a, b, transpose_b=True), 0)
    return tf.where(_same(first, distances), tf.constant(np.inf, tf.float64), distances) if own else distances


def _same(first: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Where the row `first + i` of a set meets itself in a table `[rows, N]`."""
    rows, columns = tf.unstack(tf.shape(table))
    return first + tf.range(rows)[:, None] == tf.range(columns)
