"""Weights of an objective that are numbers, or schedules: functions of the number of training steps.

A recipe states a schedule as a table with its kind in `SCHEDULES`, such as
`beta = {kind = "cyclical", beta = 1.0, period = 5000}`.
"""

import inspect
import math
import numbers
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np

from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.tensorflow import keras, tf
from kvae.internal.visible import shown

# The errors of Python code that needs a number where a compiled function has a tensor.
IN_A_GRAPH = (tf.errors.OperatorNotAllowedInGraphError, TypeError, NotImplementedError)
Schedule: TypeAlias = Callable[[Any], Any]
Beta: TypeAlias = float | tf.Variable | keras.Variable | Schedule | dict[str, Any]  # see `ELBO`
Weight: TypeAlias = float | Schedule | dict[str, Any]  # a number, a schedule, or the table of a schedule


@keras.saving.register_keras_serializable("kvae")
class LinearWarmup:
    """A schedule: beta grows linearly from `start` to `beta` over the first `steps` training steps, then is constant.

    Sonderby et al., "Ladder Variational Autoencoders" (2016), on warm-up. Its value depends only on the step, so a
    resumed training continues with the correct value. Evaluation uses the final value.

    Args:
        beta: final value, at least 0.
        steps: number of training steps until the final value, at least 1.
        start: value at step 0, at least 0. 0 by default.

    Call arguments:
        step: number of training steps that the model has made.

    Raises:
        UserError: if beta or start is not a finite number of at least 0, or steps no whole number of at least 1.
    """

    def __init__(self, beta: float, steps: int, start: float = 0.0) -> None:
        self.beta = check_beta(beta)
        self.start = check_number("start", start)
        if isinstance(steps, bool) or not isinstance(steps, numbers.Real) or not float(steps) >= 1 or steps % 1:
            raise UserError(f"Expected a warm-up of at least 1 step, a whole number. Received steps={shown(steps)}.")
        self.steps: int = int(steps)

    def __call__(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        fraction = tf.minimum(tf.cast(step, tf.float32) / self.steps, 1.0)
        return self.start + (self.beta - self.start) * fraction

    def get_config(self) -> dict[str, Any]:
        return {"beta": self.beta, "steps": self.steps, "start": self.start}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LinearWarmup":
        return cls(**config)


@keras.saving.register_keras_serializable("kvae")
class CyclicalAnnealing:
    """A schedule: in each cycle of `period` steps, beta grows linearly from `start` to `beta`, and then is constant.

    Fu et al., "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing" (2019), whose M cycles in
    T iterations have a period of T / M. At step t:

        beta_t = start + (beta - start) min(tau / ratio, 1),   tau = (t mod period) / period

    Its value depends only on the step, so a resumed training continues with the correct value. Evaluation uses the
    value at the end of a cycle.

    Args:
        beta: value at the end of a cycle, at least 0.
        period: number of training steps of a cycle, at least 1.
        ratio: part of a cycle in which beta grows, above 0 and at most 1. 0.5 by default.
        start: value at the start of a cycle, at least 0. 0 by default.

    Call arguments:
        step: number of training steps that the model has made.

    Raises:
        UserError: if an argument is not one of these.
    """

    def __init__(self, beta: float, period: int, ratio: float = 0.5, start: float = 0.0) -> None:
        self.beta = check_beta(beta)
        self.period = check_whole("period", period)
        self.ratio = check_number("ratio", ratio)
        if not 0 < self.ratio <= 1:
            raise UserError(f"Expected ratio to be above 0 and at most 1. Received {ratio}.")
        self.start = check_number("start", start)

    def __call__(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        place = tf.cast(tf.cast(step, tf.int64) % self.period, tf.float32)
        fraction = tf.minimum(place / (self.ratio * self.period), 1.0)
        return self.start + (self.beta - self.start) * fraction

    def get_config(self) -> dict[str, Any]:
        return {"beta": self.beta, "period": self.period, "ratio": self.ratio, "start": self.start}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CyclicalAnnealing":
        return cls(**config)


SCHEDULES: dict[str, Any] = {"linear": LinearWarmup, "cyclical": CyclicalAnnealing}


def from_table(name: str, value: Any) -> Any:
    """The schedule that a table describes by its kind and options; any other value as it is.

    Args:
        name: what the schedule is for, e.g. `"beta"`.
        value: the value of an option.

    Raises:
        UserError: if the kind or an option is unknown, or an option is missing.
    """
    if not isinstance(value, dict):
        return value
    options = {key: option for key, option in value.items() if key != "kind"}
    if value.get("kind") not in SCHEDULES:
        raise unknown(f"kind of schedule for {name}:", value.get("kind"), SCHEDULES)
    schedule = SCHEDULES[value["kind"]]
    try:
        inspect.signature(schedule).bind(**options)
    except TypeError as error:
        expected = ", ".join(inspect.signature(schedule).parameters)
        raise UserError(
            f"Expected {name} with kind = {value['kind']!r} to have options of these: {expected}. Received "
            f"{', '.join(options) or 'none'}: {error}."
        ) from error
    return schedule(**options)


def check_weight(name: str, value: Weight) -> float | Schedule:
    """A weight as a checked number or as a schedule. Raises `UserError` if it is neither."""
    value = from_table(name, value)
    return value if callable(value) else check_number(name, value)


def value_at(name: str, weight: Any, step: int | tf.Tensor | tf.Variable, dtype: tf.DType) -> tf.Tensor:
    """The value of a weight at a step, a number or a variable or a schedule, in the given type."""
    if isinstance(weight, float):
        return tf.constant(weight, dtype)
    if callable(weight):
        weight = _value_of_schedule(name, weight, tf.convert_to_tensor(step))
    return tf.cast(tf.convert_to_tensor(weight), dtype)


def at_end(weight: Any) -> Any:
    """The final value of a schedule that has one; any other weight as it is."""
    return getattr(weight, "beta", weight)


def serialized(weight: Any) -> Any:
    """A weight as JSON can hold it: the current value of a variable, the configuration of a schedule."""
    if is_variable(weight):
        return float(np.asarray(weight))
    return keras.saving.serialize_keras_object(weight) if callable(weight) else weight


def deserialized(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration with the weight `name` as it was before `serialized`."""
    weight = config[name]
    is_schedule = isinstance(weight, dict) and "kind" not in weight
    return {**config, name: keras.saving.deserialize_keras_object(weight) if is_schedule else weight}


def is_variable(beta: Any) -> bool:
    """Whether `beta` is a variable of TensorFlow or Keras."""
    return isinstance(beta, tf.Variable | keras.Variable)


def is_number(beta: Any) -> bool:
    """Whether `beta` is neither a variable nor a schedule; `check_beta` tells whether it is valid."""
    return not (is_variable(beta) or callable(beta))


def check_beta(beta: Any) -> float:
    """`beta` as a float. Raises `UserError` if it is not a finite number of at least 0."""
    return check_number("beta", beta)


def check_number(name: str, value: Any) -> float:
    """`value` as a float. Raises `UserError` if it is not a finite number of at least 0."""
    number = np.asarray(value).item() if _has_one_number(value) else value
    if isinstance(number, bool) or not isinstance(number, numbers.Real) or not math.isfinite(number) or number < 0:
        raise UserError(f"Expected {name} to be a finite number of at least 0. Received {value!r}.")
    return float(number)


def _has_one_number(value: Any) -> bool:
    """Whether `value` is an array or an eager tensor with a single number, as a computed beta often is."""
    return isinstance(value, np.ndarray | np.generic | tf.Tensor) and np.size(value) == 1


def _value_of_schedule(name: str, schedule: Schedule, step: tf.Tensor) -> Any:
    """The value of a schedule at a step, also within a compiled function."""
    try:
        return schedule(step)
    except IN_A_GRAPH as error:
        if inspect.isroutine(schedule):
            with suppress(*IN_A_GRAPH):
                return tf.function(schedule)(step)  # AutoGraph translates conditions such as `if step < 100`.
        raise UserError(
            f"Expected {name} to be a function of the step that TensorFlow can compile, with operations such as "
            f"tf.minimum or tf.where. Received {schedule!r}, which fails: {str(error).splitlines()[0]}"
        ) from error
