"""Layers that do not train (`layer.trainable = False`): the state of all layers of a model, kept when it is saved.

Keras saves `trainable` with the layers that have a configuration of their own: those of a `Sequential` or functional
model, but not the layers within a subclass of `keras.Model`. It also does not pass the state on to a layer that another
layer makes in `build`. The optimizer saves its state in the order of the weights that train, so a model that comes back
with other weights to train would lose it.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from kvae.internal.errors import KvaeWarning
from kvae.internal.tensorflow import keras
from kvae.model.keras_privates import StrategyAware, children_of, layers_of, variables_of_optimizer
from kvae.model.keywords import check_leftover_keywords


class KeepsFrozen(StrategyAware):
    """A Keras model that saves which of its layers are frozen, at any depth, and what its optimizer was built for.

    Args:
        trainable_layers: `trainable` of each of its layers once it is built, as `get_config` has it, or None.
    """

    def __init__(self, *, trainable_layers: Sequence[bool] | None = None, **kwargs: Any) -> None:
        check_leftover_keywords(type(self), kwargs)
        super().__init__(**kwargs)
        self.__dict__.update(_trainable_layers=trainable_layers)

    def get_config(self) -> dict[str, Any]:
        """The configuration, with `trainable_layers` if a layer of the built model is frozen."""
        states = [layer.trainable for layer in layers_of(self)] if self.built else self._trainable_layers
        frozen = {} if states is None or all(states) else {"trainable_layers": list(states)}
        return {**super().get_config(), **frozen}

    def _after_build(self) -> None:
        super()._after_build()
        states, self.__dict__["_trainable_layers"] = self.__dict__.get("_trainable_layers"), None
        if states is not None:
            _set_states(layers_of(self), states)

    def get_compile_config(self) -> Any:
        """Keras's, with `optimizer_weights` if the optimizer was built for other weights than those that train now."""
        config = super().get_compile_config()
        known = {id(variable) for variable in variables_of_optimizer(self.optimizer)} if config else set()
        if known and known != {id(variable) for variable in self.trainable_variables}:
            config["optimizer_weights"] = [i for i, weight in enumerate(self.weights) if id(weight) in known]
        return config

    def _build_optimizer(self, weights: Sequence[int] | None = None) -> None:
        """Makes the variables of the optimizer.

        Args:
            weights: for which weights, as positions in `weights`. By default for those that train.
        """
        variables = self.trainable_variables if weights is None else [self.weights[i] for i in weights]
        self.optimizer.build(variables)


def _set_states(layers: list[Any], states: Sequence[bool]) -> None:
    """Sets `trainable` of each layer; a layer comes after the one that holds it, and passes its state on to its own."""
    if len(layers) != len(states):
        text = (
            f"The file says which of {len(states)} layers are frozen, but the model has {len(layers)} layers, so its "
            "class has changed since. Expected the same layers. Set trainable of the layers again."
        )
        warnings.warn(text, KvaeWarning, stacklevel=2)
        return
    for layer, trainable in zip(layers, states, strict=True):
        if layer.trainable != trainable:
            layer.trainable = trainable


def freeze_new_layers(model: keras.Model, before: list[Any]) -> None:
    """Freezes the layers that a frozen layer has made in its `build`, or after its constructor got `trainable=False`.

    Args:
        model: the model, after it was built.
        before: its layers before it was built.
    """
    old = {id(layer) for layer in before}

    def visit(layer: Any) -> None:
        children = children_of(layer)
        # Setting `trainable` of a layer sets that of its layers too, but an argument of its constructor does not.
        by_argument = layer is not model and all(child.trainable for child in children)
        for child in children:
            if not layer.trainable and (by_argument or id(child) not in old):
                child.trainable = False
            visit(child)

    visit(model)
