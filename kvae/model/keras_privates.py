"""The private parts of Keras that kvae relies on; tests/model/test_keras_privates.py fails if Keras changes one."""

from typing import Any

from kvae.internal.tensorflow import keras, tf


class StrategyAware(keras.Model):
    """A Keras model that knows whether it trains under `tf.distribute`, and then builds itself without a batch."""

    def _is_distributed(self) -> bool:
        # The strategy under which the model was made. Keras's public property creates a default one if there is none.
        return self._distribute_strategy is not None or tf.distribute.has_strategy()

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # To learn the shapes under a strategy, Keras draws a batch here and reduces it over the replicas. That would
        # count as an epoch of the data, and it fails if several workers train.
        if not self.built:
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _post_build(self) -> None:
        super()._post_build()
        self._after_build()

    def _after_build(self) -> None:
        """Keras calls it when `build` has returned, that of a subclass too. It can be called again later."""


class SignatureOfCall(keras.Model):
    """A Keras model that does not let Keras trace `call(x)` while it exports, if its `call` needs a condition too."""

    condition_shape: Any = None

    @property
    def _default_save_signature(self) -> Any:
        return None if self.condition_shape is not None else super()._default_save_signature


def place_layer(model: keras.Model, layer: Any, position: int) -> None:
    """Moves a layer to another position in the order of a model's layers, and so of its weights.

    Keras orders layers by their creation. A layer that a model creates in `build` is moved to the position that it has
    in a model that was given it, because the state of an optimizer is saved in the order of the weights.
    """
    model._layers.remove(layer)
    model._layers.insert(position, layer)


def layers_of(model: keras.Model) -> list[Any]:
    """A model and all layers at any depth within it; `Model.layers` has only the outermost ones."""
    return list(model._flatten_layers(include_self=True))


def metrics_of(model: keras.Model) -> list[Any]:
    """All metrics that a model or a layer within it has as an attribute; Keras leaves out those of models within it."""
    metrics = {id(metric): metric for layer in layers_of(model) for metric in layer._metrics}
    return list(metrics.values())


def clear_losses(model: keras.Model) -> None:
    """Forgets the losses that `add_loss` has added, as Keras does before it calls a model."""
    model._clear_losses()


def children_of(layer: Any) -> list[Any]:
    """The layers that a layer or model holds directly, also those that `Model.layers` does not list."""
    return list(layer._layers)


def variables_of_optimizer(optimizer: Any) -> list[Any]:
    """The weights for which an optimizer was built, in the order in which it saves its state; empty if it was not."""
    return list(getattr(optimizer, "inner_optimizer", optimizer)._trainable_variables)


def has_compiled_metrics(model: keras.Model) -> bool:
    """Whether `compile` received metrics, which kvae's steps would not update."""
    return getattr(model, "_compile_metrics", None) is not None


def forget_loss_and_metrics(model: keras.Model) -> None:
    """Takes back what `compile` received as loss and metrics, which a later `compile` without them would keep."""
    model.loss = model._compile_loss = model._compile_metrics = None


def is_called_by_fit(arguments: dict[str, Any]) -> bool:
    """Whether Keras's `fit` is the caller of `evaluate`: only `fit` passes this argument."""
    return bool(arguments.get("_use_cached_eval_dataset"))
