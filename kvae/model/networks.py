"""Encoders `x [B, *image] -> parameters of q(z|x)` and decoders `z [B, D] -> parameters of p(x|z)`.

Two families, a multilayer perceptron and a convolutional pair; any Keras model with the same interface serves as well.
What an encoder emits is the posterior's to say, (mean, log_var) for a diagonal Gaussian; what a decoder emits is the
likelihood's, logits of the images for a Bernoulli. The output heads compute in float32 under every precision policy:
densities follow.
"""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.tensorflow import keras, tf

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
    def __init__(
        self, latent_dim: int, scale: str = "log_var", sizes: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if scale not in SCALES:
            raise unknown("scale", scale, SCALES)
        self.latent_dim = check_whole("latent_dim", latent_dim)
        self.scale = scale
        self.sizes = None if sizes is None else _check_widths("sizes", sizes)

    def emit(self, sizes: Shape) -> None:
        """Makes the encoder return tensors of these widths: called by `VAE.build` for a posterior that needs others.

        Raises:
            UserError: the encoder is built already, with other heads.
        """
        wanted = None if sizes == (self.latent_dim, self.latent_dim) else sizes
        if wanted == self.sizes:
            return
        if self.built:
            raise UserError(f"Expected an encoder that is not built yet, to emit {sizes}. Received one that is.")
        self.sizes = wanted

    def _make_heads(self, fan_in: int) -> None:
        if self.sizes is not None:
            self.heads = [self._layer(keras.layers.Dense, size, fan_in, head=True) for size in self.sizes]
            for head in self.heads:
                head.build((None, fan_in))
            return
        self.mean_head = self._layer(keras.layers.Dense, self.latent_dim, fan_in, head=True, name="mean")
        self.scale_head = self._layer(keras.layers.Dense, self.latent_dim, fan_in, head=True, name=self.scale)
        for head in (self.mean_head, self.scale_head):
            head.build((None, fan_in))

    def _posterior(self, h: tf.Tensor) -> Any:
        """The parameters of q(z|x) from the last hidden layer, a tensor or several: mean and log_var as a rule."""
        if self.sizes is not None:
            emitted = tuple(head(h) for head in self.heads)
            return emitted if len(emitted) > 1 else emitted[0]
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
        return {**super().get_config(), "latent_dim": self.latent_dim, "scale": self.scale, "sizes": self.sizes}


class _Decoder(_Network):
    def __init__(self, image_shape: Sequence[int], output_bias: Any, numbers_per_pixel: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_shape = _check_image_shape(image_shape)
        self.numbers_per_pixel = check_whole("numbers_per_pixel", numbers_per_pixel)
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
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "output_bias": bias,
            "numbers_per_pixel": self.numbers_per_pixel,
        }

    @property
    def parameters_shape(self) -> Shape:
        """Of what is emitted for one image."""
        return self.image_shape if self.numbers_per_pixel == 1 else (*self.image_shape, self.numbers_per_pixel)

    def _bias(self, values: np.ndarray) -> "ConstantValues":
        """An initializer for biases `[..., n]`: the values for the first number of every pixel, 0 for the others."""
        filled = np.zeros((*values.shape, self.numbers_per_pixel), np.float32)
        filled[..., 0] = values
        return ConstantValues(filled.ravel())


@keras.saving.register_keras_serializable("kvae")
class MLPEncoder(_Encoder):
    """Dense layers and linear heads, two for a diagonal Gaussian.

    Args:
        latent_dim: D.
        hidden_units: widths of the hidden layers, from the image inwards; may be empty.
        activation: of the hidden layers, anything Keras takes.
        scale: what the second head predicts, `"log_var"` or `"log_sigma"`, half of it; q(z|x) can be the same, but the
            steps that Adam takes differ.
        **options: `kernel_regularizer` and `bias_regularizer` of every layer, added to the training loss;
            `initialization`, `"glorot"` (kernels Glorot uniform, biases 0) or `"fan_in"` (both uniform
            +-1/sqrt(fan_in)); `seed` of the initial weights (Keras's global seed where it is None); `sizes`, widths of
            other heads than the two, which a model sets for its posterior; and what `keras.Model` takes.

    Call arguments:
        x: `[B, ...]`; flattened.

    Returns:
        mean `[B, D]` and log_var `[B, D]`, float32; or tensors of the widths `sizes`.

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
    """Dense layers and a linear head that emits the parameters of p(x|z), logits for a Bernoulli likelihood.

    Args:
        image_shape: of one image, e.g. `(28, 28, 1)`.
        hidden_units: widths of the hidden layers, from the latent outwards.
        activation: of the hidden layers.
        output_bias: what the head's bias starts at: a number, one a channel or one a pixel; the logit of the
            training mean saves the first epochs. See `logit_of_mean`.
        numbers_per_pixel: n, for a likelihood that needs more than one number a pixel.
        **options: as in `MLPEncoder`.

    Call arguments:
        z: `[B, D]`.

    Returns:
        `[B, *image_shape]`, or `[B, *image_shape, n]` for n above 1; float32.
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
        bias = None if self.output_bias is None else self._bias(_per_pixel(self.output_bias, self.image_shape))
        width = math.prod(self.parameters_shape)
        self.head = self._layer(keras.layers.Dense, width, fan_in, head=True, bias_initializer=bias, name="logits")
        self.head.build((None, fan_in))
        self.reshape = keras.layers.Reshape(self.parameters_shape, dtype="float32")
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
    """3 x 3 convolutions of stride 2, a dense layer and linear heads, for images of any size and channel count.

    Args:
        latent_dim: D.
        filters: of the convolutions, from the image inwards; each halves height and width, rounding up.
        dense_units: width of the dense layer between them and the heads.
        activation: of the hidden layers.
        **options: as in `MLPEncoder`.

    Call arguments:
        x: `[B, H, W, C]`.

    Returns:
        mean `[B, D]` and log_var `[B, D]`, float32; or tensors of the widths `sizes`.

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
    """A dense stem and 3 x 3 transposed convolutions of stride 2, then a linear one: it emits the parameters of p(x|z).

    The stem has ceil(side / 2^n) places a side, n the number of filters; what doubles past the image is cropped, so
    any height and width come out exactly.

    Args:
        image_shape: `(H, W, C)`.
        filters: of the transposed convolutions, from the latent outwards; each doubles height and width.
        dense_units: width of the dense layer before the stem.
        activation: of the hidden layers.
        output_bias: what the last layer's bias starts at: a number or one a channel; the mean of one a pixel.
        numbers_per_pixel: n, for a likelihood that needs more than one number a pixel.
        **options: as in `MLPEncoder`.

    Call arguments:
        z: `[B, D]`.

    Returns:
        `[B, H, W, C]`, or `[B, H, W, C, n]` for n above 1; float32.
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
            bias = self._bias(_per_pixel(self.output_bias, self.image_shape).mean(axis=(0, 1)))
        self.head = self._layer(
            keras.layers.Conv2D,
            channels * self.numbers_per_pixel,
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
        if self.numbers_per_pixel > 1:
            self.split = keras.layers.Reshape(self.parameters_shape, dtype="float32")
        self.built = True

    def call(self, z: tf.Tensor) -> tf.Tensor:
        h = self.reshape(self.stem(self.dense(z)))
        for layer in self.convolutions:
            h = layer(h)
        h = self.crop(self.head(h))
        return h if self.numbers_per_pixel == 1 else self.split(h)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "dense_units": self.dense_units}


def takes_condition(network: Any) -> bool:
    """Whether a network's `call` has the keyword `condition`."""
    return "condition" in inspect.signature(network.call).parameters


def call(network: Any, inputs: Any, condition: Any = None, training: bool = False) -> Any:
    """Calls a network, with the condition `[B, ...]` where there is one and the network takes it."""
    if condition is None or not takes_condition(network):
        return network(inputs, training=training)
    return network(inputs, condition=condition, training=training)


def _check_height_width_channels(image_shape: Sequence[int]) -> Shape:
    if len(image_shape) != 3:
        raise UserError(
            f"Expected images [B, H, W, C] for a convolutional network. Received images of shape {tuple(image_shape)}. "
            "Add a channel axis, e.g. x[..., None], or use an MLP."
        )
    return _check_image_shape(image_shape)


def _per_pixel(bias: np.ndarray, image_shape: Shape) -> np.ndarray:
    """A bias of one number, one a channel or one a pixel, as one a pixel and channel."""
    shape = image_shape if bias.size == math.prod(image_shape) else (bias.size,)
    return np.broadcast_to(bias.reshape(shape), image_shape)


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
