"""Objectives, which training minimises, one class per objective; and the draws from q that they are computed from.

Everything is in nats per image: summed over pixels and latent dimensions, averaged over the K draws, one number per
image. `elbo` always has beta = 1; `loss` is what training minimises.
"""

import copy
import inspect
import math
import numbers
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.tensorflow import keras, tf
from kvae.model.keywords import check_keywords

KL_KINDS = ("analytic", "sampled")
# The errors of Python code that needs a number where a compiled function has a tensor.
IN_A_GRAPH = (tf.errors.OperatorNotAllowedInGraphError, TypeError, NotImplementedError)
Beta: TypeAlias = float | tf.Variable | keras.Variable | Callable[[Any], Any]  # see `ELBO`


class Draws(NamedTuple):
    """K draws of z ~ q(z|x) for each image of a batch, and their log densities in nats. `VAE.draw` returns them."""

    z: tf.Tensor  # [K, B, D]
    log_likelihood: tf.Tensor  # [K, B]  log p(x|z), summed over the observed pixels
    log_prior: tf.Tensor  # [K, B]  log p(z)
    log_q: tf.Tensor  # [K, B]  log q(z|x)
    kl: tf.Tensor  # [B]  KL(q || p): in closed form, or the mean of log q - log p over the draws; see `Objective.kl`
    kl_per_dimension: tf.Tensor | None  # [B, D]  in closed form; None if q and p have none per dimension
    q: Any  # kvae.model.posteriors.Distribution

    @property
    def reconstruction(self) -> tf.Tensor:
        """-E_q[log p(x|z)], `[B]`."""
        return -tf.reduce_mean(self.log_likelihood, axis=0)

    @property
    def elbo(self) -> tf.Tensor:
        """ELBO = -reconstruction - kl, `[B]`; Kingma and Welling (2014), equation 3."""
        return -self.reconstruction - self.kl

    @property
    def log_weights(self) -> tf.Tensor:
        """log w = log p(x, z) - log q(z|x), `[K, B]`."""
        return self.log_likelihood + self.log_prior - self.log_q


class Objective:
    """Base class of the objectives. A subclass must define `loss`.

    A model with an objective of your own can be saved if the class also defines `get_config` and is registered with
    Keras. An objective is never changed: to train with another one, set `vae.objective` between two calls of `fit`.

    Attributes:
        samples: number of draws of z per image, K.
        kl: how the `kl` of its draws is computed: `"analytic"`, in closed form if q and the prior have one, or
            `"sampled"`, from the draws.
    """

    samples: int = 1
    kl: str = "analytic"

    def __new__(cls, *_: Any, **options: Any) -> "Objective":
        check_keywords(cls, options)
        return super().__new__(cls)

    def __init__(self) -> None:
        """An objective without options."""

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        """The loss of each image.

        An objective can return two losses. Then the gradient of the first one trains the encoder and the posterior, and
        the gradient of the second one trains all other parts. The metric `loss` is the second one.

        Args:
            draws: draws with `samples` z per image.
            step: number of training steps that the model has made, for a schedule.

        Returns:
            `[B]` nats per image, or a pair of these.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method loss(draws, step), in nats per image.")

    def terms(self, draws: Draws) -> dict[str, tf.Tensor]:
        """Further metrics by name, each `[B]`."""
        return {}

    def build(self, data_size: int | None) -> None:
        """`fit` calls it before the training, with the number of training images, or None if it is not known."""

    def at_end(self) -> "Objective":
        """The objective for evaluation: a schedule that has a final value is replaced by this value."""
        return self

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        return cls(**config)


@keras.saving.register_keras_serializable("kvae")
class ELBO(Objective):
    """The loss reconstruction + beta * kl, which is -ELBO for beta = 1.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), equation 3; Higgins et al., "beta-VAE" (2017),
    equation 4.

    Args:
        beta: weight of the KL term, at least 0: a number; a variable of TensorFlow or Keras, whose current value
            counts in each step; or a schedule, a function of the step such as `LinearWarmup` or one of
            `keras.optimizers.schedules`. 1 by default.
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
        return draws.reconstruction + self._beta_at(step) * draws.kl

    def _beta_at(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        beta = self._number if self._given is None else self._given
        if callable(beta):
            beta = _value_of_schedule(beta, tf.convert_to_tensor(step))
        return tf.cast(tf.convert_to_tensor(beta), tf.float32)

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
        beta = self.beta
        if is_variable(beta):
            beta = float(np.asarray(beta))
        elif callable(beta):
            beta = keras.saving.serialize_keras_object(beta)
        return {"beta": beta, "samples": self.samples, "kl": self.kl}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ELBO":
        beta = config["beta"]
        return cls(
            **{**config, "beta": keras.saving.deserialize_keras_object(beta) if isinstance(beta, dict) else beta}
        )


def _value_of_schedule(schedule: Callable[[Any], Any], step: tf.Tensor) -> Any:
    """The value of a schedule at a step, also within a compiled function."""
    try:
        return schedule(step)
    except IN_A_GRAPH as error:
        if inspect.isroutine(schedule):
            with suppress(*IN_A_GRAPH):
                return tf.function(schedule)(step)  # AutoGraph translates conditions such as `if step < 100`.
        raise UserError(
            "Expected beta to be a function of the step that TensorFlow can compile, with operations such as "
            f"tf.minimum or tf.where. Received {schedule!r}, which fails: {str(error).splitlines()[0]}"
        ) from error


OBJECTIVES: dict[str, type[Objective]] = {"elbo": ELBO}


def get(objective: "str | Objective") -> Objective:
    """The objective itself, or a new one from its name in `OBJECTIVES`. Raises `UserError` if it is neither."""
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, str) and objective in OBJECTIVES:
        return OBJECTIVES[objective]()
    raise unknown("objective", objective, OBJECTIVES)


def importance_weighted_bound(log_weights: tf.Tensor) -> tf.Tensor:
    """log 1/K sum_k w_k, a lower bound of log p(x) that becomes tighter with K.

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), equation 8.

    Args:
        log_weights: log w_k = log p(x, z_k) - log q(z_k|x) at draws z_k ~ q(z|x), `[K, B]`.

    Returns:
        `[B]` nats.
    """
    samples = tf.cast(tf.shape(log_weights)[0], log_weights.dtype)
    return tf.reduce_logsumexp(log_weights, axis=0) - tf.math.log(samples)


@keras.saving.register_keras_serializable("kvae")
class LinearWarmup:
    """A schedule: beta grows linearly from `start` to `beta` over the first `steps` training steps, then is constant.

    Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2.3. Its value depends only on the step, so a
    resumed training continues with the correct value. Evaluation uses the final value.

    Args:
        beta: final value, at least 0.
        steps: number of training steps until the final value, at least 1.
        start: value at step 0, at least 0. 0 by default.

    Call arguments:
        step: number of training steps that the model has made.

    Raises:
        UserError: if beta or start is not a finite number of at least 0, or there is less than one step.
    """

    def __init__(self, beta: float, steps: int, start: float = 0.0) -> None:
        self.beta = check_beta(beta)
        self.start = check_beta(start)
        if steps < 1:
            raise UserError(f"Expected a warm-up of at least 1 step. Received steps={steps}.")
        self.steps = int(steps)

    def __call__(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        fraction = tf.minimum(tf.cast(step, tf.float32) / self.steps, 1.0)
        return self.start + (self.beta - self.start) * fraction

    def get_config(self) -> dict[str, Any]:
        return {"beta": self.beta, "steps": self.steps, "start": self.start}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LinearWarmup":
        return cls(**config)


def is_variable(beta: Any) -> bool:
    """Whether `beta` is a variable of TensorFlow or Keras."""
    return isinstance(beta, tf.Variable | keras.Variable)


def is_number(beta: Any) -> bool:
    """Whether `beta` is neither a variable nor a schedule; `check_beta` tells whether it is valid."""
    return not (is_variable(beta) or callable(beta))


def check_beta(beta: Any) -> float:
    """`beta` as a float. Raises `UserError` if it is not a finite number of at least 0."""
    number = np.asarray(beta).item() if _has_one_number(beta) else beta
    if isinstance(number, bool) or not isinstance(number, numbers.Real) or not math.isfinite(number) or number < 0:
        raise UserError(f"Expected beta to be a finite number of at least 0. Received {beta!r}.")
    return float(number)


def _has_one_number(value: Any) -> bool:
    """Whether `value` is an array or an eager tensor with a single number, as a computed beta often is."""
    return isinstance(value, np.ndarray | np.generic | tf.Tensor) and np.size(value) == 1
