"""Keras callbacks that a training run needs: the epoch of the data, early stopping, figures and checkpoints."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvae.data import Data
from kvae.internal import files
from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model import sampling
from kvae.plotting import figures
from kvae.training import history


class DataEpoch(keras.callbacks.Callback):
    """Sets the data's epoch to that of Keras, so that `initial_epoch=n` trains with the order and draws of epoch n.

    Args:
        epoch: the attribute `epoch` of the data that `kvae.data.load` returned.
    """

    def __init__(self, epoch: tf.Variable) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch.assign(epoch)


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Early stopping of Keras on `val_elbo`. It keeps the best weights, and a resumed run continues with its state.

    Args:
        patience: the number of epochs without a better value after which training stops.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(monitor="val_elbo", mode="max", patience=patience, restore_best_weights=True)
        self._restored: tuple[dict[str, Any], list[np.ndarray]] | None = None

    def state(self) -> dict[str, Any]:
        """The state as JSON, without the best weights, which are in `best_weights`."""
        return {"wait": self.wait, "best": float(self.best), "best_epoch": self.best_epoch}

    def restore(self, state: dict[str, Any], best_weights: list[np.ndarray]) -> None:
        """Sets a saved state, which is used as soon as training begins."""
        self._restored = (state, best_weights)

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if self._restored is not None:
            state, self.best_weights = self._restored
            self.wait, self.best, self.best_epoch = state["wait"], state["best"], state["best_epoch"]


class BatchLoss(keras.callbacks.Callback):
    """Prints the loss of a random training batch at regular times, without the penalties on weights.

    With the default objective it is the beta-weighted negative ELBO. The first value is printed after the first batch,
    or after the first `steps_per_execution` batches. The choice of the examples depends only on the model's seed and
    its number of steps.

    Args:
        data: the data of the training. If they are streamed, the examples are chosen from the first 1,000.
        batch_size: the number of examples per batch.
        seconds: the minimum time between two values, in seconds.
    """

    def __init__(self, data: Data, batch_size: int = 100, seconds: float = 30.0) -> None:
        super().__init__()
        self.data = data
        self.batch_size = batch_size
        self.seconds = seconds
        self._epoch = 0
        self._printed_at = -float("inf")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._printed_at < self.seconds:
            return
        step = int(self.model.steps)
        value = float(self.losses(np.random.default_rng([self.model.seed, step])).mean())
        print(f"epoch {self._epoch + 1}, step {step}: loss of a random training batch {value:.2f} nats")
        self._printed_at = time.monotonic()

    def losses(self, rng: np.random.Generator) -> np.ndarray:
        """The loss of each image in a batch of random training images, `[B]` nats."""
        count = self.data.info.sizes["train"]
        indices = rng.integers(0, min(count, 1000) if self.data.streams else count, self.batch_size)
        x, seed = self.data.images_at("train", indices), int(rng.integers(2**31))
        condition = None if self.model.condition_shape is None else self.data.labels_at("train", indices)
        loss = self.model.objective.loss(sampling.elbo_draws(self.model, x, seed, condition), self.model.steps)
        return (loss[-1] if isinstance(loss, tuple) else loss).numpy()


class Plots(keras.callbacks.Callback):
    """Draws figures of the model during training and at its end.

    If a kind of figure does not suit the model or the data, a line says so and training continues.

    Args:
        data: the data that the figures show.
        folder: the folder of the files, such as `lattice_epoch_0010.png` during training and `lattice.png` at its end.
        kinds: names in `kvae.plotting.figures.KINDS`.
        every: the number of epochs between two drawings during training. By default figures are drawn only at the end.
        rows: the history of the epochs before this training, for `learning_curves`.

    Raises:
        UserError: if a kind is unknown, or if `every` is not a whole number of at least 1.
    """

    def __init__(
        self,
        data: Data,
        folder: str | Path,
        kinds: Sequence[str] = ("samples",),
        every: int | None = None,
        rows: Sequence[dict[str, float]] = (),
    ) -> None:
        super().__init__()
        figures.check_kinds(kinds)
        self.data = data
        self.folder = Path(folder)
        self.kinds = list(kinds)
        self.every = None if every is None else check_whole("every", every)
        self._rows = list(rows)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._rows.append({"epoch": epoch + 1, **(logs or {})})
        if self.every is not None and (epoch + 1) % self.every == 0:
            self._draw(f"epoch_{epoch + 1:04d}")

    def on_train_end(self, logs: Any = None) -> None:
        if self._rows:
            self._draw("")

    def _draw(self, label: str) -> None:
        subject = figures.Subject(self.model, self.data, history.columns(self._rows), "held out")
        for kind in list(self.kinds):
            try:
                figures.draw(kind, subject, self.folder, label=label)
            except UserError as error:
                self.kinds.remove(kind)
                print(f"{kind}: left out. {error}")


class Checkpoint(keras.callbacks.Callback):
    """Writes a checkpoint for `--resume` and the history at the end of an epoch. It must be the last callback.

    A checkpoint is a folder `epoch-NNNNNN`, which is never visible half-written: the model with its optimizer, the
    history, and the state of early stopping. The noise and the order of the data depend only on the seed, the model's
    step counter and the epoch, so a resumed run needs nothing else to give the same result bit for bit. A process that
    is killed loses at most the epochs since its last checkpoint.

    Args:
        folder: the folder of the checkpoints.
        history_file: the path of history.csv, which gets one row per epoch.
        rows: the history of the epochs before this training.
        seconds: the minimum time between two checkpoints, in seconds. The last epoch always gets a checkpoint.
        early_stopping: the callback whose state is saved, or None.

    Raises:
        UserError: at the end of an epoch, if the loss is NaN or infinite.
    """

    def __init__(
        self,
        folder: Path,
        history_file: Path,
        rows: list[dict[str, float]] | None = None,
        seconds: float = 10.0,
        early_stopping: EarlyStopping | None = None,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.history_file = history_file
        self.rows = list(rows or [])
        self.seconds = seconds
        self.early_stopping = early_stopping
        self._saved_at = -float("inf")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, **values})
        if not np.isfinite(values.get("loss", 0.0)):
            raise UserError(
                f"The loss became {values['loss']} in epoch {epoch + 1}: the training diverged. Try a lower learning "
                "rate. The checkpoint is from an earlier epoch."
            )
        last = epoch + 1 == self.params["epochs"] or self.model.stop_training
        if last or time.monotonic() - self._saved_at >= self.seconds:
            self._save(epoch + 1)
        history.write(self.history_file, self.rows)

    def _save(self, epochs: int) -> None:
        target = self.folder / f"epoch-{epochs:06d}"
        if target.exists():  # left from a run that was resumed at an earlier epoch
            shutil.rmtree(target)
        with files.atomic_folder(target) as partial:
            self.model.save(partial / "model.keras")
            state: dict[str, Any] = {
                "epochs": epochs,
                "stopped": bool(self.model.stop_training),
                "history": self.rows,
            }
            if self.early_stopping is not None and self.early_stopping.best_weights is not None:
                state["early_stopping"] = self.early_stopping.state()
                np.savez(partial / "best_weights.npz", *self.early_stopping.best_weights)
            (partial / "state.json").write_text(json.dumps(state), encoding="utf-8")
        for older in self.folder.glob("epoch-*"):
            if older != target:
                shutil.rmtree(older, ignore_errors=True)
        self._saved_at = time.monotonic()


class Resumed:
    """The content of a checkpoint.

    Args:
        checkpoint: the folder of the checkpoint.

    Attributes:
        model: the model with its optimizer.
        epochs: the number of finished epochs.
        stopped: whether early stopping ended the training.
        rows: the history, one row per epoch.
        early_stopping: the state of early stopping, or None.
        best_weights: the best weights that early stopping has kept, or None.

    Raises:
        UserError: if the checkpoint is damaged.
    """

    def __init__(self, checkpoint: Path) -> None:
        try:
            self._read(checkpoint)
        except Exception as error:  # Keras does not convert the errors of zip, HDF5 and JSON
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"{checkpoint} is damaged ({reason}). Delete that folder, or train again.") from error

    def _read(self, checkpoint: Path) -> None:
        state = files.read_json(checkpoint / "state.json")
        self.model = keras.saving.load_model(checkpoint / "model.keras")
        self.epochs: int = state["epochs"]
        self.stopped: bool = state["stopped"]
        self.rows = [{name: float(value) for name, value in row.items()} for row in state["history"]]
        for row in self.rows:
            row["epoch"] = int(row["epoch"])
        self.early_stopping = state.get("early_stopping")
        self.best_weights: list[np.ndarray] | None = None
        if self.early_stopping is not None:
            with np.load(checkpoint / "best_weights.npz") as arrays:
                self.best_weights = [arrays[name] for name in arrays.files]


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None."""
    checkpoints = sorted(folder.glob("epoch-*"))
    return checkpoints[-1] if checkpoints else None
