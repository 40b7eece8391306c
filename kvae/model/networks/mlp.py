"""The multilayer perceptrons: dense layers, for images of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kvae.internal.tensorflow import keras, tf
from kvae.model.hints import Activation, Array
from kvae.model.networks.base import Decoder, Encoder, Shape, check_image_shape, check_widths
from kvae.model.networks.output_bias import per_pixel


@keras.saving.register_keras_serializable("kvae")
class MLPEncoder(Encoder):
    """Dense layers and linear heads, two heads for a diagonal Gaussian.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix C.

    Args:
        latent_dim: latent size, D.
        hidden_units: widths of the hidden layers, from the image to the latent. May be empty. (500,) by default.
        activation: activation of the hidden layers, anything that Keras takes. `"tanh"` by default.
        scale: what the second head predicts, `"log_var"` (the default) or `"log_sigma"`, half of it. Both can represent
            the same q(z|x), but Adam takes other steps.
        **options: `kernel_regularizer` and `bias_regularizer` of every layer, which are added to the training loss;
            `initialization`, `"glorot"` (the default: Glorot uniform kernels, zero biases) or `"fan_in"` (kernels and
            biases uniform in +-1/sqrt(fan_in)); `seed` of the initial weights (if None, Keras's global seed decides);
            `sizes`, widths of other heads than the two, which a model sets for its posterior; `condition_shape`, shape
            of the condition of one image if the network takes one, which `VAE(condition=...)` sets; and the options of
            `keras.Model`.

    Call arguments:
        x: images, `[B, ...]`. They are flattened.
        condition: condition per image, `[B, *condition_shape]`. It is flattened too and joined to x. Not used by a
            network without `condition_shape`.

    Returns:
        mean `[B, D]` and log_var `[B, D]`, float32; or tensors of the widths `sizes`.

    Raises:
        UserError: if latent_dim, a width, `scale` or `initialization` is not valid.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden_units: Sequence[int] = (500,),
        activation: Activation = "tanh",
        scale: str = "log_var",
        **options: Any,
    ) -> None:
        super().__init__(latent_dim, scale, activation=activation, **options)
        self.hidden_units = check_widths("hidden_units", hidden_units)

    def build(self, input_shape: Shape) -> None:
        fan_in = math.prod(check_image_shape(input_shape[1:]))
        self.flatten = keras.layers.Flatten(dtype=self.dtype_policy)
        self.flatten.build((None, *input_shape[1:]))
        self.hidden, fan_in = self._dense_layers(self.hidden_units, self._width_with_condition(fan_in))
        self._make_heads(fan_in)
        self.built = True

    def call(self, x: tf.Tensor, condition: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        h = self._with_condition(self.flatten(x), condition)
        for layer in self.hidden:
            h = layer(h)
        return self._posterior(h)

    def mirror(self, image_shape: Sequence[int], output_bias: Array | None = None, **options: Any) -> MLPDecoder:
        """A decoder with the same widths in reverse order. `options` replace those of the encoder."""
        return MLPDecoder(
            image_shape, self.hidden_units[::-1], output_bias=output_bias, **{**self._options(), **options}
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_units": self.hidden_units}


@keras.saving.register_keras_serializable("kvae")
class MLPDecoder(Decoder):
    """Dense layers and a linear head that returns the parameters of p(x|z), logits for a Bernoulli likelihood.

    Args:
        image_shape: shape of one image, e.g. `(28, 28, 1)`.
        hidden_units: widths of the hidden layers, from the latent to the image. (500,) by default.
        activation: activation of the hidden layers. `"tanh"` by default.
        output_bias: initial bias of the head: one number, one per channel or one per pixel. The logit of the training
            mean, `kvae.networks.logit_of_mean`, saves the first epochs.
        numbers_per_pixel: number of parameters per pixel that the likelihood needs, n. 1 by default.
        **options: as in `MLPEncoder`, without `scale` and `sizes`.

    Call arguments:
        z: latent points, `[B, D]`.
        condition: condition per image, `[B, *condition_shape]`, which is flattened and joined to z. Not used by a
            network without `condition_shape`.

    Returns:
        `[B, *image_shape]`, or `[B, *image_shape, n]` if n is above 1; float32.

    Raises:
        UserError: if the image shape, a width, `output_bias` or `initialization` is not valid.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden_units: Sequence[int] = (500,),
        activation: Activation = "tanh",
        output_bias: Array | None = None,
        **options: Any,
    ) -> None:
        super().__init__(image_shape, output_bias, activation=activation, **options)
        self.hidden_units = check_widths("hidden_units", hidden_units)

    def build(self, input_shape: Shape) -> None:
        fan_in = self._width_with_condition(input_shape[-1])
        self.hidden, fan_in = self._dense_layers(self.hidden_units, fan_in)
        bias = None
        if self.output_bias is not None:
            bias = self._bias_initializer(per_pixel(self.output_bias, self.image_shape))
        width = math.prod(self.parameters_shape)
        self.head = self._layer(keras.layers.Dense, width, fan_in, head=True, bias_initializer=bias, name="logits")
        self.head.build((None, fan_in))
        self.reshape = keras.layers.Reshape(self.parameters_shape, dtype="float32")
        self.reshape.build((None, width))
        self.built = True

    def call(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        h = self._with_condition(z, condition)
        for layer in self.hidden:
            h = layer(h)
        return self.reshape(self.head(h))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_units": self.hidden_units}
