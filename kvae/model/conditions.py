"""The check of the condition that a user passes to a conditional model, or to one that takes none."""

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model.hints import Array
from kvae.model.network_calls import join


def check_condition(
    condition: Array | None, shape: tuple[int, ...] | None, count: int | None = None
) -> tf.Tensor | None:
    """Checks a condition and converts it to float32.

    Args:
        condition: condition per image, `[B, ...]`, or None.
        shape: `condition_shape` of the model, or None if it takes no condition.
        count: number of images, B, or None if it is not known.

    Returns:
        `[B, ...]` float32, or None for a model without a condition.

    Raises:
        UserError: if the model needs a condition and there is none, if the model takes none and there is one, or if
            the shape is not correct.
    """
    if shape is None:
        if condition is not None:
            raise UserError("Expected no condition: this model was made without condition_shape=. Received one.")
        return None
    wanted = f"[{join(('B' if count is None else count, *shape))}]"
    if condition is None:
        raise UserError(f"Expected a condition {wanted} for this model. Received none. Pass condition=.")
    try:
        converted = tf.cast(tf.convert_to_tensor(condition), tf.float32)
    except (TypeError, ValueError, tf.errors.OpError):
        raise UserError(f"Expected numbers as a condition {wanted}. Received {condition!r}.") from None
    received = converted.shape
    fits = received.rank == 1 + len(shape) and tuple(received[1:]) == shape
    if not fits or (count is not None and received[0] != count):
        raise UserError(f"Expected a condition {wanted}. Received {received.as_list()}.")
    return converted
