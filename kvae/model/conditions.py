"""The conditions that a user passes to a conditional model: their check, and labels as one-hot vectors.

The condition of a model of C classes is a vector of C numbers, 1 for the class and 0 for all others. Wherever such a
model takes a condition, it also takes labels: whole numbers 0..C-1, one for each image, or a single one for all images.
They become vectors here, in a graph too. `kvae.runtime.decoder.check_condition` does the same without TensorFlow.
"""

from typing import Any

import numpy as np

from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import tf
from kvae.model.hints import Array
from kvae.model.network_calls import join

Shape = tuple[int, ...]


def shape_of(condition: Any, condition_shape: Any) -> Shape | None:
    """The shape of the condition of one image, from the arguments `condition` and `condition_shape` of a model.

    Args:
        condition: a number of classes, a shape, or None.
        condition_shape: a shape, or None.

    Raises:
        UserError: if both are given, or if one is not valid.
    """
    if condition is not None and condition_shape is not None:
        raise UserError("Expected either condition= or condition_shape=. Received both.")
    given = condition_shape if condition is None else condition
    if given is None:
        return None
    if isinstance(given, list | tuple):
        return tuple(check_whole("a side of the condition", side) for side in given)
    return (check_whole("condition, a number of classes,", given),)


def check_condition(condition: Array | None, shape: Shape | None, count: Any = None) -> tf.Tensor | None:
    """Checks a condition and converts it to float32.

    Args:
        condition: condition per image, `[B, ...]`; for a model whose condition is a vector, also labels, whole numbers
            `[B]` or a single one for all images; or None.
        shape: `condition_shape` of the model, or None if it takes no condition.
        count: number of images, B, an int or a tensor, which is checked if its value is known; None if it is not.

    Returns:
        `[B, ...]` float32, or None for a model without a condition.

    Raises:
        UserError: if the model needs a condition and there is none, if the model takes none and there is one, if the
            shape is not correct, or if a label is known and is no class of the model.
    """
    if shape is None:
        if condition is not None:
            raise UserError(
                "Expected no condition: this model was made without condition= and condition_shape=. Received one."
            )
        return None
    known = count if count is None or isinstance(count, int) else tf.get_static_value(count)
    batch = "B" if known is None else int(known)
    wanted = f"[{join((batch, *shape))}]" + (
        f", or labels [{batch}], whole numbers in 0..{shape[0] - 1}" if len(shape) == 1 else ""
    )
    if condition is None:
        raise UserError(f"Expected a condition {wanted} for this model. Received none. Pass condition=.")
    try:
        values = tf.convert_to_tensor(condition)
        converted = tf.cast(values, tf.float32)
    except (TypeError, ValueError, tf.errors.OpError):
        raise UserError(f"Expected numbers as a condition {wanted}. Received {condition!r}.") from None
    received = values.shape
    if received.rank == 0 and count is not None and (not shape or may_be_labels(values, shape)):
        values = tf.fill([count], values)
        converted = tf.cast(values, tf.float32)
    if values.shape.rank == 1 and may_be_labels(values, shape):
        check_labels(tf.get_static_value(values), shape)
        converted = tf.one_hot(tf.cast(values, tf.int32), shape[0])
    fits = converted.shape.rank == 1 + len(shape) and tuple(converted.shape[1:]) == shape
    if not fits or (known is not None and converted.shape[0] not in (None, known)):
        raise UserError(f"Expected a condition {wanted}. Received {received.as_list()} of {values.dtype.name}.")
    return converted


def check_labels(labels: Any, shape: Shape | None) -> None:
    """Raises `UserError` if labels are no classes of a model; other conditions, and None, are not checked.

    Args:
        labels: an array or tensor with values.
        shape: `condition_shape` of the model.
    """
    if labels is None or shape is None or np.ndim(labels) != 1 or not may_be_labels(labels, shape) or not len(labels):
        return
    for label in (int(np.min(labels)), int(np.max(labels))):
        if not 0 <= label < shape[0]:
            raise UserError(
                f"Expected labels in 0..{shape[0] - 1}, because the model has {shape[0]} classes. Received {label}."
            )


def in_memory(condition: Any, shape: Shape | None, count: int) -> Any:
    """The conditions of images in memory, whose labels are checked once, before a training begins.

    Args:
        condition: as in `check_condition`; None if there are none.
        shape: `condition_shape` of the model.
        count: number of images.

    Returns:
        The conditions as they are, or one label per image if there is a single one for all.

    Raises:
        UserError: if a label is no class of the model.
    """
    if condition is None or shape is None:
        return condition
    if len(shape) < 2 and np.ndim(condition) == 0:
        condition = np.full(count, condition)
    check_labels(condition if hasattr(condition, "dtype") else np.asarray(condition), shape)
    return condition


def may_be_labels(values: Any, shape: Shape) -> bool:
    """Whether an array or tensor `[B]` has labels, which only a condition that is a vector has."""
    return len(shape) == 1 and tf.as_dtype(values.dtype).is_integer
