"""The convolutional networks with residual blocks, for pictures that need more layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model.hints import Activation, Array
from kvae.model.networks.base import Shape
from kvae.model.networks.convolutional import ConvDecoder, ConvEncoder, Stages


class ResidualStages(Stages):
    """Residual blocks for each stage of a convolutional network: h + conv(activation(conv(normalized h))).

    The second convolution of a block begins with a kernel of zeros, so that a new network of any depth computes what it
    would compute without its blocks.
    """

    filters: Shape
    blocks: int
    norm_groups: int

    def _set_blocks(self, blocks: int, norm_groups: int) -> None:
        self.blocks = check_whole("blocks", blocks)
        self.norm_groups = check_whole("norm_groups", norm_groups, least=0)
        if not self.filters:
            raise UserError("Expected filters to be a list of at least one width such as [32]. Received none.")
        if self.norm_groups and any(count % self.norm_groups for count in self.filters):
            raise UserError(
                f"Expected filters that can be divided into norm_groups={self.norm_groups} groups. Received "
                f"{list(self.filters)}. Choose multiples of {self.norm_groups}, or norm_groups=0 for no normalization."
            )
        # All blocks of all stages, one after another; Keras does not save the layers of a list within a list.
        self.norms: list[Any] = []
        self.first_convolutions: list[Any] = []
        self.second_convolutions: list[Any] = []

    def _build_stage(self, shape: Shape) -> None:
        count = shape[-1]
        options: dict[str, Any] = {"places": math.prod(shape[:2]), "kernel_size": 3, "padding": "same"}
        for _ in range(self.blocks):
            made = [
                self._layer(keras.layers.Conv2D, count, 9 * count, **options),
                self._layer(
                    keras.layers.Conv2D, count, 9 * count, activation=None, kernel_initializer="zeros", **options
                ),
            ]
            self.first_convolutions.append(made[0])
            self.second_convolutions.append(made[1])
            if self.norm_groups:
                made.append(
                    self._layer_configs.make(
                        keras.layers.GroupNormalization,
                        self.norm_groups,
                        dtype=self.dtype_policy,
                        trainable=self.trainable,
                    )
                )
                self.norms.append(made[2])
            for layer in made:
                layer.build((None, *shape))

    def _stage(self, stage: int, h: tf.Tensor) -> tf.Tensor:
        for block in range(stage * self.blocks, (stage + 1) * self.blocks):
            normalized = self.norms[block](h) if self.norm_groups else h
            h = h + self.second_convolutions[block](self.first_convolutions[block](normalized))
        return h

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "blocks": self.blocks, "norm_groups": self.norm_groups}


@keras.saving.register_keras_serializable("kvae")
class ResidualEncoder(ResidualStages, ConvEncoder):
    """The convolutions of `conv`, each followed by residual blocks, if wanted with group normalization.

    He et al., "Identity Mappings in Deep Residual Networks" (2016); Wu and He, "Group Normalization" (2018).

    A block adds conv(activation(conv(GN(h)))) to its input h, with 3 x 3 convolutions. GN normalizes groups of channels
    within each image, so that a network computes the same in training and afterwards; without it, GN(h) is h. The
    second convolution begins with a kernel of zeros, so that a new block returns h.

    Args:
        latent_dim: latent size, D.
        filters: number of filters of each stage, from the image to the latent. Each stage halves height and width,
            rounding up. (32, 64) by default.
        blocks: number of residual blocks of each stage. 1 by default.
        norm_groups: number of groups of the group normalization, which must divide each of `filters`; 0, the default,
            for no normalization.
        dense_units: width of the dense layer between the convolutions and the heads. 128 by default.
        activation: activation of the hidden layers. `"silu"` by default.
        scale: what the second head predicts, `"log_var"` (the default) or `"log_sigma"`, half of it.
        **options: as in `kvae.networks.MLPEncoder`.

    Call arguments:
        x: images, `[B, H, W, C]`.
        condition: as in `kvae.networks.ConvEncoder`.

    Returns:
        mean `[B, D]` and log_var `[B, D]`, float32; or tensors of the widths `sizes`.

    Raises:
        UserError: if x does not have the shape `[B, H, W, C]`, or an argument is not valid.
    """

    def __init__(
        self,
        latent_dim: int,
        filters: Sequence[int] = (32, 64),
        blocks: int = 1,
        norm_groups: int = 0,
        dense_units: int = 128,
        activation: Activation = "silu",
        scale: str = "log_var",
        **options: Any,
    ) -> None:
        super().__init__(latent_dim, filters, dense_units, activation, scale, **options)
        self._set_blocks(blocks, norm_groups)

    def mirror(self, image_shape: Sequence[int], output_bias: Array | None = None, **options: Any) -> ResidualDecoder:
        """A decoder with the same filters in reverse order. `options` replace those of the encoder."""
        return ResidualDecoder(
            image_shape,
            self.filters[::-1],
            self.blocks,
            self.norm_groups,
            self.dense_units,
            output_bias=output_bias,
            **{**self._options(), **options},
        )


@keras.saving.register_keras_serializable("kvae")
class ResidualDecoder(ResidualStages, ConvDecoder):
    """The transposed convolutions of `kvae.networks.ConvDecoder`, each after residual blocks.

    Args:
        image_shape: shape of one image, `(H, W, C)`.
        filters: number of filters of the blocks of each stage, from the latent to the image. The transposed convolution
            of a stage has those of the next one. (64, 32) by default.
        blocks: number of residual blocks of each stage. 1 by default.
        norm_groups: as in `ResidualEncoder`.
        dense_units: width of the first dense layer. 128 by default.
        activation: activation of the hidden layers. `"silu"` by default.
        output_bias: as in `kvae.networks.ConvDecoder`.
        **options: as in `kvae.networks.ConvDecoder`.

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
        blocks: int = 1,
        norm_groups: int = 0,
        dense_units: int = 128,
        activation: Activation = "silu",
        output_bias: Array | None = None,
        **options: Any,
    ) -> None:
        super().__init__(image_shape, filters, dense_units, activation, output_bias, **options)
        self._set_blocks(blocks, norm_groups)

    def _widths(self) -> Shape:
        return (*self.filters[1:], self.filters[-1])
