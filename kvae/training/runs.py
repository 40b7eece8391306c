"""The run folder: all files of one training run, none of which is ever visible half-written.

saved_models/<run>/
  config.json        the whole configuration, with the protocol of the data and the versions of packages
  model.keras        weights and architecture, without the state of the optimizer
  encoder.keras, decoder.keras
  history.csv        one row per epoch
  training_time.json the seconds that the training has taken, of a clock and of the processor
  evaluation.json    the last evaluation on the run's own data, with its protocol
  evaluation-<dataset>.json    the last evaluation on other data
  plots/*.png        figures
  checkpoint/        the checkpoint for --resume
  bundle/            the bundle of `kvae export`
  .lock              held by the process that writes the run; .lock.json says which one that is
"""

import importlib.metadata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvae import __version__
from kvae.internal import files, finite, locks, partials, replacing, sealed
from kvae.internal.errors import KvaeWarning, UserError, stacklevel_of_user
from kvae.internal.next_command import kvae_command
from kvae.internal.visible import shown
from kvae.runtime import cards, pretrained
from kvae.runtime.keras import load_model
from kvae.training import history
from kvae.training.config import RunConfig, of_run
from kvae.training.names import distinct_name

if TYPE_CHECKING:
    from kvae.model.vae import VAE

PLACE = Path("saved_models")  # where commands write runs by default
PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets")
DECISIVE = ("kvae", "tensorflow", "keras")  # another version of these can change the weights
# All files that kvae writes into a run, except for its bundle, as a regular expression.
FILES = r"""
    config\.json | history\.csv | training_time\.json | evaluation(-[^/]+)?\.json | (model|encoder|decoder)\.keras
    | (exported_)?samples\.png | tensorboard/.*
    | unfinished/[0-9a-f]+\.npz | \.lock | \.lock\.json
    | checkpoint/epoch-\d+/(model\.keras|state\.json|best_weights\.npz)
    | plots/(samples|reconstructions|latent_scatter|lattice|map|interpolation|outliers|learning_curves|completion
             |posterior_contours|complete)(_\w+)?\.(png|svg|pdf) | plots/complete\.json
"""


class Run:
    """A run folder.

    Attributes:
        folder: its path.
        config: the configuration of the run.
        facts: what config.json states besides: the protocol of the data, the versions of the packages with which the
            training began, and the names of the classes of a conditional model.
    """

    def __init__(self, folder: Path, config: RunConfig, facts: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.config = config
        self.facts = facts or {}

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: RunConfig,
        protocol: dict[str, Any],
        overwrite: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> "Run":
        """Makes a new run folder with its config.json.

        Args:
            folder: the path of the folder.
            config: the configuration of the run.
            protocol: the protocol of the data.
            overwrite: whether to replace an existing run. False by default.
            class_names: for a conditional model, the names of the classes, whose images it makes.

        Raises:
            UserError: if the folder exists and `overwrite` is False, if it is not a run, or if it cannot be written.
        """
        folder = Path(folder)
        check_free(folder, overwrite)
        further = {} if class_names is None else {cards.CLASS_NAMES: list(class_names)}
        run = cls(folder, config, {"protocol": protocol, "versions": versions(), **further})
        if not folder.is_dir() or files.is_empty(folder):
            run.write_config()
            return run
        # Windows cannot rename a folder in which a file is open, as that of the lock.
        held = nullcontext() if files.WINDOWS else run.locked()
        with held, files.atomic_folder(folder, overwrite=True) as partial:
            cls(partial, config, run.facts).write_config()
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Opens a run folder, and removes what killed processes left in it.

        Raises:
            UserError: if the folder is not a run, or if its config.json is not valid.
        """
        folder = Path(folder)
        partials.recover(folder.parent)  # a process that replaced the run may have been killed in between
        if not (folder / "config.json").is_file():
            reason = (
                "has no config.json" if folder.is_dir() else "is no folder" if folder.exists() else "does not exist"
            )
            raise UserError(
                f"Expected the folder of a run. {str(folder)!r} is not a run folder: it {reason}. "
                + (_nearest(folder) or pretrained.has_no_run(folder) or f"To list the runs: {kvae_command('list')}")
            )
        values = files.read_json(folder / "config.json")
        facts = {key: value for key, value in values.items() if key != "config"} if isinstance(values, dict) else {}
        if not isinstance(facts.get("protocol"), dict) or "kvae" not in _texts(facts.get("versions")):
            raise UserError(
                f"{folder / 'config.json'} is not the configuration of a run: expected the keys config, protocol and "
                "versions, as kvae writes them."
            )
        config = of_run(values.get("config"))
        partials.recover(folder, nested=True)
        return cls(folder, config, facts)

    def write_config(self) -> None:
        """Writes config.json."""
        files.write_json(self.folder / "config.json", {"config": self.config.to_dict(), **self.facts})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder against other processes that would write it.

        Raises:
            UserError: if another process is writing the run, or if the folder cannot be written to.
        """
        with locks.locked(self.folder):
            yield

    def warn_of_versions(self) -> None:
        """Warns if another version of kvae, TensorFlow or Keras is installed than when the training began."""
        begun, present = _texts(self.facts.get("versions")), versions()
        others = [
            f"{name} {begun[name]} (now {present[name]})"
            for name in DECISIVE
            if begun.get(name) not in (None, present[name])
        ]
        if others:
            message = (
                f"This training began with {', '.join(others)}. So its result may differ from that of an "
                "uninterrupted training."
            )
            warnings.warn(message, KvaeWarning, stacklevel=stacklevel_of_user())

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def history_file(self) -> Path:
        return self.folder / "history.csv"

    @property
    def time_file(self) -> Path:
        return self.folder / "training_time.json"

    def training_seconds(self) -> float | None:
        """The time that the training has taken, with its evaluations, checkpoints and figures, in seconds.

        It includes epochs that were trained again after an interruption. It is None if it is not known, as for runs of
        kvae 0.3 and before.
        """
        return self._time("seconds")

    def processor_seconds(self) -> float | None:
        """The seconds in which a core of the processor worked for the training, summed over the cores.

        They are of use where other programs share the machine. They include and miss what `training_seconds` does.
        """
        return self._time("processor_seconds")

    def _time(self, kind: str) -> float | None:
        try:
            seconds = files.read_json(self.time_file)[kind]
        except (UserError, LookupError, TypeError):
            return None
        return float(seconds) if isinstance(seconds, int | float) and seconds >= 0 else None

    @property
    def finished(self) -> bool:
        """Whether the training has ended, so that the model and its evaluation are there."""
        return (self.folder / "model.keras").is_file() and (self.folder / "evaluation.json").is_file()

    def discard_results(self) -> None:
        """Removes the files that are written at the end of a training, so that it can continue from its checkpoint."""
        # The evaluation first: without it, the run is not finished.
        for name in ("evaluation.json", "model.keras", "encoder.keras", "decoder.keras"):
            (self.folder / name).unlink(missing_ok=True)

    def history(self) -> dict[str, np.ndarray]:
        """The columns of history.csv by name; raises `UserError` if the file is missing."""
        return history.read(self.history_file)

    def save_models(self, vae: "VAE") -> None:
        """Writes encoder.keras, decoder.keras and, last, model.keras, all without the state of the optimizer.

        Raises:
            UserError: if a weight is NaN or infinite; then nothing is written.
        """
        finite.check_weights(vae)
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

        path = self._model_file()
        vae = load_model(path)
        if not isinstance(vae, VAE):
            raise UserError(f"Expected {path} to contain a kvae.VAE. Received a {type(vae).__name__}.")
        return vae

    def evaluation(self) -> dict[str, Any]:
        """The content of evaluation.json; raises `UserError` if it is missing, damaged or not an evaluation."""
        return read_evaluation(self.evaluation_file())

    def model_digest(self) -> str:
        """SHA-256 of model.keras; raises `UserError` if the training has not finished."""
        return files.digest(self._model_file())

    def _model_file(self) -> Path:
        path = self.folder / "model.keras"
        if not path.is_file():
            finish = kvae_command("train", "--resume", "--out", self.folder)
            hint = f" To finish it: {finish}" if self.checkpoints.is_dir() else ""
            raise UserError(f"{str(self.folder)!r} has no model.keras: its training has not finished.{hint}")
        return path

    def evaluation_file(self, dataset: str | None = None) -> Path:
        """The path of evaluation.json, or of evaluation-<dataset>.json for data that are not the run's own."""
        suffix = "" if dataset is None else f"-{distinct_name(dataset)}"
        return self.folder / f"evaluation{suffix}.json"

    def write_evaluation(self, evaluation: dict[str, Any], dataset: str | None = None) -> None:
        """Writes the evaluation of the run's own data, or of others."""
        sealed.write(self.evaluation_file(dataset), evaluation)

    @property
    def unfinished_evaluation(self) -> Path:
        """The folder for the results of batches of an evaluation that has not ended."""
        return self.folder / "unfinished"

    @property
    def plots(self) -> Path:
        return self.folder / "plots"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"


def _nearest(folder: Path) -> str:
    """A question for a path that is that of a run in the default place of runs; empty for any other path."""
    near = PLACE / folder
    return f"Did you mean {str(near)!r}?" if (near / "config.json").is_file() else ""


def versions() -> dict[str, str]:
    """The versions of the packages that config.json and the model card record."""
    return {"kvae": __version__, **{package: importlib.metadata.version(package) for package in PACKAGES}}


def read_evaluation(path: Path) -> dict[str, Any]:
    """Reads an evaluation that kvae wrote.

    Raises:
        UserError: if the file cannot be read, is damaged, or is not an evaluation.
    """
    content = sealed.read(path)
    numbers = {name: value for name, value in content.items() if name != "protocol"}
    wrong = [name for name, value in numbers.items() if not _is_measured(value, name.endswith("_standard_error"))]
    if not isinstance(content.get("protocol"), dict) or wrong:
        reason = f"{shown(wrong[0])} has no numbers" if wrong else "it has no protocol"
        again = kvae_command("evaluate", path.parent)
        raise UserError(f"{path} is not an evaluation of kvae: {reason}. Evaluate again: {again}")
    return content


def _is_measured(value: Any, may_be_unknown: bool) -> bool:
    """Whether a value in an evaluation is a number, or a list of numbers.

    Args:
        value: the value.
        may_be_unknown: whether it may also be None, like the standard error of a single image.
    """
    if isinstance(value, list):
        return all(_is_measured(each, may_be_unknown) for each in value)
    if value is None:
        return may_be_unknown
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts(value: Any) -> dict[str, str]:
    """A dictionary of texts by name; an empty one if the value is something else."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        return {}
    return value


def check_free(folder: str | Path, overwrite: bool) -> None:
    """Checks that a run may be created in a folder: a new one, an empty one, or with `overwrite` that of a run.

    Raises:
        UserError: if it may not, or if another process is writing the run.
    """
    folder = Path(folder)
    if not folder.exists():
        partials.recover(folder.parent)
    if folder.is_dir() and files.is_empty(folder):
        files.check_folder(folder)
        return
    or_else = "Continue the run with --resume. "
    replacing.check_free(folder, overwrite, noun="a run", strangers=strangers, or_else=or_else)
    if folder.exists():
        with locks.locked(folder):
            pass


def strangers(folder: Path) -> list[str]:
    """The files in the folder of a run that kvae did not write.

    Raises:
        UserError: if the folder is not a run.
    """
    Run.open(folder)
    names = list(replacing.files_in(folder))
    found = replacing.not_among((name for name in names if not name.startswith("bundle/")), FILES)
    if any(name.startswith("bundle/") for name in names):
        found += [f"bundle/{name}" for name in cards.strangers(folder / "bundle")]
    return found
