"""The maximum mean discrepancy of the aggregate posterior to the prior, as a term of the loss."""

from typing import Any

from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model.objectives.base import Draws, Objective
from kvae.model.objectives.schedules import check_number
from kvae.model.posteriors import Posterior
from kvae.model.priors import Prior, is_standard_normal


@keras.saving.register_keras_serializable("kvae")
class Info(Objective):
    """The loss reconstruction + (1 - alpha) kl + (alpha + weight - 1) MMD^2, that of InfoVAE with lambda = weight.

    Zhao, Song and Ermon, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders" (2019). The maximum
    mean discrepancy compares the aggregate q(z) = E_x[q(z|x)] with the standard normal p(z) by the kernel
    k(z, z') = exp(-|z - z'|^2 / (2 D)), where D is the latent size:

        MMD^2 = E_q,q[k(z, z')] - 2 E_q[k_p(z)] + E_p[k_p(z)],   k_p(z) = E_p[k(z, z')]

    Both terms with p have a closed form. The first one is the mean over all pairs of different images of a batch, so
    the estimate is unbiased; it may be below 0. It is the metric `mmd` of `fit`. It and the loss are those of a batch,
    under `tf.distribute` of the part of it on each device. A batch of one image has no MMD. With alpha = 0 and
    weight = 1 the loss is -ELBO; with alpha = 1, the default, it has no KL term (MMD-VAE).

    Args:
        alpha: what is taken from the weight of the KL term, 1, from 0 to 1. 1 by default.
        weight: lambda, the weight of the divergence of q(z) from p(z), at least 1 - alpha. 1000 by default.
        samples: number of draws of z per image, K. 1 by default.

    Raises:
        UserError: if an argument is not one of these; when a model gets it, if the prior is not the standard normal.
    """

    def __init__(self, alpha: float = 1.0, weight: float = 1000.0, samples: int = 1) -> None:
        self.alpha, self.weight = check_number("alpha", alpha), check_number("weight", weight)
        if self.alpha > 1 or self.alpha + self.weight < 1:
            raise UserError(
                f"Expected alpha to be from 0 to 1, and weight at least 1 - alpha. Received alpha={alpha} and "
                f"weight={weight}."
            )
        self.samples = check_whole("samples", samples)

    def check(self, prior: Prior, posterior: Posterior) -> None:
        if not is_standard_normal(prior):
            raise UserError(
                "Expected the prior standard_normal for the objective Info, whose MMD has a closed form for this one. "
                f"Received {type(prior).__name__}."
            )

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        return draws.reconstruction + (1 - self.alpha) * draws.kl + (self.alpha + self.weight - 1) * _mmd(draws.z)

    def terms(self, draws: Draws) -> dict[str, tf.Tensor]:
        return {"mmd": _mmd(draws.z)}

    def get_config(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "weight": self.weight, "samples": self.samples}


def _mmd(z: tf.Tensor) -> tf.Tensor:
    """What each image adds to MMD^2, `[B]`, whose mean is the estimate; z `[K, B, D]`."""
    size, images = float(z.shape[-1]), tf.cast(tf.shape(z)[1], z.dtype)
    distances = tf.reduce_sum(tf.square(z[:, :, None] - z[:, None]), axis=-1)  # [K, B, B]
    others = tf.maximum(images - 1, 1)
    of_pairs = (tf.reduce_sum(tf.exp(-distances / (2 * size)), axis=-1) - 1) / others  # without an image and itself
    # Integrals of the kernel, which is a Gaussian of variance D, over one and over both of its arguments.
    with_prior = (size / (size + 1)) ** (size / 2) * tf.exp(-tf.reduce_sum(tf.square(z), axis=-1) / (2 * (size + 1)))
    of_prior = (size / (size + 2)) ** (size / 2)
    each = tf.reduce_mean(of_pairs - 2 * with_prior + of_prior, axis=0)
    return tf.where(images > 1, each, tf.zeros_like(each))
