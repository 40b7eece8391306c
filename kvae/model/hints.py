"""Type hints of arguments that several modules take."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy.typing

from kvae.internal.tensorflow import keras, tf

Array: TypeAlias = numpy.typing.ArrayLike | tf.Tensor  # numbers: an array, nested lists, one number, or a tensor
Activation: TypeAlias = str | Callable[[Any], Any] | None  # what `keras.activations.get` takes
Regularizer: TypeAlias = str | keras.regularizers.Regularizer | None  # what `keras.regularizers.get` takes
