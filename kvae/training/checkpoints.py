"""The checkpoints of a training run, from which `--resume` continues."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from kvae.internal import files, finite
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras
from kvae.training import history
from kvae.training.callbacks import EarlyStopping


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
        UserError: if a weight of the model is NaN or infinite; then no checkpoint is written.
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
        # A value that is not finite is left out, because JSON has none. It is read as NaN, like one that was not taken.
        values = {name: float(value) for name, value in (logs or {}).items() if np.isfinite(value)}
        self.rows.append({"epoch": epoch + 1, **values})
        last = epoch + 1 == self.params["epochs"] or self.model.stop_training
        if last or time.monotonic() - self._saved_at >= self.seconds:
            self._save(epoch + 1)
        history.write(self.history_file, self.rows)

    def _save(self, epochs: int) -> None:
        finite.check_weights(self.model)
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
