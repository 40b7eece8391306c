"""The ELBO with a weight of its KL term."""

import copy
from typing import Any

from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.tensorflow import keras, tf
from kvae.model.objectives import schedules
from kvae.model.objectives.base import KL_KINDS, Draws, Objective
from kvae.model.objectives.schedules import Beta, check_beta, is_number


@keras.saving.register_keras_serializable("kvae")
class ELBO(Objective):
    """The loss reconstruction + beta * kl, which is -ELBO for beta = 1.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), equation 3; Higgins et al., "beta-VAE" (2017),
    equation 4.

    Args:
        beta: weight of the KL term, at least 0: a number; a variable of TensorFlow or Keras, whose current value
            counts in each step; or a schedule, a function of the step such as `LinearWarmup` or one of
            `keras.optimizers.schedules`, or a table such as {kind = "cyclical", beta = 1.0, period = 5000}. 1 by
            default.
        samples: number of draws of z per image, K. 1 by default.
        kl: `"analytic"`, the default, or `"sampled"` for log q(z|x) - log p(z) at the draws.

    Raises:
        UserError: if an argument is not one of these.
    """

    def __init__(self, beta: Beta = 1.0, samples: int = 1, kl: str = "analytic") -> None:
        self._set_up_beta(beta)
        self.samples = check_whole("samples", samples)
        if kl not in KL_KINDS:
            raise unknown("kl", kl, KL_KINDS)
        self.kl = kl

    def _set_up_beta(self, beta: Beta) -> None:
        beta = schedules.from_table("beta", beta)
        self._given = None if is_number(beta) else beta
        if self._given is None:
            # In a variable, a number can be changed during training without another compilation.
            self._number = keras.Variable(check_beta(beta), dtype="float32", trainable=False, name="beta")
            self._exact = check_beta(beta)

    @property
    def beta(self) -> Any:
        """Weight of the KL term: a number, or the variable or schedule that was given.

        A number can be replaced by another one at any time, also by a callback during `fit`.

        Raises:
            UserError: if it is set to anything but a number of at least 0, or was not a number before.
        """
        return self._exact if self._given is None else self._given

    @beta.setter
    def beta(self, beta: float) -> None:
        if self._given is not None:
            raise UserError("Expected an ELBO whose beta is a number, to set its beta. Make a new ELBO(beta=...).")
        self._exact = check_beta(beta)
        self._number.assign(self._exact)

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        beta = self._number if self._given is None else self._given
        return draws.reconstruction + schedules.value_at("beta", beta, step, draws.kl.dtype) * draws.kl

    def at_end(self) -> "ELBO":
        final = getattr(self._given, "beta", None)
        if final is None:
            return self
        other = copy.copy(self)
        # Not a variable, because this is called within compiled functions, which cannot make one.
        other._given, other._exact, other._number = None, final, tf.constant(final, tf.float32)
        return other

    def with_beta(self, beta: Beta) -> "ELBO":
        """A copy of the objective with another beta. Raises `UserError` as the constructor does."""
        other = copy.copy(self)
        other._set_up_beta(beta)
        return other

    def get_config(self) -> dict[str, Any]:
        return {"beta": schedules.serialized(self.beta), "samples": self.samples, "kl": self.kl}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ELBO":
        return cls(**schedules.deserialized(config, "beta"))
