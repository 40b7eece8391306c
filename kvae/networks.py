"""Encoders `x [B, *image] -> (mean, log_var) [B, D]` and decoders `z [B, D] -> logits [B, *image]`.

Two families, a multilayer perceptron and a convolutional pair; any Keras model with the same doors serves as well.
The output heads compute in float32 under every precision policy: densities follow.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kvae.errors import UserError, check_whole, unknown
from kvae.tensorflow import keras, tf

INITIALIZATIONS = ("glorot", "fan_in")
SCALES = ("log_var", "log_sigma")
Shape = tuple[int, ...]


def _check_widths(name: str, widths: Sequence[int]) -> tuple[int, ...]:
    if isinstance(widths, int) or not all(isinstance(width, int | np.integer) and width > 0 for width in widths):
        raise UserError(f"Expected {name} to be a sequence of positive widths such as (500,). Received {widths!r}.")
    return tuple(int(width) for width in widths)


def _check_image_shape(image_shape: Sequence[int]) -> Shape:
    shape = tuple(image_shape)
    if not shape or not all(isinstance(side, int | np.integer) and side > 0 for side in shape):
        raise UserError(f"Expected an image shape of positive sides such as (28, 28, 1). Received {image_shape!r}.")
    return tuple(int(side) for side in shape)


class _Network(keras.Model):
    """What the four networks share: how their layers are made, and so what goes into their configuration."""

    def __init__(
        self,
        activation: Any,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        initialization: str = "glorot",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if initialization not in INITIALIZATIONS:
            raise unknown("initialization", initialization, INITIALIZATIONS)
        self.activation = keras.activations.get(activation)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.initialization = initialization
        self.seed = seed
        self._layers_made = 0

    def _next_seed(self) -> int | None:
        self._layers_made += 1
        return None if self.seed is None else (self.seed * 1_000_003 + self._layers_made) % 2**31

    def _layer(self, kind: type, width: int, fan_in: int, *, head: bool = False, **options: Any) -> Any:
        """A dense or (transposed) convolutional layer; a head is linear and computes in float32."""
        if self.initialization == "glorot":
            kernel, bias = keras.initializers.GlorotUniform(seed=self._next_seed()), "zeros"
        else:  # uniform +-1/sqrt(fan_in) on kernels and biases, the default of PyTorch and of older Torch
            limit = 1 / math.sqrt(fan_in)
            kernel, bias = (keras.initializers.RandomUniform(-limit, limit, seed=self._next_seed()) for _ in range(2))
        return kind(
            width,
            activation=None if head else self.activation,
            kernel_initializer=kernel,
            bias_initializer=options.pop("bias_initializer", None) or bias,
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            dtype="float32" if head else self.dtype_policy,
            **options,
        )

    def _dense_layers(self, widths: tuple[int, ...], fan_in: int) -> tuple[list, int]:
        """Built dense layers one after the other, and the width that the last one leaves."""
        layers = []
        for width in widths:
            layer = self._layer(keras.layers.Dense, width, fan_in)
            layer.build((None, fan_in))
            layers.append(layer)
            fan_in = width
        return layers, fan_in

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "initialization": self.initialization,
            "seed": self.seed,
        }

    def _options(self) -> dict[str, Any]:
        """The options that a mirrored network takes over; its seed is another one, for independent weights."""
        return {
            "activation": self.activation,
            "kernel_regularizer": self.kernel_regularizer,
            "bias_regularizer": self.bias_regularizer,
            "initialization": self.initialization,
            "seed": None if self.seed is None else self.seed + 1,
            "dtype": self.dtype_policy,
        }


class _Encoder(_Network):
    def __init__(self, latent_dim: int, scale: str = "log_var", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if scale not in SCALES:
            raise unknown("scale", scale, SCALES)
        self.latent_dim = check_whole("latent_dim", latent_dim)
        self.scale = scale

    def _make_heads(self, fan_in: int) -> None:
        self.mean_head = self._layer(keras.layers.Dense, self.latent_dim, fan_in, head=True, name="mean")
        self.scale_head = self._layer(keras.layers.Dense, self.latent_dim, fan_in, head=True, name=self.scale)
        for head in (self.mean_head, self.scale_head):
            head.build((None, fan_in))

    def _posterior(self, h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """mean and log_var of q(z|x) from the last hidden layer."""
        heads = (self.mean_head, self.scale_head)
        if self.compute_dtype == "float32":
            # Both in one product: what a second and its two gradients cost beside it is a twentieth of a step on a CPU.
            kernel = tf.concat([tf.convert_to_tensor(head.kernel) for head in heads], axis=1)
            bias = tf.concat([tf.convert_to_tensor(head.bias) for head in heads], axis=0)
            mean, scale = tf.split(tf.matmul(h, kernel) + bias, 2, axis=-1)
        else:  # each head keeps its weights in float32, which this network's policy would round
            mean, scale = (head(h) for head in heads)
        return mean, scale if self.scale == "log_var" else 2.0 * scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "latent_dim": self.latent_dim, "scale": self.scale}


class _Decoder(_Network):
    def __init__(self, image_shape: Sequence[int], output_bias: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_shape = _check_image_shape(image_shape)
        self.output_bias = None if output_bias is None else self._check_bias(output_bias)

    def _check_bias(self, output_bias: Any) -> np.ndarray:
        bias = np.asarray(output_bias, np.float32)
        if bias.size not in (1, math.prod(self.image_shape), self.image_shape[-1]) or not np.isfinite(bias).all():
            raise UserError(
                f"Expected output_bias to be one finite number, one a channel or one a pixel of {self.image_shape}. "
                f"Received shape {bias.shape}."
            )
        return bias

    def get_config(self) -> dict[str, Any]:
        bias = None if self.output_bias is None else self.output_bias.tolist()
        return {**super().get_config(), "image_shape": self.image_shape, "output_bias": bias}


@keras.saving.register_keras_serializable("kvae")
class MLPEncoder(_Encoder):
    """Dense layers and two linear heads.

    Args:
        latent_dim: D.
        hidden_units: widths of the hidden layers, from the image inwards; may be empty.
        activation: of the hidden layers, anything Keras takes.
        scale: what the second head predicts, `"log_var"` or `"log_sigma"`, half of it; q(z|x) can be the same, but the
            steps that Adam takes differ.
        **options: `kernel_regularizer` and `bias_regularizer` of every layer, added to the training loss;
            `initialization`, `"glorot"` (kernels Glorot uniform, biases 0) or `"fan_in"` (both uniform
            +-1/sqrt(fan_in)); `seed` of the initial weights (Keras's global seed where it is None); and what
            `keras.Model` takes.

    Call arguments:
        x: `[B, ...]`; flattened.

    Returns:
        mean `[B, D]` and log_var `[B, D]`, float32.

    Raises:
        UserError: a latent_dim, width or initialization that cannot be.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden_units: Sequence[int] = (500,),
        activation: Any = "tanh",
        scale: str = "log_var",
        **options: Any,
    ) -> None:
        super().__init__(latent_dim, scale, activation=activation, **options)
        self.hidden_units = _check_widths("hidden_units", hidden_units)

    def build(self, input_shape: Shape) -> None:
        fan_in = math.prod(_check_image_shape(input_shape[1:]))
        self.flatten = keras.layers.Flatten(dtype=self.dtype_policy)
        self.hidden, fan_in = self._dense_layers(self.hidden_units, fan_in)
        self._make_heads(fan_in)
        self.built = True

    def call(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        h = self.flatten(x)
        for layer in self.hidden:
            h = layer(h)
        return self._posterior(h)

    def mirror(self, image_shape: Sequence[int], output_bias: Any = None, **options: Any) -> "MLPDecoder":
        """The decoder with the same widths in reverse order and the same options but for those given."""
        return MLPDecoder(
            image_shape, self.hidden_units[::-1], output_bias=output_bias, **{**self._options(), **options}
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_units": self.hidden_units}


@keras.saving.register_keras_serializable("kvae")
class MLPDecoder(_Decoder):
    """Dense layers and a linear head that emits logits.

    Args:
        image_shape: of one image, e.g. `(28, 28, 1)`.
        hidden_units: widths of the hidden layers, from the latent outwards.
        activation: of the hidden layers.
        output_bias: what the head's bias starts at: a number, one a channel or one a pixel; the logit of the
            training mean saves the first epochs. See `logit_of_mean`.
        **options: as in `MLPEncoder`.

    Call arguments:
        z: `[B, D]`.

    Returns:
        logits `[B, *image_shape]`, float32.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden_units: Sequence[int] = (500,),
        activation: Any = "tanh",
        output_bias: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(image_shape, output_bias, activation=activation, **options)
        self.hidden_units = _check_widths("hidden_units", hidden_units)

    def build(self, input_shape: Shape) -> None:
        fan_in = input_shape[-1]
        self.hidden, fan_in = self._dense_layers(self.hidden_units, fan_in)
        bias = None if self.output_bias is None else _constant(self.output_bias, self.image_shape)
        pixels = math.prod(self.image_shape)
        self.head = self._layer(keras.layers.Dense, pixels, fan_in, head=True, bias_initializer=bias, name="logits")
        self.head.build((None, fan_in))
        self.reshape = keras.layers.Reshape(self.image_shape, dtype="float32")
        self.built = True

    def call(self, z: tf.Tensor) -> tf.Tensor:
        h = z
        for layer in self.hidden:
            h = layer(h)
        return self.reshape(self.head(h))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_units": self.hidden_units}


@keras.saving.register_keras_serializable("kvae")
class ConvEncoder(_Encoder):
    """3 x 3 convolutions of stride 2, a dense layer and two linear heads, for images of any size and channel count.

    Args:
        latent_dim: D.
        filters: of the convolutions, from the image inwards; each halves height and width, rounding up.
        dense_units: width of the dense layer between them and the heads.
        activation: of the hidden layers.
        **options: as in `MLPEncoder`.

    Call arguments:
        x: `[B, H, W, C]`.

    Returns:
        mean `[B, D]` and log_var `[B, D]`, float32.

    Raises:
        UserError: the data are not images `[B, H, W, C]`, or an argument cannot be.
    """

    def __init__(
        self,
        latent_dim: int,
        filters: Sequence[int] = (32, 64),
        dense_units: int = 128,
        activation: Any = "relu",
        scale: str = "log_var",
        **options: Any,
    ) -> None:
        super().__init__(latent_dim, scale, activation=activation, **options)
        self.filters = _check_widths("filters", filters)
        self.dense_units = check_whole("dense_units", dense_units)

    def build(self, input_shape: Shape) -> None:
        height, width, channels = _check_height_width_channels(input_shape[1:])
        self.convolutions = []
        for count in self.filters:
            layer = self._layer(keras.layers.Conv2D, count, 9 * channels, kernel_size=3, strides=2, padding="same")
            layer.build((None, height, width, channels))
            self.convolutions.append(layer)
            height, width, channels = -(-height // 2), -(-width // 2), count
        fan_in = height * width * channels
        self.flatten = keras.layers.Flatten(dtype=self.dtype_policy)
        self.dense = self._layer(keras.layers.Dense, self.dense_units, fan_in)
        self.dense.build((None, fan_in))
        self._make_heads(self.dense_units)
        self.built = True

    def call(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        h = x
        for layer in self.convolutions:
            h = layer(h)
        h = self.dense(self.flatten(h))
        return self._posterior(h)

    def mirror(self, image_shape: Sequence[int], output_bias: Any = None, **options: Any) -> "ConvDecoder":
        """The decoder with the same filters in reverse order and the same options but for those given."""
        return ConvDecoder(
            image_shape, self.filters[::-1], self.dense_units, output_bias=output_bias, **{**self._options(), **options}
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "dense_units": self.dense_units}


@keras.saving.register_keras_serializable("kvae")
class ConvDecoder(_Decoder):
    """A dense stem and 3 x 3 transposed convolutions of stride 2, then a linear one that emits logits.

    The stem has ceil(side / 2^n) places a side, n the number of filters; what doubles past the image is cropped, so
    any height and width come out exactly.

    Args:
        image_shape: `(H, W, C)`.
        filters: of the transposed convolutions, from the latent outwards; each doubles height and width.
        dense_units: width of the dense layer before the stem.
        activation: of the hidden layers.
        output_bias: what the last layer's bias starts at: a number or one a channel; the mean of one a pixel.
        **options: as in `MLPEncoder`.

    Call arguments:
        z: `[B, D]`.

    Returns:
        logits `[B, H, W, C]`, float32.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        filters: Sequence[int] = (64, 32),
        dense_units: int = 128,
        activation: Any = "relu",
        output_bias: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(image_shape, output_bias, activation=activation, **options)
        _check_height_width_channels(self.image_shape)
        self.filters = _check_widths("filters", filters)
        self.dense_units = check_whole("dense_units", dense_units)

    def build(self, input_shape: Shape) -> None:
        height, width, channels = self.image_shape
        doublings = len(self.filters)
        stem = (-(-height // 2**doublings), -(-width // 2**doublings), self.filters[0] if self.filters else channels)
        self.dense = self._layer(keras.layers.Dense, self.dense_units, input_shape[-1])
        self.dense.build((None, input_shape[-1]))
        self.stem = self._layer(keras.layers.Dense, math.prod(stem), self.dense_units)
        self.stem.build((None, self.dense_units))
        self.reshape = keras.layers.Reshape(stem, dtype=self.dtype_policy)
        self.convolutions = []
        places = stem
        for count in self.filters:
            layer = self._layer(
                keras.layers.Conv2DTranspose, count, 9 * places[2], kernel_size=3, strides=2, padding="same"
            )
            layer.build((None, *places))
            self.convolutions.append(layer)
            places = (places[0] * 2, places[1] * 2, count)
        bias = None
        if self.output_bias is not None:
            per_pixel = np.broadcast_to(
                self.output_bias.reshape(_bias_shape(self.output_bias, self.image_shape)), self.image_shape
            )
            bias = _constant(per_pixel.mean(axis=(0, 1)), (channels,))
        self.head = self._layer(
            keras.layers.Conv2D,
            channels,
            9 * places[2],
            head=True,
            bias_initializer=bias,
            kernel_size=3,
            padding="same",
            name="logits",
        )
        self.head.build((None, *places))
        extra = (places[0] - height, places[1] - width)
        self.crop = keras.layers.Cropping2D(
            ((extra[0] // 2, extra[0] - extra[0] // 2), (extra[1] // 2, extra[1] - extra[1] // 2)), dtype="float32"
        )
        self.built = True

    def call(self, z: tf.Tensor) -> tf.Tensor:
        h = self.reshape(self.stem(self.dense(z)))
        for layer in self.convolutions:
            h = layer(h)
        return self.crop(self.head(h))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "dense_units": self.dense_units}


def convolves(network: keras.Model) -> bool:
    """Whether a network, kvae's or one of the user's, has convolutions; one that is not built may not know yet."""
    kinds = (ConvEncoder, ConvDecoder, keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    return any(isinstance(layer, kinds) for layer in network._flatten_layers())


def _check_height_width_channels(image_shape: Sequence[int]) -> Shape:
    if len(image_shape) != 3:
        raise UserError(
            f"Expected images [B, H, W, C] for a convolutional network. Received images of shape {tuple(image_shape)}. "
            "Add a channel axis, e.g. x[..., None], or use an MLP."
        )
    return _check_image_shape(image_shape)


def _bias_shape(bias: np.ndarray, image_shape: Shape) -> Shape:
    """The shape in which a bias of one number, one a channel or one a pixel broadcasts against the image."""
    return image_shape if bias.size == math.prod(image_shape) else (bias.size,)


@keras.saving.register_keras_serializable("kvae")
class ConstantValues(keras.initializers.Initializer):
    """An initializer that returns given values; Keras's `Constant` takes one number alone.

    Args:
        values: nested lists of the shape of the weight.
    """

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, np.float32)

    def __call__(self, shape: Shape, dtype: Any = None) -> tf.Tensor:
        return tf.cast(tf.reshape(self.values, shape), dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values.tolist()}


def _constant(bias: np.ndarray, image_shape: Shape) -> ConstantValues:
    return ConstantValues(np.broadcast_to(bias.reshape(_bias_shape(bias, image_shape)), image_shape).ravel())


def logit_of_mean(mean: Any) -> np.ndarray:
    """The output bias at which an untrained decoder predicts the training mean, where the mean is sigmoid(logits).

    So for Bernoulli and Gaussian likelihoods; under a continuous Bernoulli it is only a start nearby.

    Args:
        mean: mean of every pixel over the training images, in [0, 1], any shape.

    Returns:
        log(p / (1 - p)) with p the mean kept within [0.001, 0.999] (a pixel that never changes has an infinite
        logit, and a start at +-7 leaves no gradient to speak of), float32, the shape of `mean`.
    """
    p = np.clip(np.asarray(mean, np.float64), 1e-3, 1 - 1e-3)
    return (np.log(p) - np.log1p(-p)).astype(np.float32)
