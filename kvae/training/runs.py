"""The run folder: all files of one training run, none of which is ever visible half-written.

saved_models/<run>/
  config.json        the whole configuration, with the protocol of the data and the versions of packages
  model.keras        weights and architecture, without the state of the optimizer
  encoder.keras, decoder.keras
  history.csv        one row per epoch
  evaluation.json    the last evaluation on the run's own data, with its protocol
  evaluation-<dataset>.json    the last evaluation on other data
  plots/*.png        figures
  checkpoint/        the checkpoint for --resume
  bundle/            the bundle of `kvae export`
"""

import importlib.metadata
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvae import __version__
from kvae.internal import files, sealed
from kvae.internal.errors import UserError
from kvae.runtime.keras import load_model
from kvae.training import history
from kvae.training.config import RunConfig
from kvae.training.part_tables import with_tables

if TYPE_CHECKING:
    from kvae.model.vae import VAE

PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets")


class Run:
    """A run folder.

    Attributes:
        folder: its path.
        config: the configuration of the run.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def create(cls, folder: str | Path, config: RunConfig, protocol: dict[str, Any], overwrite: bool = False) -> "Run":
        """Makes a new run folder with its config.json.

        Args:
            folder: the path of the folder.
            config: the configuration of the run.
            protocol: the protocol of the data.
            overwrite: whether to replace an existing run. False by default.

        Raises:
            UserError: if the folder exists and `overwrite` is False, if it is not a run, or if it cannot be written.
        """
        folder = Path(folder)
        check_free(folder, overwrite)
        if folder.is_dir():  # emptied and not removed, because it may be a mount, a link or the current folder
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        run = cls(folder, config)
        run.write_config(protocol)
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Opens a run folder.

        Raises:
            UserError: if the folder is not a run, or if its config.json is not valid.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"Expected the folder of a run, with a config.json. Received {str(folder)!r}, which is not one."
            )
        values = files.read_json(folder / "config.json")
        if not isinstance(values, dict) or "config" not in values:
            raise UserError(f"{folder / 'config.json'} is not the configuration of a run.")
        config = values["config"]
        if isinstance(config, dict) and isinstance(config.get("model"), dict):
            config = {**config, "model": with_tables(config["model"], of_version_0_2=True)}
        return cls(folder, RunConfig.from_dict(config))

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
        """Whether the training has ended, so that the model and its evaluation are there."""
        return (self.folder / "model.keras").is_file() and (self.folder / "evaluation.json").is_file()

    def discard_results(self) -> None:
        """Removes the files that are written at the end of a training, so that it can continue from its checkpoint."""
        for name in ("evaluation.json", "model.keras", "encoder.keras", "decoder.keras"):
            (self.folder / name).unlink(missing_ok=True)

    def history(self) -> dict[str, np.ndarray]:
        """The columns of history.csv by name; raises `UserError` if the file is missing."""
        return history.read(self.history_file)

    def save_models(self, vae: "VAE") -> None:
        """Writes encoder.keras, decoder.keras and, last, model.keras, all without the state of the optimizer."""
        copy = type(vae).from_config(vae.get_config())
        copy.build((None, *vae.image_shape))
        copy.set_weights(vae.get_weights())
        copy.steps.assign(vae.steps)
        for name, model in (("encoder", copy.encoder), ("decoder", copy.decoder), ("model", copy)):
            with files.atomic_file(self.folder / f"{name}.keras") as partial:
                model.save(partial)

    def load_model(self) -> "VAE":
        """Loads the trained model.

        Raises:
            UserError: if the training has not finished, or if model.keras is damaged.
        """
        from kvae.model.vae import VAE

        path = self.folder / "model.keras"
        if not path.is_file():
            hint = f" To finish it: kvae train --resume --out {self.folder}" if self.checkpoints.is_dir() else ""
            raise UserError(f"{str(self.folder)!r} has no model.keras: its training has not finished.{hint}")
        vae = load_model(path)
        if not isinstance(vae, VAE):
            raise UserError(f"Expected {path} to contain a kvae.VAE. Received a {type(vae).__name__}.")
        return vae

    def write_evaluation(self, evaluation: dict[str, Any], dataset: str | None = None) -> None:
        """Writes evaluation.json, or evaluation-<dataset>.json if the data are not the run's own."""
        suffix = "" if dataset is None else "-" + re.sub(r"\W+", "_", dataset).strip("_")
        sealed.write(self.folder / f"evaluation{suffix}.json", evaluation)

    @property
    def plots(self) -> Path:
        return self.folder / "plots"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"


def versions() -> dict[str, str]:
    """The versions of the packages that config.json and the model card record."""
    return {"kvae": __version__, **{package: importlib.metadata.version(package) for package in PACKAGES}}


def check_free(folder: str | Path, overwrite: bool) -> None:
    """Raises `UserError` if a run must not be created in `folder`."""
    folder = Path(folder)
    if folder.is_dir() and all(entry.name.startswith(files.PARTIAL) for entry in folder.iterdir()):
        return  # empty, except for the unfinished files of a process that was killed
    if folder.exists() and not overwrite:
        raise UserError(
            f"{str(folder)!r} exists. Continue the run with --resume, replace it with --overwrite, or choose another "
            "--out."
        )
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(
            f"{str(folder)!r} is not a run of kvae, so --overwrite does not replace it. Choose another --out."
        )
