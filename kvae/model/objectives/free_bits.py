"""Free bits: a part of the KL term that costs nothing."""

from typing import Any

from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model.objectives.base import Draws, Objective, lacks_kl_per_dimension
from kvae.model.objectives.schedules import check_number
from kvae.model.posteriors import Posterior
from kvae.model.priors import Prior


@keras.saving.register_keras_serializable("kvae")
class FreeBits(Objective):
    """The loss of the ELBO, in which the KL term of each group of latent dimensions counts at least `nats`.

        reconstruction + sum_g max(nats, KL_g),   KL_g the mean over the images of the batch

    Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow" (2016), appendix C.8. A group
    with a lower KL term has no gradient from it, so it is not pushed to the prior. With 0 nats the loss is -ELBO.
    The loss depends on the whole batch, also under `tf.distribute`, so that of an evaluation depends on the batch size.
    Where the KL term is computed from draws, KL_g is the mean of noisy estimates, so that its maximum with `nats` is on
    average a little too large; larger batches and more draws bring it closer.

    Args:
        nats: lowest KL term of a group, at least 0. 0.25 by default.
        groups: number of groups of successive latent dimensions, a divisor of the latent size; 1 for the whole KL term,
            which every prior and posterior has. By default each dimension is a group.
        samples: number of draws of z per image, K. 1 by default.

    Raises:
        UserError: if an argument is not one of these; when a model gets it, if q and p have no KL term per dimension in
            closed form; in training, if the latent size is not a multiple of `groups`.
    """

    def __init__(self, nats: float = 0.25, groups: int | None = None, samples: int = 1) -> None:
        self.nats = check_number("nats", nats)
        self.groups = None if groups is None else check_whole("groups", groups)
        self.samples = check_whole("samples", samples)

    def check(self, prior: Prior, posterior: Posterior) -> None:
        if self.groups != 1 and lacks_kl_per_dimension(prior, posterior):
            raise self._needs_closed_form(f"{type(posterior).__name__} with {type(prior).__name__}")

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        kl = self._of_groups(draws)
        # Images count with their own KL term where the mean over the batch is above the limit. So the mean of these
        # losses is that of the equation, with its gradient, although each loss is of one image.
        counted = tf.where(_mean_over_batch(kl) >= self.nats, kl, tf.constant(self.nats, kl.dtype))
        return draws.reconstruction + tf.reduce_sum(counted, axis=-1)

    def _of_groups(self, draws: Draws) -> tf.Tensor:
        """The KL term of each image and group, `[B, G]`."""
        if self.groups == 1:
            return draws.kl[:, None]
        kl = draws.kl_per_dimension
        if kl is None:
            raise self._needs_closed_form(f"a posterior that makes {type(draws.q).__name__}")
        if self.groups is None:
            return kl
        if kl.shape[-1] % self.groups:
            raise UserError(
                f"Expected the latent size to be a multiple of groups={self.groups}, for the objective FreeBits. "
                f"Received a model of {kl.shape[-1]} latent dimensions."
            )
        return tf.reduce_sum(tf.reshape(kl, [-1, self.groups, kl.shape[-1] // self.groups]), axis=-1)

    def _needs_closed_form(self, received: str) -> UserError:
        return UserError(
            "Expected a posterior and a prior with a KL term per dimension in closed form for the objective FreeBits, "
            f"such as diagonal_gaussian and standard_normal. Received {received}. For these, use one group: groups=1."
        )

    def get_config(self) -> dict[str, Any]:
        return {"nats": self.nats, "groups": self.groups, "samples": self.samples}


def _mean_over_batch(kl: tf.Tensor) -> tf.Tensor:
    """The mean over the images of the whole batch, `[B, G]` -> `[G]`, without a gradient."""
    total, count = tf.stop_gradient(tf.reduce_sum(kl, axis=0)), tf.cast(tf.shape(kl)[0], kl.dtype)
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        total, count = replica.all_reduce(tf.distribute.ReduceOp.SUM, [total, count])
    return total / count
