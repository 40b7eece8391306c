"""What a model saves beside its weights, so that it trains on as if it had not been saved."""

from typing import Any

import numpy as np

from kvae.internal.tensorflow import keras
from kvae.model.freezing import KeepsFrozen


class StepCounter(KeepsFrozen):
    """A Keras model that counts its own training steps, and saves their number with its weights.

    It also saves the states of random numbers of layers such as Dropout, which Keras leaves out of its files.

    Attributes:
        steps: number of training steps that the model has made, an integer variable. Noise, order and schedules
            depend on it. `fit` counts, also for a `train_step` of your own; only under `tf.distribute` such a step adds
            one to it itself.
    """

    steps: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Keras must not track the counter, because it is not a weight. So files without it load, and `get_weights`
        # returns the weights alone.
        counter = keras.Variable(0, dtype="int64", trainable=False, name="steps", aggregation="only_first_replica")
        self.__dict__.update(steps=counter, _counts_from_optimizer=False)

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["steps"] = np.asarray(self.steps)
        states = self._random_states()
        if states:
            store["random_states"] = np.stack([np.asarray(state) for state in states])

    def load_own_variables(self, store: Any) -> None:
        present = set(store.keys())
        super().load_own_variables({name: store[name] for name in present - {"steps", "random_states"}})
        # In a file of version 0.1, only the optimizer has counted the steps.
        self.__dict__["_counts_from_optimizer"] = "steps" not in present
        if not self._counts_from_optimizer:
            self.steps.assign(int(np.asarray(store["steps"])))
        states = self._random_states()
        saved: Any = np.asarray(store["random_states"]) if "random_states" in present else ()
        if len(saved) == len(states):  # none in a file of an earlier version
            for state, value in zip(states, saved, strict=True):
                state.assign(value)

    def _random_states(self) -> list[Any]:
        """The variables that determine the next random numbers of layers. For Keras they are no weights."""
        weights = {id(weight) for weight in self.weights}
        return [variable for variable in self.variables if id(variable) not in weights]

    def _take_steps_of_optimizer(self) -> None:
        """Copies the optimizer's number of steps after a file of version 0.1 was loaded."""
        if self._counts_from_optimizer and self.optimizer is not None:
            self.steps.assign(int(self.optimizer.iterations))
        self.__dict__["_counts_from_optimizer"] = False
