"""The runs in a folder and their state. It is quick, because no model is opened and TensorFlow is not imported."""

import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from kvae.internal import locks, partials, replacing
from kvae.internal.errors import KvaeWarning, UserError, first_line
from kvae.internal.next_command import kvae_command
from kvae.runtime.cards import CARD
from kvae.training import history
from kvae.training.runs import Run

LEVELS = 3  # a run in the folder, in a folder of it, and in a folder of that one
OF_A_RUN = ("config.json", "history.csv", "model.keras")  # a folder with one of them is a run, or was one


class RunFacts(NamedTuple):
    """What the files of a run tell about it. What is not known is None."""

    name: str  # the path relative to the folder that was listed
    folder: Path
    state: str  # finished, not evaluated, training, interrupted or damaged
    reason: str | None = None  # why it is damaged, or which process is training it
    dataset: str | None = None
    recipe: str | None = None
    epochs: int | None = None  # that were trained
    planned_epochs: int | None = None
    best_epoch: int | None = None  # whose weights were kept; None without early stopping
    elbo: float | None = None  # nats per image
    elbo_standard_error: float | None = None
    bytes: int = 0
    bundle: bool = False
    changed: float | None = None  # seconds since 1970

    @property
    def remark(self) -> str:
        """A sentence about a run that has not finished, with what to do; an empty text for one that has."""
        if self.state == "finished":
            return ""
        if self.state == "damaged":
            return f"{self.reason}."
        if self.state == "not evaluated":
            return f"It has no evaluation. To make one: {kvae_command('evaluate', self.folder)}"
        place = f"at epoch {self.epochs} of {self.planned_epochs}"
        if self.state == "training":
            return f"Training now, {place}, by {self.reason}."
        return f"Interrupted {place}. To continue: {kvae_command('train', '--resume', '--out', self.folder)}"


def find(folder: str | os.PathLike[str], levels: int = LEVELS) -> tuple[list[Path], list[Path]]:
    """The run folders in a folder, and the other folders in it.

    Args:
        folder: the folder, which may itself be a run.
        levels: the number of levels of folders that are looked at.

    Returns:
        The runs, also damaged ones, and the folders that are neither runs nor contain any; both sorted by name.

    Raises:
        UserError: if the folder is missing or cannot be read.
    """
    folder = Path(folder)
    if _is_run(folder):
        return [folder], []
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"Expected a folder with runs. Could not read {str(folder)!r}: {error.strerror}.") from error
    runs, others = [], []
    for child in (folder / name for name in names if not name.startswith(".") and not partials.is_partial(name)):
        if not os.path.isdir(child):
            continue
        try:
            found, rest = find(child, levels - 1) if levels > 1 or _is_run(child) else ([], [])
        except UserError:  # a folder that this user may not read
            found, rest = [], []
        runs += found
        others += rest if found else [child]
    return runs, others


def _is_run(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in OF_A_RUN)


def describe(folder: Path, name: str) -> RunFacts:
    """What the files of a run tell about it. A run whose files cannot be read is one that is damaged."""
    files = [folder / file for file in replacing.files_in(folder)]
    facts = [status for status in map(_status, files) if status is not None]
    size, changed = sum(each.st_size for each in facts), max((each.st_mtime for each in facts), default=None)
    common: dict[str, Any] = {"name": name, "folder": folder, "bytes": size, "changed": changed}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KvaeWarning)  # that a file is of an earlier version
            return RunFacts(**common, **_content(folder))
    except UserError as error:
        return RunFacts(**common, state="damaged", reason=first_line(error))


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.lstat()
    except OSError:  # a training that goes on has replaced it in the meantime
        return None


def _content(folder: Path) -> dict[str, Any]:
    """The fields of `RunFacts` that are in config.json, history.csv and evaluation.json."""
    if not (folder / "config.json").is_file():
        raise UserError("it has no config.json")
    holder = locks.holder(folder)
    run = Run.open(folder)
    columns = run.history() if run.history_file.is_file() else {}
    training, finished = run.config.training, run.finished
    evaluation = run.evaluation() if (folder / "evaluation.json").is_file() else {}
    if finished:
        state = "finished"
    elif holder is not None:
        state = "training"
    elif (folder / "model.keras").is_file():
        state = "not evaluated"
    else:
        state = "interrupted"
    return {
        "state": state,
        "reason": holder if state == "training" else None,
        "dataset": str(run.facts["protocol"].get("dataset", run.config.data.source)),
        "recipe": run.config.name,
        "epochs": len(columns.get("epoch", ())),
        "planned_epochs": training.epochs,
        "best_epoch": history.best_epoch(columns) if training.early_stopping is not None else None,
        "elbo": number(evaluation.get("elbo")),
        "elbo_standard_error": number(evaluation.get("elbo_standard_error")),
        "bundle": (run.bundle / CARD).is_file(),
    }


def number(value: Any) -> float | None:
    """A value of an evaluation as a number; None if it is missing or is a list."""
    return float(value) if isinstance(value, int | float) else None
