"""The endpoints of an exported model: named functions of tensors, traced into one module."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from kvae.internal import finite
from kvae.internal.errors import UserError, unknown
from kvae.internal.tensorflow import keras, tf
from kvae.model import sampling
from kvae.model.conditions import check_condition
from kvae.model.keras_privates import layers_of
from kvae.model.vae import VAE

DECODER = ("decode", "sample")  # the endpoints that do not need the encoder
ENDPOINTS = (*DECODER, "encode", "reconstruct", "elbo")
EXAMPLES = 100  # the largest number of examples of conditions


def traced(vae: VAE, names: Iterable[str] = ENDPOINTS, batch_sizes: Iterable[int | None] = (None,)) -> tuple[Any, dict]:
    """A module and its signatures, as `tf.saved_model.save` takes them.

    Args:
        vae: a built model.
        names: names in `ENDPOINTS`.
        batch_sizes: the batch sizes for each of which every endpoint is traced. None stands for any batch size; for 64,
            `_64` is added to the name of the endpoint.

    Returns:
        A `tf.Module` with the variables that the endpoints need, each tracked once, and its signatures by name. The
        endpoints for any batch size are also functions of the module.

    Raises:
        UserError: if the model is not built, has a weight that is NaN or infinite or cannot be exported, or if an
            endpoint is unknown.
    """
    finite.check_trained(vae)
    names = tuple(names)
    for name in names:
        if name not in ENDPOINTS:
            raise unknown("endpoint", name, ENDPOINTS)
    vae = in_float32(vae)
    # The module tracks variables and not layers: converted to LiteRT, Keras layers would lose their values.
    prior = vae.prior.frozen()
    parts: list[Any] = [vae.decoder, vae.likelihood, prior] if set(names) <= set(DECODER) else [vae, prior]
    weights = {id(variable): variable.value for part in parts for variable in part.variables if _is_weight(variable)}
    module, signatures = tf.Module(name="kvae"), {}
    module.weights = list(weights.values())
    for size in batch_sizes:
        for name in names:
            function, inputs = _endpoint(vae, prior, name, size)
            graph = tf.function(function, autograph=False, input_signature=inputs)
            try:
                signatures[name if size is None else f"{name}_{size}"] = graph.get_concrete_function()
            except NotImplementedError as error:
                raise UserError(f"The model cannot be exported: {error}") from error
            if size is None:
                setattr(module, name, graph)
    return module, signatures


def decoded_name(vae: VAE) -> str:
    """The name of the second output of `decode`: `parameters`, or `logits` if there is one number per pixel."""
    one_per_pixel = tuple(vae.likelihood.parameters_shape(vae.image_shape)) == tuple(vae.image_shape)
    return "logits" if one_per_pixel else "parameters"


def conditions_of(vae: VAE, conditions: Any, data: Any) -> np.ndarray | None:
    """Examples of the condition of a model, at most 100.

    Args:
        vae: a built model.
        conditions: examples `[M, ...]`, or labels `[M]`, or None.
        data: a `tf.data.Dataset` of batches (x, y) or arrays (x, y), whose first conditions are used if `conditions` is
            None; or None.

    Returns:
        `[M, ...]` float32, or None if the model takes no condition.

    Raises:
        UserError: if a conditional model gets neither conditions nor data, if the conditions have a wrong shape, or if
            the model takes no condition but gets some.
    """
    if vae.condition_shape is None:
        if conditions is not None:
            raise UserError("Expected no conditions: this model has no condition_shape. Received some.")
        return None
    if conditions is None and data is not None:
        conditions = data[1] if isinstance(data, tuple) else next(iter(data))[1]
    if conditions is None:
        raise UserError(
            "Expected conditions=, examples [M, ...] of the condition of this model, or test=(x, y). Received neither."
        )
    examples = np.asarray(check_condition(conditions[:EXAMPLES], vae.condition_shape))
    if len(examples) == 0:
        raise UserError("Expected at least one example of the condition. Received none.")
    return examples


def cycled(conditions: np.ndarray | None, start: int, stop: int) -> np.ndarray | None:
    """The conditions of the images number start to stop - 1, if the examples are repeated in their order."""
    return None if conditions is None else conditions[np.arange(start, stop) % len(conditions)]


def in_float32(vae: VAE) -> VAE:
    """The model itself if it computes in float32, otherwise a copy that does.

    Mixed precision makes training faster, but an exported model would be less exact and less portable with it.
    """
    layers = [layer for layer in layers_of(vae) if hasattr(layer, "compute_dtype")]
    if all(layer.compute_dtype in (None, "float32") for layer in layers):
        return vae
    config = keras.saving.serialize_keras_object(vae)
    copy = keras.saving.deserialize_keras_object(_without_policies(config))
    copy.build((None, *vae.image_shape))
    copy.set_weights(vae.get_weights())
    return copy


def _without_policies(config: Any) -> Any:
    """A serialized model in which every dtype policy is float32."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": "float32"}}
        return {key: _without_policies(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_without_policies(value) for value in config]
    return "float32" if config in ("mixed_float16", "mixed_bfloat16") else config


def _is_weight(variable: Any) -> bool:
    return isinstance(variable.value, tf.Variable)


def _endpoint(
    vae: VAE, prior: Any, name: str, size: int | None
) -> tuple[Callable[..., dict[str, tf.Tensor]], list[tf.TensorSpec]]:
    """An endpoint as a function of tensors, and the specifications of its arguments."""
    x = tf.TensorSpec([size, *vae.image_shape], tf.float32, name="x")
    z = tf.TensorSpec([size, vae.latent_dim], tf.float32, name="z")
    seeds, seed = tf.TensorSpec([size], tf.int32, name="seed"), tf.TensorSpec([], tf.int32, name="seed")
    conditions = []
    if vae.condition_shape is not None:
        conditions = [tf.TensorSpec([size, *vae.condition_shape], tf.float32, name="condition")]

    def decode(z: tf.Tensor, condition: Any = None) -> dict[str, tf.Tensor]:
        parameters = vae.decode(z, condition)
        return {"means": vae.likelihood.mean(parameters), decoded_name(vae): parameters}

    def sample(seed: tf.Tensor, condition: Any = None) -> dict[str, tf.Tensor]:
        drawn = sampling.sample_graph(vae, seed, condition, prior)
        return {"images": vae.likelihood.as_bytes(drawn.images), "means": drawn.means, "z": drawn.z}

    def encode(x: tf.Tensor, condition: Any = None) -> dict[str, tf.Tensor]:
        return vae.encode(x, condition).tensors()

    def reconstruct(x: tf.Tensor, seed: tf.Tensor, condition: Any = None) -> dict[str, tf.Tensor]:
        return {"means": vae.reconstruct(x, seed, condition)}

    def elbo(x: tf.Tensor, seed: tf.Tensor, condition: Any = None) -> dict[str, tf.Tensor]:
        terms = sampling.elbo_draws(vae, x, seed, condition)
        return {"elbo": terms.elbo, "reconstruction": terms.reconstruction, "kl": terms.kl}

    inputs = {"decode": [z], "sample": [seeds], "encode": [x], "reconstruct": [x, seed], "elbo": [x, seed]}
    functions: dict[str, Callable[..., dict[str, tf.Tensor]]] = {
        "decode": decode,
        "sample": sample,
        "encode": encode,
        "reconstruct": reconstruct,
        "elbo": elbo,
    }
    return functions[name], [*inputs[name], *conditions]
