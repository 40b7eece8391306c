"""The convolutional networks, for images `[H, W, C]` of any size and channel count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model.hints import Activation, Array
from kvae.model.networks.base import Decoder, Encoder, Network, Shape, check_image_shape, check_widths
from kvae.model.networks.output_bias import per_pixel


class Stages(Network):
    """What a subclass may add to each stage of a convolutional network, at the smaller of its two sizes."""

    def _build_stage(self, shape: Shape) -> None:
        """Makes the layers that a stage has beside its (transposed) convolution, for feature maps of this shape."""

    def _stage(self, stage: int, h: tf.Tensor) -> tf.Tensor:
        """The feature maps h `[B, H, W, filters]` after these layers of a stage."""
        return h


@keras.saving.register_keras_serializable("kvae")
class ConvEncoder(Stages, Encoder):
    """3 x 3 convolutions of stride 2, a dense layer and linear heads.

    Strides in place of pooling are those of Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep
    Convolutional Generative Adversarial Networks" (2016).

    Args:
        latent_dim: latent size, D.
        filters: number of filters of each convolution, from the image to the latent. Each convolution halves height and
            width, rounding up. (32, 64) by default.
        dense_units: width of the dense layer between the convolutions and the heads. 128 by default.
        activation: activation of the hidden layers. `"relu"` by default.
        scale: what the second head predicts, `"log_var"` (the default) or `"log_sigma"`, half of it.
        **options: as in `kvae.networks.MLPEncoder`.

    Call arguments:
        x: images, `[B, H, W, C]`.
        condition: condition per image, `[B, *condition_shape]`. It is flattened and joined to what the convolutions
            return. Not used by a network without `condition_shape`.

    Returns:
        mean `[B, D]` and log_var `[B, D]`, float32; or tensors of the widths `sizes`.

    Raises:
        UserError: if x does not have the shape `[B, H, W, C]`, or an argument is not valid.
    """

    def __init__(
        self,
        latent_dim: int,
        filters: Sequence[int] = (32, 64),
        dense_units: int = 128,
        activation: Activation = "relu",
        scale: str = "log_var",
        **options: Any,
    ) -> None:
        super().__init__(latent_dim, scale, activation=activation, **options)
        self.filters = check_widths("filters", filters)
        self.dense_units = check_whole("dense_units", dense_units)

    def build(self, input_shape: Shape) -> None:
        height, width, channels = _check_height_width_channels(input_shape[1:])
        self.convolutions = []
        for count in self.filters:
            halved = -(-height // 2), -(-width // 2)
            layer = self._layer(
                keras.layers.Conv2D,
                count,
                9 * channels,
                places=math.prod(halved),
                kernel_size=3,
                strides=2,
                padding="same",
            )
            layer.build((None, height, width, channels))
            self.convolutions.append(layer)
            height, width, channels = *halved, count
            self._build_stage((height, width, channels))
        fan_in = height * width * channels
        self.flatten = keras.layers.Flatten(dtype=self.dtype_policy)
        self.flatten.build((None, height, width, channels))
        fan_in = self._width_with_condition(fan_in)
        self.dense = self._layer(keras.layers.Dense, self.dense_units, fan_in)
        self.dense.build((None, fan_in))
        self._make_heads(self.dense_units)
        self.built = True

    def call(self, x: tf.Tensor, condition: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        h = x
        for stage, layer in enumerate(self.convolutions):
            h = self._stage(stage, layer(h))
        h = self.dense(self._with_condition(self.flatten(h), condition))
        return self._posterior(h)

    def mirror(self, image_shape: Sequence[int], output_bias: Array | None = None, **options: Any) -> ConvDecoder:
        """A decoder with the same filters in reverse order. `options` replace those of the encoder."""
        return ConvDecoder(
            image_shape, self.filters[::-1], self.dense_units, output_bias=output_bias, **{**self._options(), **options}
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "dense_units": self.dense_units}


@keras.saving.register_keras_serializable("kvae")
class ConvDecoder(Stages, Decoder):
    """Two dense layers, 3 x 3 transposed convolutions of stride 2 and a linear convolution that returns the parameters.

    The second dense layer makes a feature map of height ceil(H / 2^n) and width ceil(W / 2^n) for n transposed
    convolutions, each of which doubles both. The output is cropped to the image, so any height and width are possible.

    Args:
        image_shape: shape of one image, `(H, W, C)`.
        filters: number of filters of each transposed convolution, from the latent to the image. (64, 32) by default.
        dense_units: width of the first dense layer. 128 by default.
        activation: activation of the hidden layers. `"relu"` by default.
        output_bias: initial bias of the last layer: one number or one per channel. Of one per pixel, the mean of each
            channel is taken.
        numbers_per_pixel: number of parameters per pixel that the likelihood needs, n. 1 by default.
        **options: as in `kvae.networks.MLPEncoder`, without `scale` and `sizes`.

    Call arguments:
        z: latent points, `[B, D]`.
        condition: as in `kvae.networks.MLPDecoder`.

    Returns:
        `[B, H, W, C]`, or `[B, H, W, C, n]` if n is above 1; float32.

    Raises:
        UserError: if the image shape is not `(H, W, C)`, or an argument is not valid.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        filters: Sequence[int] = (64, 32),
        dense_units: int = 128,
        activation: Activation = "relu",
        output_bias: Array | None = None,
        **options: Any,
    ) -> None:
        super().__init__(image_shape, output_bias, activation=activation, **options)
        _check_height_width_channels(self.image_shape)
        self.filters = check_widths("filters", filters)
        self.dense_units = check_whole("dense_units", dense_units)

    def build(self, input_shape: Shape) -> None:
        height, width, channels = self.image_shape
        doublings = len(self.filters)
        shape = (-(-height // 2**doublings), -(-width // 2**doublings), self.filters[0] if self.filters else channels)
        fan_in = self._width_with_condition(input_shape[-1])
        self.dense = self._layer(keras.layers.Dense, self.dense_units, fan_in)
        self.dense.build((None, fan_in))
        self.stem = self._layer(keras.layers.Dense, math.prod(shape), self.dense_units)
        self.stem.build((None, self.dense_units))
        self.reshape = keras.layers.Reshape(shape, dtype=self.dtype_policy)
        self.reshape.build((None, math.prod(shape)))
        self.convolutions = []
        for count in self._widths():
            self._build_stage(shape)
            doubled = (shape[0] * 2, shape[1] * 2, count)
            layer = self._layer(
                keras.layers.Conv2DTranspose,
                count,
                9 * shape[2],
                places=math.prod(doubled[:2]),
                kernel_size=3,
                strides=2,
                padding="same",
            )
            layer.build((None, *shape))
            self.convolutions.append(layer)
            shape = doubled
        bias = None
        if self.output_bias is not None:
            bias = self._bias_initializer(per_pixel(self.output_bias, self.image_shape).mean(axis=(0, 1)))
        self.head = self._layer(
            keras.layers.Conv2D,
            channels * self.numbers_per_pixel,
            9 * shape[2],
            places=math.prod(shape[:2]),
            head=True,
            bias_initializer=bias,
            kernel_size=3,
            padding="same",
            name="logits",
        )
        self.head.build((None, *shape))
        extra = (shape[0] - height, shape[1] - width)
        self.crop = keras.layers.Cropping2D(
            ((extra[0] // 2, extra[0] - extra[0] // 2), (extra[1] // 2, extra[1] - extra[1] // 2)), dtype="float32"
        )
        self.crop.build((None, *shape[:2], channels * self.numbers_per_pixel))
        if self.numbers_per_pixel > 1:
            self.split = keras.layers.Reshape(self.parameters_shape, dtype="float32")
            self.split.build((None, height, width, channels * self.numbers_per_pixel))
        self.built = True

    def call(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        h = self.reshape(self.stem(self.dense(self._with_condition(z, condition))))
        for stage, layer in enumerate(self.convolutions):
            h = layer(self._stage(stage, h))
        h = self.crop(self.head(h))
        return h if self.numbers_per_pixel == 1 else self.split(h)

    def _widths(self) -> Shape:
        """The number of filters of each transposed convolution."""
        return self.filters

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "dense_units": self.dense_units}


def _check_height_width_channels(image_shape: Sequence[int]) -> Shape:
    if len(image_shape) != 3:
        raise UserError(
            f"Expected images [B, H, W, C] for a convolutional network. Received images of shape {tuple(image_shape)}. "
            "Add a channel axis, e.g. x[..., None], or use an MLP."
        )
    return check_image_shape(image_shape)
