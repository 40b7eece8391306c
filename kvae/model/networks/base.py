"""What the networks of kvae share: layers, configuration and argument checks; and how a model calls any network."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kvae.internal import memory
from kvae.internal.errors import MOST, UserError, check_whole, unknown
from kvae.internal.tensorflow import keras, tf
from kvae.internal.visible import shown
from kvae.model.hints import Activation, Array, Regularizer
from kvae.model.keywords import check_leftover_keywords
from kvae.model.networks.layer_configs import LayerConfigs
from kvae.model.networks.merged_heads import can_merge, merged
from kvae.model.networks.output_bias import ConstantValues
from kvae.model.saving import Saving

ACTIVATIONS = tuple(
    name
    for name, value in vars(keras.activations).items()
    if inspect.isfunction(value) and name not in ("get", "serialize", "deserialize")
)
MOST_LAYERS = 1000
INITIALIZATIONS = ("glorot", "fan_in")
SCALES = ("log_var", "log_sigma")
Shape = tuple[int, ...]


def takes_condition(network: Any) -> bool:
    """Whether the `call` of a network has the keyword `condition`, and, for a network of kvae, uses it."""
    if "condition" not in inspect.signature(network.call).parameters:
        return False
    owner = next((base for base in type(network).__mro__ if "call" in vars(base)), type(network))
    return owner.__module__.partition(".")[0] != "kvae" or getattr(network, "condition_shape", None) is not None


def give_condition(networks: Iterable[Any], shape: Shape) -> None:
    """Makes the networks of kvae among these take a condition of this shape per image, as `Network.take_condition`."""
    for network in networks:
        if hasattr(network, "take_condition"):
            network.take_condition(shape)


def call(network: Any, inputs: Any, condition: Any = None, training: bool = False) -> Any:
    """Calls a network; passes on the condition `[B, ...]` if there is one and the network takes it."""
    if condition is None or not takes_condition(network):
        return network(inputs, training=training)
    return network(inputs, condition=condition, training=training)


def check_widths(name: str, widths: Sequence[int]) -> Shape:
    """`widths` as a tuple of ints. Raises `UserError` if it is not a sequence of positive whole numbers."""
    listed = isinstance(widths, Sequence | np.ndarray) and not isinstance(widths, str)
    if not listed or len(widths) > MOST_LAYERS or not all(map(_is_width, widths)):
        raise UserError(
            f"Expected {name} to be a list of positive widths such as [500], at most {MOST_LAYERS} of them. "
            f"Received {shown(widths)}.{_in_brackets(widths)}"
        )
    return tuple(int(width) for width in widths)


def _in_brackets(widths: Any) -> str:
    """How to write widths that were given without brackets, as a sentence; nothing if they are something else."""
    if not _is_width(widths) and not (isinstance(widths, str) and len(widths) <= 100):
        return ""
    texts = [text.strip() for text in str(widths).split(",")]
    return f" Write [{','.join(texts)}]." if all(map(str.isdecimal, texts)) else ""


def _is_width(width: Any) -> bool:
    return isinstance(width, int | np.integer) and not isinstance(width, bool) and 0 < int(width) <= MOST


def check_activation(activation: Any) -> Any:
    """The function of an activation; raises `UserError` if it is neither a function nor the name of one in Keras."""
    if isinstance(activation, type):
        raise UserError(
            f"Expected an activation. Received the class {activation.__name__}; write {activation.__name__}()."
        )
    if isinstance(activation, str) and activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    try:
        return keras.activations.get(activation)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"Expected the name of an activation such as 'relu', or a function. Received {shown(activation)}."
        ) from error


def check_image_shape(image_shape: Sequence[int]) -> Shape:
    """`image_shape` as a tuple of ints. Raises `UserError` if it is empty or a side is not a positive whole number."""
    shape = tuple(image_shape)
    if not shape or not all(isinstance(side, int | np.integer) and side > 0 for side in shape):
        raise UserError(f"Expected an image shape of positive sides such as (28, 28, 1). Received {image_shape!r}.")
    return tuple(int(side) for side in shape)


class Network(Saving):
    """Base of the networks of kvae: makes their layers and holds the options that their layers have in common.

    Args:
        initialization: initial weights, `"glorot"` (the default: Glorot uniform kernels, zero biases) or `"fan_in"`
            (kernels and biases uniform in +-1/sqrt(fan_in)).
        condition_shape: shape of the condition of one image, which the network joins to its inputs; None, the default,
            for a network that takes no condition.
    """

    def __init__(
        self,
        activation: Activation,
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        initialization: str = "glorot",
        seed: int | None = None,
        condition_shape: Sequence[int] | None = None,
        changed_layers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_leftover_keywords(type(self), kwargs)
        super().__init__(**kwargs)
        if self.dtype_policy.quantization_mode is not None:  # Layers such as Flatten cannot be made with one.
            raise UserError(
                f"Expected a dtype policy of floating-point numbers. Received {self.dtype_policy.name!r}. Train the "
                f'model first, and then call quantize("{self.dtype_policy.quantization_mode}").'
            )
        if initialization not in INITIALIZATIONS:
            raise unknown("initialization", initialization, INITIALIZATIONS)
        self.activation = check_activation(activation)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.initialization = initialization
        self.seed = seed
        self.condition_shape: Shape | None = None if condition_shape is None else tuple(map(int, condition_shape))
        self._seeds_used = 0
        self._layer_configs = LayerConfigs(changed_layers)

    def take_condition(self, shape: Shape) -> None:
        """Makes the network take a condition of this shape per image. `VAE(condition=...)` calls it.

        Raises:
            UserError: if the network is built without a condition, or takes one of another shape.
        """
        if self.condition_shape == shape:
            return
        if self.built or self.condition_shape is not None:
            received = "none" if self.condition_shape is None else f"one of shape {self.condition_shape}"
            raise UserError(
                f"Expected a network that takes a condition of shape {shape}, or one that is not built yet. Received "
                f"a {type(self).__name__} that was made for {received}. Make a new network for this model."
            )
        self.condition_shape = shape

    def _width_with_condition(self, width: int) -> int:
        """The number of values per image after `_with_condition`, if there were `width` before."""
        return width if self.condition_shape is None else width + math.prod(self.condition_shape)

    def _with_condition(self, h: tf.Tensor, condition: Any) -> tf.Tensor:
        """h `[B, n]`, joined with the condition `[B, *condition_shape]` of each image if the network takes one."""
        if self.condition_shape is None:
            return h
        if condition is None:
            raise UserError(f"Expected condition= for this {type(self).__name__}, which takes one. Received none.")
        flat = tf.reshape(condition, [-1, math.prod(self.condition_shape)])
        return tf.concat([h, tf.cast(flat, h.dtype)], axis=-1)

    def _next_seed(self) -> int | None:
        self._seeds_used += 1
        return None if self.seed is None else (self.seed * 1_000_003 + self._seeds_used) % 2**31

    def _layer(
        self, kind: type, width: int, fan_in: int, *, places: int = 1, head: bool = False, **options: Any
    ) -> Any:
        """A dense layer, or a (transposed) convolutional layer whose output has this number of places, its pixels.

        A head has no activation and computes in float32. `options` replace what all layers have in common.
        """
        memory.claim(width * (fan_in + 1), width * places, isinstance(self, Decoder))
        if self.initialization == "glorot":
            kernel, bias = keras.initializers.GlorotUniform(seed=self._next_seed()), "zeros"
        else:  # uniform in +-1/sqrt(fan_in) for kernels and biases, the default of PyTorch and of Lua Torch
            limit = 1 / math.sqrt(fan_in)
            kernel, bias = (keras.initializers.RandomUniform(-limit, limit, seed=self._next_seed()) for _ in range(2))
        common = {
            "activation": None if head else self.activation,
            "kernel_initializer": kernel,
            "bias_initializer": options.pop("bias_initializer", None) or bias,
            "kernel_regularizer": self.kernel_regularizer,
            "bias_regularizer": self.bias_regularizer,
            "dtype": "float32" if head else self.dtype_policy,
            "trainable": self.trainable,
        }
        return self._layer_configs.make(kind, width, **{**common, **options})

    def _dense_layers(self, widths: Shape, fan_in: int) -> tuple[list, int]:
        """A sequence of built dense layers, and the width of its output."""
        layers = []
        for width in widths:
            layer = self._layer(keras.layers.Dense, width, fan_in)
            layer.build((None, fan_in))
            layers.append(layer)
            fan_in = width
        return layers, fan_in

    def get_config(self) -> dict[str, Any]:
        changed = self._layer_configs.changed()
        return {
            **super().get_config(),
            **({"changed_layers": changed} if changed else {}),
            **({} if self.condition_shape is None else {"condition_shape": self.condition_shape}),
            "activation": keras.activations.serialize(self.activation),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "initialization": self.initialization,
            "seed": self.seed,
        }

    def _options(self) -> dict[str, Any]:
        """The options that a mirrored network takes over. Its seed differs, so that its weights are independent."""
        return {
            "activation": self.activation,
            "kernel_regularizer": self.kernel_regularizer,
            "bias_regularizer": self.bias_regularizer,
            "initialization": self.initialization,
            "seed": None if self.seed is None else self.seed + 1,
            "condition_shape": self.condition_shape,
            "dtype": self.dtype_policy,
        }


class Encoder(Network):
    """Base of the encoders: the linear heads that return the parameters of q(z|x)."""

    def __init__(
        self, latent_dim: int, scale: str = "log_var", sizes: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if scale not in SCALES:
            raise unknown("scale", scale, SCALES)
        self.latent_dim = check_whole("latent_dim", latent_dim)
        self.scale = scale
        self.sizes = None if sizes is None else check_widths("sizes", sizes)

    def emit(self, sizes: Shape) -> None:
        """Makes the encoder return tensors of these widths. `VAE.build` calls it with the widths of its posterior.

        Args:
            sizes: width of each tensor.

        Raises:
            UserError: if the encoder is built already and returns other widths, or if it shall return the standard
                deviation and these are not the widths of a diagonal Gaussian.
        """
        wanted = None if sizes == (self.latent_dim, self.latent_dim) else sizes
        if wanted is not None and self.scale != "log_var":
            raise UserError(
                f"Expected scale='log_var', because this posterior needs tensors of widths {sizes}, which are no mean "
                f"and standard deviation. Received scale={self.scale!r}. Use the posterior diagonal_gaussian with it."
            )
        if wanted == self.sizes:
            return
        if self.built:
            raise UserError(
                f"Expected an encoder that is not built yet, so that it can return tensors of widths {sizes}. "
                "Received one that is built. Make a new encoder for this model."
            )
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
        """The parameters of q(z|x) from the last hidden layer: mean and log_var, or tensors of the widths `sizes`."""
        if self.sizes is not None:
            emitted = tuple(head(h) for head in self.heads)
            return emitted if len(emitted) > 1 else emitted[0]
        heads = (self.mean_head, self.scale_head)
        # Under another policy the heads keep their weights in float32. A product here would round them to its dtype.
        if self.compute_dtype == "float32" and all(map(can_merge, heads)):
            mean, scale = merged(heads, h)
        else:
            mean, scale = (head(h) for head in heads)
        return mean, scale if self.scale == "log_var" else 2.0 * scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "latent_dim": self.latent_dim, "scale": self.scale, "sizes": self.sizes}


class Decoder(Network):
    """Base of the decoders: the shape and the initial bias of the output."""

    def __init__(
        self, image_shape: Sequence[int], output_bias: Array | None, numbers_per_pixel: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.image_shape = check_image_shape(image_shape)
        self.numbers_per_pixel = check_whole("numbers_per_pixel", numbers_per_pixel)
        self.output_bias = None if output_bias is None else self._check_bias(output_bias)

    def _check_bias(self, output_bias: Array | None) -> np.ndarray:
        bias = np.asarray(output_bias, np.float32)
        if bias.size not in (1, math.prod(self.image_shape), self.image_shape[-1]) or not np.isfinite(bias).all():
            raise UserError(
                "Expected output_bias to be one finite number, one per channel or one per pixel of "
                f"{self.image_shape}. Received shape {bias.shape}."
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
        """Shape of the output for one image."""
        return self.image_shape if self.numbers_per_pixel == 1 else (*self.image_shape, self.numbers_per_pixel)

    def _bias_initializer(self, values: np.ndarray) -> ConstantValues:
        """An initializer for biases `[..., n]`: `values` for the first number of each pixel, 0 for the others."""
        filled = np.zeros((*values.shape, self.numbers_per_pixel), np.float32)
        filled[..., 0] = values
        return ConstantValues(filled.ravel())


def check_mirror(encoder: Any) -> None:
    """Raises `UserError` if kvae cannot make the decoder of an encoder, because it has no method `mirror`."""
    if not hasattr(encoder, "mirror"):
        raise UserError(
            "Expected encoder= together with decoder=, because kvae cannot make the decoder of an encoder of your own: "
            "only the encoders in kvae.networks, and classes with a method mirror, have a decoder that mirrors them. "
            f"Received encoder= of the class {type(encoder).__name__} alone."
        )


def mirrored(
    encoder: Any, image_shape: Shape, parameters_shape: Shape, output_bias: Array | None = None, **options: Any
) -> Any:
    """The decoder that mirrors an encoder, for a likelihood with any number of numbers per pixel.

    Args:
        encoder: an encoder with a method `mirror(image_shape, output_bias, **options)`.
        image_shape: shape of one image.
        parameters_shape: shape of what the decoder must return for one image; the likelihood decides it.
        output_bias: start of the output bias, as `mirror` takes it.
        **options: further options of `mirror`.

    Raises:
        UserError: if the encoder has no method `mirror`.
    """
    check_mirror(encoder)
    per_pixel = parameters_shape[len(image_shape) :]
    several = {"numbers_per_pixel": math.prod(per_pixel)} if per_pixel else {}
    return encoder.mirror(image_shape, output_bias, **several, **options)
