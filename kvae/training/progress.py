"""What a training shows of itself: one bar for all epochs in a terminal, or one line per epoch."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kvae.internal.progress_bars import bar
from kvae.internal.tensorflow import keras

LARGEST = 1e7  # a greater number is written with an exponent, so that a line stays short


@contextmanager
def shown(verbose: int, epochs: int, steps: int, held_out: str, begun: int = 0) -> Iterator[list[Any]]:
    """The callbacks that show the progress of a training in the block.

    Args:
        verbose: 0 for nothing, 1 for a bar in a terminal, 2 for a line per epoch.
        epochs: the number of epochs.
        steps: the number of batches per epoch.
        held_out: the name of the images that the metrics `val_...` are measured on.
        begun: the number of epochs that were trained before.
    """
    if verbose == 1:
        with bar("epoch {task.fields[epoch]} of {task.fields[epochs]}", "{task.fields[elbo]}") as bars:
            yield [Bar(bars, epochs, steps, held_out, begun)]
    else:
        yield [Lines(epochs, held_out)] if verbose == 2 else []


class Lines(keras.callbacks.Callback):
    """Prints one short line per epoch.

    Args:
        epochs: the number of epochs.
        held_out: the name of the images that the metrics `val_...` are measured on.
    """

    def __init__(self, epochs: int, held_out: str) -> None:
        super().__init__()
        self.epochs = epochs
        self.held_out = held_out
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        numbers = {"ELBO": "elbo", f"{self.held_out} ELBO": "val_elbo", "loss": "loss", "KL": "kl"}
        shown = [f"{name} {plain(logs[key])}" for name, key in numbers.items() if key in (logs or {})]
        count = f"epoch {epoch + 1:{len(str(self.epochs))}}/{self.epochs}: "
        print(count + ", ".join([*shown, f"{time.monotonic() - self._start:.1f} s"]), flush=True)


class Bar(keras.callbacks.Callback):
    """Shows one bar for the whole training: the epoch, the time left, and the ELBO per image in nats.

    Args:
        bar: the bars of `rich` to which this one is added.
        epochs: the number of epochs.
        steps: the number of batches per epoch.
        held_out: the name of the images that the metrics `val_...` are measured on.
        begun: the number of epochs that were trained before.
    """

    def __init__(self, bar: Any, epochs: int, steps: int, held_out: str, begun: int = 0) -> None:
        super().__init__()
        self.bar = bar
        self.steps = steps
        self.held_out = held_out
        self._epoch = begun
        self._elbo: dict[str, str] = {}  # the latest by the name of the images
        self._task = bar.add_task(
            "", total=epochs * steps, completed=begun * steps, epoch=begun, epochs=epochs, elbo=""
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self.bar.update(self._task, epoch=epoch + 1)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.bar.update(self._task, completed=self._epoch * self.steps + batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for name, key in (("training", "elbo"), (self.held_out, "val_elbo")):
            if key in (logs or {}):
                self._elbo[name] = plain(logs[key])
        elbo = ", ".join(f"{name} {value}" for name, value in self._elbo.items())
        self.bar.update(self._task, completed=(epoch + 1) * self.steps, elbo=f"ELBO: {elbo}")


def plain(value: Any) -> str:
    """A number with two digits after the point, without an exponent as long as it is short."""
    number = float(value)
    return f"{number:.3g}" if math.isfinite(number) and abs(number) >= LARGEST else f"{number:.2f}"
