"""The run folder: everything one training leaves behind, each file written at once and whole.

saved_models/<run>/
  config.json        the whole configuration, with protocol and package versions
  model.keras        weights and architecture, no optimizer state
  encoder.keras, decoder.keras
  history.csv        one row an epoch
  evaluation.json    what `kvae evaluate` printed last on the run's own data, with its protocol
  evaluation-<dataset>.json    the same on other data
  plots/*.png
  checkpoint/        what --resume needs
  bundle/            what `kvae export` wrote
"""

import importlib.metadata
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.training import history
from kvae.training.config import RunConfig

if TYPE_CHECKING:
    from kvae.model.vae import VAE

PACKAGES = ("kvae", "tensorflow", "keras", "numpy", "tensorflow-datasets")


class Run:
    """A run folder that exists.

    Attributes:
        folder: where it lies.
        config: what was trained.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def create(cls, folder: str | Path, config: RunConfig, protocol: dict[str, Any], overwrite: bool = False) -> "Run":
        """Makes a new run folder with its config.json.

        Raises:
            UserError: the folder exists and `overwrite` is False, or it is no run, or it cannot be written to.
        """
        folder = Path(folder)
        check_free(folder, overwrite)
        if folder.is_dir():  # emptied, not removed: it may be a mount, a link or the current folder
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        run = cls(folder, config)
        run.write_config(protocol)
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Opens a run folder.

        Raises:
            UserError: it is not one.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise UserError(f"Expected the folder of a run, with a config.json. {str(folder)!r} is none.")
        values = files.read_json(folder / "config.json")
        if not isinstance(values, dict) or "config" not in values:
            raise UserError(f"{folder / 'config.json'} is not the configuration of a run.")
        return cls(folder, RunConfig.from_dict(values["config"]))

    def write_config(self, protocol: dict[str, Any]) -> None:
        """Writes config.json."""
        content = {"config": self.config.to_dict(), "protocol": protocol, "versions": versions()}
        files.write_json(self.folder / "config.json", content)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def history_file(self) -> Path:
        return self.folder / "history.csv"

    @property
    def finished(self) -> bool:
        """Whether the training ended and left its model and evaluation."""
        return (self.folder / "model.keras").is_file() and (self.folder / "evaluation.json").is_file()

    def discard_results(self) -> None:
        """Removes what a training leaves at its end, before it goes on; the checkpoint still holds its whole state."""
        for name in ("evaluation.json", "model.keras", "encoder.keras", "decoder.keras"):
            (self.folder / name).unlink(missing_ok=True)

    def history(self) -> dict[str, np.ndarray]:
        """history.csv, a column a name; raises `UserError` where it is missing."""
        return history.read(self.history_file)

    def save_models(self, vae: "VAE") -> None:
        """Writes encoder.keras, decoder.keras and, last, model.keras, without optimizer state."""
        bare = type(vae).from_config(vae.get_config())
        bare.build((None, *vae.image_shape))
        bare.set_weights(vae.get_weights())
        bare.steps.assign(vae.steps)
        for name, model in (("encoder", bare.encoder), ("decoder", bare.decoder), ("model", bare)):
            with files.atomic_file(self.folder / f"{name}.keras") as partial:
                model.save(partial)

    def load_model(self) -> "VAE":
        """The trained model.

        Raises:
            UserError: the training has not finished, or model.keras is damaged.
        """
        from kvae.internal.tensorflow import keras
        from kvae.model.vae import VAE

        path = self.folder / "model.keras"
        if not path.is_file():
            hint = f" Finish it: kvae train --resume --out {self.folder}" if self.checkpoints.is_dir() else ""
            raise UserError(f"{str(self.folder)!r} has no model.keras: its training has not finished.{hint}")
        try:
            vae = keras.saving.load_model(path, compile=False)
        except Exception as error:  # Keras lets through what zip, HDF5, JSON and its own checks raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"{path} is damaged or not a model of kvae ({reason}).") from error
        if not isinstance(vae, VAE):
            raise UserError(f"{path} holds a {type(vae).__name__}. Expected a kvae.VAE.")
        return vae

    def write_evaluation(self, evaluation: dict[str, Any], dataset: str | None = None) -> None:
        """Writes evaluation.json, or evaluation-<dataset>.json for other data than the run's own."""
        of = "" if dataset is None else "-" + re.sub(r"\W+", "_", dataset).strip("_")
        files.write_json(self.folder / f"evaluation{of}.json", evaluation)

    @property
    def plots(self) -> Path:
        return self.folder / "plots"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"


def versions() -> dict[str, str]:
    """The packages that a run and a bundle state, with their versions."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def check_free(folder: str | Path, overwrite: bool) -> None:
    """Raises `UserError` where a run must not be created in `folder`."""
    folder = Path(folder)
    if folder.is_dir() and all(entry.name.startswith(files.PARTIAL) for entry in folder.iterdir()):
        return  # empty, but for what a process left that was killed before its first file
    if folder.exists() and not overwrite:
        raise UserError(
            f"{str(folder)!r} exists. Go on with --resume, replace it with --overwrite, or choose another --out."
        )
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"{str(folder)!r} is not a run of kvae, so --overwrite leaves it alone. Choose another --out.")
