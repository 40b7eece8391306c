"""The importance-weighted bound, and the objectives that are made of it."""

from typing import Any

from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model.objectives.base import Draws, Objective
from kvae.model.objectives.schedules import check_number
from kvae.model.posteriors import Posterior
from kvae.model.priors import Prior


def importance_weighted_bound(log_weights: tf.Tensor) -> tf.Tensor:
    """log 1/K sum_k w_k, a lower bound of log p(x) that becomes tighter with K.

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), equation 8.

    Args:
        log_weights: log w_k = log p(x, z_k) - log q(z_k|x) at draws z_k ~ q(z|x), `[K, ..., B]`.

    Returns:
        `[..., B]` nats.
    """
    samples = tf.cast(tf.shape(log_weights)[0], log_weights.dtype)
    return tf.reduce_logsumexp(log_weights, axis=0) - tf.math.log(samples)


@keras.saving.register_keras_serializable("kvae")
class IWAE(Objective):
    """Minus the importance-weighted bound, -log 1/K sum_k w_k with w_k = p(x, z_k) / q(z_k|x).

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), equation 8. With K = 1 it is the ELBO
    with a sampled KL term.

    Args:
        samples: number of draws of z per image, K. 5 by default.

    Raises:
        UserError: if samples is not a whole number of at least 1.
    """

    def __init__(self, samples: int = 5) -> None:
        self.samples = check_whole("samples", samples)

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> Any:
        return -importance_weighted_bound(draws.log_weights)

    def get_config(self) -> dict[str, Any]:
        return {"samples": self.samples}


@keras.saving.register_keras_serializable("kvae")
class DReG(IWAE):
    """The importance-weighted bound, with the doubly reparameterized gradient for the encoder and the posterior.

    Tucker, Lawson, Gu and Maddison, "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives" (2019).
    The gradient for the parameters phi of q has the expectation of that of `IWAE`, and usually less variance:

        sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi),   v_k = w_k / sum_j w_j

    All other parts have the gradient of `IWAE`. With K = 1 it is the gradient of the ELBO without the score of q, as in
    Roeder, Wu and Duvenaud, "Sticking the Landing" (2017).

    Args:
        samples: number of draws of z per image, K. 5 by default.

    Raises:
        UserError: if samples is not a whole number of at least 1, or if the prior of the model depends on its encoder:
            then log w also depends on phi by the prior, for which this gradient is not correct.
    """

    def check(self, prior: Prior, posterior: Posterior) -> None:
        if type(prior).bind is not Prior.bind:
            raise UserError(
                f"Expected a prior that does not depend on the encoder for the objective DReG. Received "
                f"{type(prior).__name__}. Use the objective IWAE, whose gradient is correct for every prior."
            )

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tuple[tf.Tensor, tf.Tensor]:
        # Without gradients of the parameters of q in log q, the only path to phi is that through z.
        log_q = draws.q.stop_gradient().log_prob(draws.z)
        log_weights = draws.log_likelihood + draws.log_prior - log_q
        normalized = tf.stop_gradient(tf.nn.softmax(draws.log_weights, axis=0))
        return -tf.reduce_sum(tf.square(normalized) * log_weights, axis=0), super().loss(draws, step)


@keras.saving.register_keras_serializable("kvae")
class MIWAE(IWAE):
    """The mean of M importance-weighted bounds, each with K / M of the K draws.

        -1/M sum_m log (M / K sum_(k in group m) w_k)

    Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better" (2018), section 5. The gradient of the
    encoder has less noise than that of one bound with all draws. With one group it is `IWAE`; with as many groups as
    draws it is the ELBO with a sampled KL term.

    Args:
        samples: number of draws of z per image, K. 16 by default.
        groups: number of bounds, M, a divisor of K. 4 by default.

    Raises:
        UserError: if an argument is not one of these.
    """

    def __init__(self, samples: int = 16, groups: int = 4) -> None:
        super().__init__(samples)
        self.groups = check_whole("groups", groups)
        if self.samples % self.groups:
            raise UserError(
                f"Expected samples to be a multiple of groups, so that all groups have the same size. Received "
                f"samples={samples} and groups={groups}."
            )

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> Any:
        images = tf.shape(draws.log_weights)[1]
        in_groups = tf.reshape(draws.log_weights, [-1, self.groups, images])  # [K / M, M, B]
        return -tf.reduce_mean(importance_weighted_bound(in_groups), axis=0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}


@keras.saving.register_keras_serializable("kvae")
class PIWAE(MIWAE):
    """Two losses: that of `MIWAE` for the encoder and the posterior, and that of `IWAE` for all other parts.

        -1/M sum_m log (M / K sum_(k in group m) w_k),   -log 1/K sum_k w_k

    Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better" (2018), section 5.

    Args:
        samples: number of draws of z per image, K. 16 by default.
        groups: number of bounds for the encoder, M, a divisor of K. 4 by default.

    Raises:
        UserError: if an argument is not one of these.
    """

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tuple[tf.Tensor, tf.Tensor]:
        return super().loss(draws, step), -importance_weighted_bound(draws.log_weights)


@keras.saving.register_keras_serializable("kvae")
class CIWAE(IWAE):
    """A combination of the ELBO with a sampled KL term and the importance-weighted bound.

        -(weight mean_k log w_k + (1 - weight) log 1/K sum_k w_k)

    Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better" (2018), section 5, with beta for weight.

    Args:
        samples: number of draws of z per image, K. 5 by default.
        weight: weight of the ELBO, from 0 to 1. 0.5 by default.

    Raises:
        UserError: if an argument is not one of these.
    """

    def __init__(self, samples: int = 5, weight: float = 0.5) -> None:
        super().__init__(samples)
        self.weight = check_number("weight", weight)
        if self.weight > 1:
            raise UserError(f"Expected weight to be from 0 to 1. Received {weight}.")

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        elbo = tf.reduce_mean(draws.log_weights, axis=0)
        return -(self.weight * elbo + (1 - self.weight) * importance_weighted_bound(draws.log_weights))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight": self.weight}
