"""What simple classifiers find in the posterior means: a linear probe and nearest neighbours."""

from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.encoding import posterior_of_batch
from kvae.evaluation.estimate import Estimate, count_batches, labelled_batches
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError, check_whole
from kvae.internal.progress_bars import counted
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE

TOLERANCE = 1e-5  # of the gradient of the probe's loss per image, the largest element
MOST_STEPS = 100  # of Newton's method, which needs about ten
MOST_DIRECTIONS = 250  # of conjugate gradients in a step
MOST_NEIGHBOURS = 50  # whose order float64 tells apart, see `_by_neighbours`


class Representation(NamedTuple):
    """How often a classifier finds the class of an image: `[N]` with 1 where it does, otherwise 0."""

    linear_probe: Estimate  # from the posterior means
    nearest_neighbours: Estimate
    linear_probe_of_pixels: Estimate  # the same from the pixels, to compare with
    nearest_neighbours_of_pixels: Estimate
    largest_class: float  # the accuracy of always naming the most frequent class


def representation(vae: VAE, data: Any, *, neighbours: int = 5, seed: int = 0, verbose: int = 0) -> Representation:
    """The accuracy of two classifiers that see the posterior mean of an image, and of the same that see its pixels.

    The images with an even index and those with an odd one are two halves. A classifier learns from one half and is
    scored on the other, in both directions. So each image is scored once, by a classifier that has not seen it; if the
    images are held out, neither has the model. The accuracy is that of a classifier with N / 2 labels.

    The linear probe is multinomial logistic regression. It minimises the cross entropy of its half plus |W|^2 / 2 (the
    biases have no penalty) by Newton's method until no element of the gradient per image exceeds 1e-5. The nearest
    neighbours vote, in Euclidean distance; between classes with equally many votes, that of the nearest of these
    neighbours wins, and of two neighbours at the same distance the one with the lower index is the nearer. Neither of
    them scales the features: those of z have the units of the prior.

    Args:
        vae: a built model without a condition. One with a condition has been told the class.
        data: a `tf.data.Dataset` of batches (x, label), or the arrays (x, label), of at least two classes.
        neighbours: the number of neighbours that vote, from 1 to 50, and at most N / 2.
        seed: not used, because nothing in it is random; all evaluations have it.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.

    Raises:
        UserError: if the model takes a condition, if the images have no labels or labels of one class only, if there
            are too few images, or if an argument is not valid.
    """
    check_whole("neighbours", neighbours, most=MOST_NEIGHBOURS)
    if vae.condition_shape is not None:
        raise UserError(
            "Expected a model without a condition, because this evaluation asks what z tells about the class. Received "
            "a conditional model, whose posterior has been given the condition."
        )
    codes, pixels, classes = [], [], []
    with counted(verbose, "posterior means", "batches", count_batches(data)) as one_more:
        for x, labels in labelled_batches(vae, data):
            codes.append(posterior_of_batch(vae, x, None)[0].numpy())
            pixels.append(x.numpy().reshape(len(labels), -1))
            classes.append(labels)
            one_more()
    names, y = np.unique(np.concatenate(classes), return_inverse=True)
    if len(names) < 2:
        raise UserError(f"Expected labels of at least two classes. All images have the label {names[0]}.")
    if len(y) < 2 * neighbours:
        raise UserError(
            f"Expected at least {2 * neighbours} images, because {neighbours} neighbours vote and each half of the "
            f"images is classified by the other one. Received {len(y)}."
        )
    probe, nearest, probe_of_pixels, nearest_of_pixels = (
        _halves(classify, features, y, len(names), *options)
        for features in map(np.concatenate, (codes, pixels))
        for classify, options in ((_by_probe, ()), (_by_neighbours, (neighbours,)))
    )
    share = float(np.bincount(y).max() / len(y))
    return Representation(probe, nearest, probe_of_pixels, nearest_of_pixels, share)


def _halves(classify: Any, features: np.ndarray, y: np.ndarray, *options: int) -> Estimate:
    """Whether each image is classified correctly by what was learned from the other half."""
    correct = np.zeros(len(y))
    for half in (0, 1):
        known, asked = features[1 - half :: 2], features[half::2]
        found = classify(*(tf.constant(part, tf.float64) for part in (known, asked)), y[1 - half :: 2], *options)
        correct[half::2] = found == y[half::2]
    return Estimate(correct)


def _by_probe(known: tf.Tensor, asked: tf.Tensor, y: np.ndarray, classes: int) -> np.ndarray:
    centre = tf.reduce_mean(known, axis=0)

    def with_ones(features: tf.Tensor) -> tf.Tensor:
        return tf.pad(features - centre, [[0, 0], [0, 1]], constant_values=1.0)

    weights = fit_probe(with_ones(known), tf.one_hot(y, classes, dtype=tf.float64))
    return tf.argmax(with_ones(asked) @ weights, axis=1).numpy()


def fit_probe(x: tf.Tensor, y: tf.Tensor, tolerance: float = TOLERANCE) -> tf.Tensor:
    """The weights W of multinomial logistic regression, which minimise the mean of

        -log softmax(x W)_y + |W without its last row|^2 / (2 N)

    by Newton's method. The system of each step is solved by conjugate gradients, which need only products with the
    Hessian, and a step is halved until the loss falls enough: Nocedal and Wright, "Numerical Optimization" (2006),
    algorithm 7.1.

    Args:
        x: features, `[N, F]` float64, of which the last one is 1, for the biases.
        y: the classes, `[N, C]` float64, one-hot.
        tolerance: the largest element of the gradient at which it ends.

    Returns:
        `[F, C]` float64.
    """
    count = tf.cast(tf.shape(x)[0], tf.float64)
    penalty = tf.concat([tf.ones_like(x[0, :-1]), [0.0]], axis=0)[:, None] / count

    def loss(weights: tf.Tensor) -> tf.Tensor:
        entropy = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y, x @ weights))
        return entropy + tf.reduce_sum(penalty * tf.square(weights)) / 2

    weights = tf.zeros([x.shape[1], y.shape[1]], tf.float64)
    for _ in range(MOST_STEPS):
        p = tf.nn.softmax(x @ weights)
        gradient = tf.matmul(x, p - y, transpose_a=True) / count + penalty * weights
        if tf.reduce_max(tf.abs(gradient)) <= tolerance:
            break
        step, length, before = _newton_step(x, p, penalty, gradient), 1.0, loss(weights)
        slope = tf.reduce_sum(step * gradient)
        while loss(weights + length * step) > before + 1e-4 * length * slope and length > 1e-8:
            length /= 2
        weights += length * step
    return weights


@tf.function(reduce_retracing=True, autograph=False)
def _newton_step(x: tf.Tensor, p: tf.Tensor, penalty: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """About -H^-1 gradient, for the Hessian H of the loss where the classes have the probabilities p `[N, C]`."""
    count = tf.cast(tf.shape(x)[0], tf.float64)

    def hessian(v: tf.Tensor) -> tf.Tensor:
        a = p * (x @ v)
        return tf.matmul(x, a - p * tf.reduce_sum(a, axis=1, keepdims=True), transpose_a=True) / count + penalty * v

    size = tf.norm(gradient)
    enough = tf.square(size * tf.minimum(tf.cast(0.5, tf.float64), tf.sqrt(size)))

    def improve(step: tf.Tensor, residual: tf.Tensor, direction: tf.Tensor, square: tf.Tensor) -> Any:
        product = hessian(direction)
        length = square / tf.reduce_sum(direction * product)
        step, residual = step + length * direction, residual - length * product
        after = tf.reduce_sum(tf.square(residual))
        return step, residual, residual + after / square * direction, after

    start = (tf.zeros_like(gradient), -gradient, -gradient, tf.square(size))
    return tf.while_loop(lambda *state: state[3] > enough, improve, start, maximum_iterations=MOST_DIRECTIONS)[0]


def _by_neighbours(known: tf.Tensor, asked: tf.Tensor, y: np.ndarray, classes: int, neighbours: int) -> np.ndarray:
    centre = tf.reduce_mean(known, axis=0)
    known, asked = known - centre, asked - centre  # smaller squares have smaller rounding errors
    votes_of = tf.one_hot(y, classes, dtype=tf.float64)
    # A vote is one and a bit. The bit of a neighbour is larger than those of all that are farther away together.
    weights = 1.0 + 0.5 ** tf.range(1, neighbours + 1, dtype=tf.float64)
    at_once = batch_sizes.images_at_once(known.shape[:1])
    return np.concatenate(
        [_voted(known, asked[start : start + at_once], votes_of, weights) for start in range(0, len(asked), at_once)]
    )


@tf.function(reduce_retracing=True, autograph=False)
def _voted(known: tf.Tensor, asked: tf.Tensor, votes_of: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The class with most votes among the nearest of `known` `[M, F]` for each of `asked` `[C, F]`."""
    # |a - b|^2 - |a|^2, which has the same order
    distances = tf.reduce_sum(tf.square(known), axis=1) - 2 * tf.matmul(asked, known, transpose_b=True)
    nearest = tf.math.top_k(-distances, k=tf.shape(weights)[0]).indices
    votes = tf.einsum("ckl,k->cl", tf.gather(votes_of, nearest), weights)
    return tf.argmax(votes, axis=1)
