"""The checkpoints of a training run, from which `--resume` continues."""

import re
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kvae.internal import files, finite, sealed
from kvae.internal.errors import UserError, first_line
from kvae.internal.tensorflow import keras
from kvae.internal.visible import shortened
from kvae.model.vae import VAE
from kvae.training import history
from kvae.training.callbacks import EarlyStopping
from kvae.training.config import RunConfig

NAME = re.compile(r"epoch-(\d{6,})")  # of the folder of a checkpoint
STATE, MODEL, BEST_WEIGHTS = "state.json", "model.keras", "best_weights.npz"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StoppingState(_Strict):
    """The state of early stopping, without its best weights."""

    wait: Annotated[int, Field(ge=0)]
    best: float
    best_epoch: Annotated[int, Field(ge=0)]


class State(_Strict):
    """The content of state.json.

    Attributes:
        epochs: the number of finished epochs.
        stopped: whether early stopping ended the training.
        history: one row per epoch, with None for a value that is not finite.
        early_stopping: the state of early stopping, or None.
        config: the configuration of the run when the checkpoint was written; None in files of kvae 0.3 and before.
        files: the SHA-256 of each other file of the checkpoint, by name.
    """

    epochs: Annotated[int, Field(ge=1)]
    stopped: bool
    history: list[dict[str, float | None]]
    early_stopping: StoppingState | None = None
    config: dict[str, Any] | None = None
    files: dict[str, str] = {}

    @model_validator(mode="after")
    def _check_together(self) -> "State":
        numbers = [row.get("epoch") for row in self.history]
        if len(numbers) != self.epochs or numbers != list(range(1, self.epochs + 1)):
            raise ValueError(f"its history is not that of {self.epochs} epochs")
        return self

    @field_validator("config")
    @classmethod
    def _check_config(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        if values is not None:
            RunConfig.from_dict(values)
        return values

    @property
    def rows(self) -> list[dict[str, float]]:
        """The history with whole numbers of epochs, and NaN for a value that was not finite."""
        return [
            {name: np.nan if value is None else value for name, value in row.items()} | {"epoch": number}
            for number, row in enumerate(self.history, start=1)
        ]


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
        config: the configuration of the run, which the checkpoint states.

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
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.history_file = history_file
        self.rows = list(rows or [])
        self.seconds = seconds
        self.early_stopping = early_stopping
        self.config = config
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
        target, stopping = self.folder / f"epoch-{epochs:06d}", self.early_stopping
        # A folder of the same name can be left from a run that was resumed at an earlier epoch.
        with files.atomic_folder(target, overwrite=True) as partial:
            self.model.save(partial / MODEL)
            state: dict[str, Any] = {
                "epochs": epochs,
                "stopped": bool(self.model.stop_training),
                "history": [
                    {name: value if np.isfinite(value) else None for name, value in row.items()} for row in self.rows
                ],
            }
            if stopping is not None and stopping.best_weights is not None:
                state["early_stopping"] = stopping.state()
                np.savez(partial / BEST_WEIGHTS, *stopping.best_weights)
            if self.config is not None:
                state["config"] = self.config
            state["files"] = {path.name: files.digest(path) for path in sorted(partial.iterdir())}
            sealed.write(partial / STATE, state)
        for older in self.folder.iterdir():
            if NAME.fullmatch(older.name) and older != target:
                shutil.rmtree(older, ignore_errors=True)
        self._saved_at = time.monotonic()


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None."""
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return max(found, key=_epochs_in_name, default=None)


def _epochs_in_name(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("epoch-"))


def read_state(checkpoint: Path) -> State:
    """Reads the state of a checkpoint, and checks that its files are those that were written.

    Raises:
        UserError: if the checkpoint is damaged.
    """
    try:
        state = State.model_validate(sealed.read(checkpoint / STATE))
        if state.epochs != _epochs_in_name(checkpoint):
            raise UserError(f"its {STATE} is that of {state.epochs} epochs")
        for name, stated in state.files.items():
            if files.digest(checkpoint / Path(name).name) != stated:
                raise UserError(f"{name} is not the file that {STATE} states")
    except (ValidationError, UserError) as error:
        raise damaged(checkpoint, error) from error
    return state


def damaged(checkpoint: Path, error: Exception) -> UserError:
    """The error for a checkpoint that cannot be read."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = shortened(".".join(map(str, first["loc"])), 100)
        reason = f"{STATE}: {place}{': ' * bool(place)}{shortened(first['msg'], 200)}"
    else:
        reason = first_line(error)
    return UserError(f"{checkpoint} is damaged ({reason}). Delete that folder, or train again.")


class Resumed:
    """The content of a checkpoint.

    Args:
        checkpoint: the folder of the checkpoint.
        state: its state, from `read_state`.

    Attributes:
        state: the state.
        model: the model with its optimizer.
        best_weights: the best weights that early stopping has kept, or None.

    Raises:
        UserError: if the checkpoint is damaged.
    """

    def __init__(self, checkpoint: Path, state: State) -> None:
        self.state = state
        try:
            self._read(checkpoint)
        except Exception as error:  # Keras does not convert the errors of zip, HDF5 and JSON
            raise damaged(checkpoint, error) from error

    def _read(self, checkpoint: Path) -> None:
        self.model = keras.saving.load_model(checkpoint / MODEL)
        if not isinstance(self.model, VAE):
            raise UserError(f"{MODEL} is a {type(self.model).__name__}")
        self.best_weights: list[np.ndarray] | None = None
        if self.state.early_stopping is not None:
            with np.load(checkpoint / BEST_WEIGHTS) as arrays:
                self.best_weights = [arrays[name] for name in arrays.files]
            if [array.shape for array in self.best_weights] != [array.shape for array in self.model.get_weights()]:
                raise UserError(f"{BEST_WEIGHTS} has the weights of another model")
