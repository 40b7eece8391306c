"""The number of training steps that a model has made."""

from typing import Any

import numpy as np

from kvae.internal.tensorflow import keras
from kvae.model.freezing import KeepsFrozen


class StepCounter(KeepsFrozen):
    """A Keras model that counts its own training steps, and saves their number with its weights.

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

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables({name: store[name] for name in store.keys() if name != "steps"})  # noqa: SIM118
        # In a file of version 0.1, only the optimizer has counted the steps.
        self.__dict__["_counts_from_optimizer"] = "steps" not in store.keys()  # noqa: SIM118
        if not self._counts_from_optimizer:
            self.steps.assign(int(np.asarray(store["steps"])))

    def _take_steps_of_optimizer(self) -> None:
        """Copies the optimizer's number of steps after a file of version 0.1 was loaded."""
        if self._counts_from_optimizer and self.optimizer is not None:
            self.steps.assign(int(self.optimizer.iterations))
        self.__dict__["_counts_from_optimizer"] = False
