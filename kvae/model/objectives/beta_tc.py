"""The KL term in three parts, of which the total correlation has a weight."""

import copy
from typing import Any, NamedTuple

from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.objectives import schedules
from kvae.model.objectives.base import KL_KINDS, Draws, Objective
from kvae.model.objectives.schedules import Weight, check_weight
from kvae.model.posteriors import POSTERIORS, DiagonalGaussian, Gaussian, Posterior
from kvae.model.priors import Prior


class Decomposition(NamedTuple):
    """The parts of the KL term, each `[B]` nats, averaged over the draws. Their sum is the KL term."""

    index_code_mi: tf.Tensor  # log q(z|x) - log q(z): mutual information of an image and its z
    total_correlation: tf.Tensor  # log q(z) - sum_d log q(z_d): dependence between the dimensions of z
    dimension_wise_kl: tf.Tensor  # sum_d log q(z_d) - log p(z), or what else the KL term has in closed form


@keras.saving.register_keras_serializable("kvae")
class BetaTC(Objective):
    """The loss reconstruction + kl + (beta - 1) * total correlation: that of the ELBO with a weight of one part.

    Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders" (2018), whose
    objective it is with alpha = gamma = 1. The KL term is the sum of the mutual information of images and z, the total
    correlation of the dimensions of z, and the KL terms of the dimensions. The aggregate q(z) = 1/N sum_n q(z|x_n) is
    estimated from the B images of a batch by minibatch-stratified sampling, appendix C.2 of the paper. For the z of an
    image n, with M = B - 1 other images:

        q(z) = 1/N q(z|x_n) + 1/M sum_{m < M} q(z|x_m) + (N - M) / (N M) q(z|x_M)

    The three parts of the KL term are metrics of `fit`: `index_code_mi`, `total_correlation`, `dimension_wise_kl`. They
    are estimates from a batch, so they and the loss depend on the batch size, also in an evaluation. A batch of one
    image has no total correlation and no mutual information. With beta = 1 the loss is -ELBO.

    Args:
        beta: weight of the total correlation, at least 0: a number, or a schedule as for the beta of `ELBO`. 6 by
            default.
        samples: number of draws of z per image, K. 1 by default.
        kl: `"analytic"`, the default, or `"sampled"` for log q(z|x) - log p(z) at the draws.
        data_size: number of training images, N. By default `fit` finds it for images in memory, and `kvae train` for
            all; for other datasets it is needed.

    Attributes:
        data_size: the given number, or else the one that was found; None if it is not known.

    Raises:
        UserError: if an argument is not one of these; when a model gets it, if the posterior is no diagonal Gaussian;
            in training, if the number of training images is not known, or if several devices share a batch.
    """

    def __init__(
        self, beta: Weight = 6.0, samples: int = 1, kl: str = "analytic", data_size: int | None = None
    ) -> None:
        self.beta = check_weight("beta", beta)
        self.samples = check_whole("samples", samples)
        if kl not in KL_KINDS:
            raise unknown("kl", kl, KL_KINDS)
        self.kl = kl
        self._given_size = None if data_size is None else check_whole("data_size", data_size)
        self.data_size = self._given_size
        # In a variable it can change between two calls of `fit` without another compilation. 0 if it is not known.
        self._size = keras.Variable(float(self.data_size or 0), dtype="float32", trainable=False, name="data_size")

    def check(self, prior: Prior, posterior: Posterior) -> None:
        if type(posterior) in POSTERIORS.values() and not isinstance(posterior, DiagonalGaussian):
            raise _needs_gaussian(type(posterior).__name__)

    def build(self, data_size: int | None) -> None:
        if data_size is not None and self._given_size is None:
            self.data_size = data_size
            self._size.assign(float(data_size))

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        if self.data_size is None:
            raise UserError(
                "Expected the number of training images, which the objective BetaTC needs. fit finds it for images in "
                "memory. For another dataset, state it: BetaTC(data_size=...), or model.objective.data_size."
            )
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise UserError(
                "Expected one device for the objective BetaTC, because it compares all images of a batch. Received "
                f"{tf.distribute.get_strategy().num_replicas_in_sync}. Train on one device, or with another objective."
            )
        beta = schedules.value_at("beta", self.beta, step, draws.kl.dtype)
        return draws.reconstruction + draws.kl + (beta - 1) * self.decompose(draws).total_correlation

    def terms(self, draws: Draws) -> dict[str, tf.Tensor]:
        return self.decompose(draws)._asdict()

    def decompose(self, draws: Draws) -> Decomposition:
        """The three parts of the KL term. Raises `UserError` if q is no diagonal Gaussian."""
        if not isinstance(draws.q, Gaussian):
            raise _needs_gaussian(f"a posterior that makes {type(draws.q).__name__}")
        # log q(z_d of image i | x_j), [K, i, j, D]
        each = densities.gaussian_log_density(draws.z[:, :, None], draws.q.mean, draws.q.log_var)
        log_weights = self._log_weights(tf.shape(each)[1], each.dtype)
        joint = tf.reduce_logsumexp(tf.reduce_sum(each, axis=-1) + log_weights, axis=2)  # log q(z), [K, B]
        product = tf.reduce_sum(tf.reduce_logsumexp(each + log_weights[..., None], axis=2), axis=-1)  # sum_d log q(z_d)
        mi, tc = tf.reduce_mean(draws.log_q - joint, axis=0), tf.reduce_mean(joint - product, axis=0)
        return Decomposition(mi, tc, draws.kl - mi - tc)

    def _log_weights(self, images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """Logarithms of the weights of q(z|x_j) in q(z) for the z of image i, `[B, B]`; each row of weights sums to 1.

        The last of the other images is, in the row of each image, the next one of the batch.
        """
        batch = tf.cast(images, dtype)
        # An evaluation may have more images in a batch than there are training images.
        size = tf.where(images == 1, tf.ones([], dtype), tf.maximum(tf.cast(self._size.value, dtype), batch))
        others = tf.maximum(batch - 1, 1)
        row, column = tf.range(images)[:, None], tf.range(images)[None]
        of_others = tf.where(column == (row + 1) % images, (size - others) / (size * others), 1 / others)
        return tf.math.log(tf.where(column == row, 1 / size, of_others))

    def at_end(self) -> "BetaTC":
        other = copy.copy(self)
        other.beta = schedules.at_end(self.beta)
        return other

    def get_config(self) -> dict[str, Any]:
        beta = schedules.serialized(self.beta)
        sizes = {"data_size": self._given_size, "found_size": None if self._given_size else self.data_size}
        return {"beta": beta, "samples": self.samples, "kl": self.kl, **sizes}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BetaTC":
        config = dict(config)
        # Files of before have the number that was found last as data_size.
        found = config.pop("found_size") if "found_size" in config else config.pop("data_size", None)
        objective = cls(**schedules.deserialized(config, "beta"))
        objective.build(found)
        return objective


def _needs_gaussian(received: str) -> UserError:
    return UserError(
        "Expected the posterior diagonal_gaussian for the objective BetaTC, which needs the density of each latent "
        f"dimension. Received {received}."
    )
