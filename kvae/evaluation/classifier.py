"""Classification of images by a conditional model: a check of how well it knows its classes."""

from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.estimate import Estimate
from kvae.evaluation.importance_weighted import bound_of_batch
from kvae.evaluation.over_batches import Keep, over_batches
from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE


class Classification(NamedTuple):
    """How often the class with the largest log p(x|y) is that of the image."""

    accuracy: Estimate  # [N], 1 for an image whose class was found, otherwise 0


def classification(
    vae: VAE,
    data: Any,
    *,
    images: int | None = None,
    samples: int = 100,
    seed: int = 0,
    verbose: int = 0,
    keep: Keep = None,
) -> Classification:
    """The share of the images whose class y is the one with the largest log p(x|y): Bayes' rule with equal p(y).

    For each class, log p(x|y) is estimated by the importance-weighted bound with z_k ~ q(z|x, y), as in
    `log_likelihood`, and with the same random numbers for all classes. The model was not trained to classify, so this
    says whether its densities mean what they should.

    Args:
        vae: a built model of C classes, as `VAE(condition=C)` makes it.
        data: a `tf.data.Dataset` of batches (x, label), or the arrays (x, label).
        images: the largest number of images: the first ones of the set. By default all.
        samples: the number of draws of z per image and class, K, at least 1.
        seed: the seed of the draws.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.
        keep: a folder for the results of batches, with which the same call continues after an interruption
            (`kvae.evaluation.over_batches`). By default none are kept.

    Raises:
        UserError: if the model was not made for classes, if an argument is not valid, if there are no data, or if the
            images have another shape than the model's.
    """
    check_whole("samples", samples)
    check_seed("seed", seed)
    shape = vae.condition_shape
    if shape is None or len(shape) != 1:
        received = "no condition" if shape is None else f"a condition of shape {shape}"
        raise UserError(
            f"Expected a conditional model of classes for this evaluation. Received one with {received}. To train one: "
            "kvae train --conditional"
        )
    classes = shape[0]
    title = f"log p(x|y) of {classes} classes, K = {samples}"

    def compute(x: tf.Tensor, condition: Any, index: tf.Tensor) -> list[np.ndarray]:
        each = [
            bound_of_batch(vae, x, tf.one_hot(tf.fill(tf.shape(index), label), classes), index, samples, seed)
            for label in range(classes)
        ]
        return [np.argmax(each, axis=0) == np.argmax(condition, axis=1)]

    (correct,) = over_batches(compute, vae, data, title, [samples, seed], images=images, verbose=verbose, keep=keep)
    return Classification(Estimate(correct.astype(np.float64)))
