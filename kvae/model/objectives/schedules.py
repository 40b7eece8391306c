"""Weights that change during training: schedules, functions of the number of training steps."""

import inspect
import math
import numbers
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf

# The errors of Python code that needs a number where a compiled function has a tensor.
IN_A_GRAPH = (tf.errors.OperatorNotAllowedInGraphError, TypeError, NotImplementedError)
Beta: TypeAlias = float | tf.Variable | keras.Variable | Callable[[Any], Any]  # see `ELBO`


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


def value_of_schedule(schedule: Callable[[Any], Any], step: tf.Tensor) -> Any:
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
