"""What Keras is given in place of a dataset and of callbacks, so that several steps run in one call.

Keras has `steps_per_execution` for this, but then it makes whole groups of steps only, and counts batches that do not
exist. Here Keras counts the steps one by one, as with `steps_per_execution=1`. The steps of a group all run at the
first of them, and the callbacks are called at the first and at the last one, with their exact numbers.
"""

from typing import Any

from kvae.data.in_memory import DatasetWithAttributes, ImagesInMemory
from kvae.internal.tensorflow import keras, tf
from kvae.model.loop import Steps, StepsInMemory, StepsOfDataset


class GroupedDataset(DatasetWithAttributes):
    """A dataset whose iterator is a `Steps`.

    Args:
        batches: the dataset, or the images in memory of which the batches are made.
        size: greatest number of steps in a group.
        asked: number of steps that Keras will ask for per epoch, or None if it takes as many as there are.

    Attributes:
        steps: the newest iterator; None before there is one.
    """

    def __init__(self, batches: tf.data.Dataset | ImagesInMemory, size: int, asked: int | None) -> None:
        in_memory = isinstance(batches, ImagesInMemory)
        # Keras only counts the batches of this dataset.
        count = tf.data.experimental.assert_cardinality
        super().__init__(tf.data.Dataset.range(1).apply(count(batches.steps_per_epoch)) if in_memory else batches)
        self.in_memory = batches if in_memory else None
        self._make = StepsInMemory if in_memory else StepsOfDataset
        self._batches = batches
        self._size = size
        self._asked = asked
        self.steps: Steps | None = None

    def __iter__(self) -> Any:
        self.steps = self._make(self._batches, self._size, self._asked)
        return self.steps

    @property
    def between_groups(self) -> bool:
        """Whether no step of the current group remains for Keras to count."""
        return self.steps is None or self.steps.ahead == 0


class DistributedGroups(GroupedDataset, tf.distribute.DistributedDataset):
    """A `GroupedDataset` under `tf.distribute`. Its second base tells Keras not to split it among the replicas."""


class GroupCallbacks(keras.callbacks.Callback):
    """Calls the callbacks of the user once per group of training or test steps.

    Keras receives this callback and `verbose=0`; the list that Keras would have made is made here.

    Args:
        kind: `"train"` or `"test"`, the steps that are grouped.
        dataset: the dataset of these steps.
        callbacks: what Keras's `fit` or `evaluate` received as `callbacks`.
        verbose: what it received as `verbose`.
    """

    def __init__(self, kind: str, dataset: GroupedDataset, callbacks: Any, verbose: Any) -> None:
        super().__init__()
        self._kind = kind
        self._dataset = dataset
        self._given = callbacks
        self._verbose = verbose
        self._group_begins = True
        self._list: Any = callbacks

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        if not isinstance(self._given, keras.callbacks.CallbackList):
            params = {**params, "verbose": self._verbose}
            shows = self._verbose != 0
            self._list = keras.callbacks.CallbackList(self._given, add_progbar=shows, model=self.model, **params)

    def _begin_batch(self, kind: str, batch: int, logs: Any) -> None:
        if kind != self._kind or self._group_begins:
            getattr(self._list, f"on_{kind}_batch_begin")(batch, logs)
        if kind == self._kind:
            self._group_begins = False

    def _end_batch(self, kind: str, batch: int, logs: Any) -> None:
        if kind != self._kind or self._dataset.between_groups:
            getattr(self._list, f"on_{kind}_batch_end")(batch, logs)
        if kind == self._kind:
            self._group_begins = self._dataset.between_groups

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._begin_batch("train", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._end_batch("train", batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._begin_batch("test", batch, logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._end_batch("test", batch, logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._group_begins = True
        self._list.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for callback in self._list.callbacks:  # LearningRateScheduler and others add to the logs, which Keras records
            callback.on_epoch_end(epoch, logs)

    def on_train_begin(self, logs: Any = None) -> None:
        self._list.on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._list.on_train_end(logs)

    def on_test_begin(self, logs: Any = None) -> None:
        if self._kind == "test":
            self._group_begins = True
        self._list.on_test_begin(logs)

    def on_test_end(self, logs: Any = None) -> None:
        self._list.on_test_end(logs)
