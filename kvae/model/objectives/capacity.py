"""A capacity, to which the KL term is drawn."""

import copy
from typing import Any

from kvae.internal.errors import check_whole, unknown
from kvae.internal.tensorflow import keras, tf
from kvae.model.objectives import schedules
from kvae.model.objectives.base import KL_KINDS, Draws, Objective
from kvae.model.objectives.schedules import Weight, check_number, check_weight


@keras.saving.register_keras_serializable("kvae")
class Capacity(Objective):
    """The loss reconstruction + gamma |kl - capacity|, which draws the KL term of each image to a capacity in nats.

    Burgess et al., "Understanding disentangling in beta-VAE" (2018), equation 8. There the capacity grows linearly
    during training. With gamma = 1 the capacity is the target rate of Alemi et al., "Fixing a Broken ELBO" (2018). With
    gamma = 1 and capacity = 0 the loss is -ELBO. Where the KL term is computed from K draws, the distance is that of
    this estimate. Near the capacity its mean, E|estimate - capacity|, is above |kl - capacity|; more draws bring it
    closer.

    Args:
        gamma: weight of the distance between KL term and capacity, at least 0. 1000 by default, as in the paper.
        capacity: nats per image, at least 0: a number; or a schedule, a function of the step such as
            `LinearWarmup(25.0, steps=10_000)` or one of `keras.optimizers.schedules`, or a table such as
            {kind = "linear", beta = 25.0, steps = 10000}, whose `beta` is the final value. 25 by default.
        samples: number of draws of z per image, K. 1 by default.
        kl: `"analytic"`, the default, or `"sampled"` for log q(z|x) - log p(z) at the draws.

    Raises:
        UserError: if an argument is not one of these.
    """

    def __init__(self, gamma: float = 1000.0, capacity: Weight = 25.0, samples: int = 1, kl: str = "analytic") -> None:
        self.gamma = check_number("gamma", gamma)
        self.capacity = check_weight("capacity", capacity)
        self.samples = check_whole("samples", samples)
        if kl not in KL_KINDS:
            raise unknown("kl", kl, KL_KINDS)
        self.kl = kl

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        capacity = schedules.value_at("capacity", self.capacity, step, draws.kl.dtype)
        return draws.reconstruction + self.gamma * tf.abs(draws.kl - capacity)

    def at_end(self) -> "Capacity":
        other = copy.copy(self)
        other.capacity = schedules.at_end(self.capacity)
        return other

    def get_config(self) -> dict[str, Any]:
        capacity = schedules.serialized(self.capacity)
        return {"gamma": self.gamma, "capacity": capacity, "samples": self.samples, "kl": self.kl}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Capacity":
        return cls(**schedules.deserialized(config, "capacity"))
