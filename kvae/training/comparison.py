"""Several runs side by side, from what their files state. Nothing is computed again, and TensorFlow is not imported.

Runs are ranked by their ELBO, which means something only if it was measured in the same way: on the same images,
binarized alike, with comparable likelihoods, and with the same draws and seed. The protocols of the evaluations tell.
"""

import csv
import io
import json
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kvae.internal import files, quantities, reading
from kvae.internal.errors import UserError
from kvae.internal.markdown import escaped
from kvae.internal.next_command import kvae_command
from kvae.internal.visible import shortened, shown, visible
from kvae.training import further_results, history, run_list, wording
from kvae.training.further_results import Number
from kvae.training.runs import Run

HEADINGS = (
    "run",
    "protocol",
    "ELBO",
    "difference from best",
    "bound of log p(x)",
    "bits per dim.",
    "KL term",
    "active latent dimensions",
    "epochs",
    "training time",
    "model file",
)
ESTIMATES = ("ELBO", "difference from best", "bound of log p(x)")  # columns of numbers with a standard error
TABLE, PAGE, CURVES = "comparison.csv", "comparison.md", "elbo_curves.png"
# What a protocol states about the model and its training, and not about the measurement. `noise` is the version of the
# random numbers, and `kl` the way of computing the KL term: both change the estimate only by its error.
OF_THE_MODEL = ("train", "validation", "prior", "posterior", "kl", "noise", "evaluations")
FEW = 3  # runs that a message names


class Compared(NamedTuple):
    """A run in a comparison. What is not known is None."""

    name: str
    folder: Path
    protocol: dict[str, Any]
    elbo: float  # nats per image
    elbo_standard_error: float | None
    log_likelihood: float | None  # the importance-weighted bound, nats per image
    log_likelihood_standard_error: float | None
    bits_per_dimension: float | None  # lower is better; only of likelihoods of discrete grey levels
    kl: float | None  # nats per image
    active_units: int | None
    latent_dim: int
    epochs: int | None
    planned_epochs: int
    training_seconds: float | None
    parameters: int | None
    bytes: int  # of model.keras
    further: dict[str, Number]  # what else its evaluation states
    history: dict[str, Any]  # the columns of history.csv
    held_out: str  # the images of its `val_...` columns
    kept: int | None  # the epoch whose weights early stopping kept


class Comparison(NamedTuple):
    """Runs side by side.

    Attributes:
        runs: the runs, the best first if they are ranked, otherwise in the order in which they were named.
        left_out: for each run without an ELBO, by name, the reason and what to do.
        differing: the keys of the protocols that differ, with the value of each run.
        ranked: whether the runs are ranked.
    """

    runs: list[Compared]
    left_out: dict[str, str]
    differing: dict[str, list[Any]]
    ranked: bool

    @property
    def letters(self) -> list[str]:
        """A letter for the protocol of each run; runs with the same letter can be compared."""
        keys = [
            json.dumps([_what_counts(key, values[i]) for key, values in self.differing.items()])
            for i in range(len(self.runs))
        ]
        distinct = list(dict.fromkeys(keys))
        return [_letter(distinct.index(key)) for key in keys]

    def difference(self, run: Compared) -> tuple[float, float | None] | None:
        """The ELBO of a run minus that of the best, with its standard error; None for the best and without ranks.

        The standard error is that of independent sets of images, because the ELBO of each image is not in the files.
        """
        if not self.ranked or run is self.runs[0]:
            return None
        errors = (run.elbo_standard_error, self.runs[0].elbo_standard_error)
        error = None if None in errors else math.hypot(*errors)  # type: ignore[arg-type]
        return run.elbo - self.runs[0].elbo, error

    @property
    def close(self) -> list[str]:
        """The names of the runs whose difference from the best is at most two of its standard errors."""
        pairs = [(run.name, self.difference(run)) for run in self.runs]
        return [name for name, pair in pairs if pair and pair[1] is not None and abs(pair[0]) <= 2 * pair[1]]

    def notes(self) -> list[str]:
        """Sentences that belong to the table."""
        lines = []
        if self.ranked and len(self.runs) > 1:
            if self.differing:  # then the order may mean nothing, and no run is better
                lines.append(f"The protocols differ, so this order may mean nothing: {self.differences()}.")
            elif self.close:
                names = ", ".join(self.close)
                lines.append(
                    f"Not clearly worse than {self.runs[0].name}, because the difference is at most two standard "
                    f"errors: {names}."
                )
            elif all(self.difference(run)[1] is not None for run in self.runs[1:]):  # type: ignore[index]
                lines.append(f"{self.runs[0].name} is better than all others by more than two standard errors.")
            lines.append(
                "The standard error of a difference is unpaired: it is computed as if each run had been measured on "
                "other images. For the same images it is usually smaller, which these files do not tell."
            )
        if options := further_results.differing([run.protocol for run in self.runs]):
            words = ", ".join(map(wording.in_words, options))
            lines.append(f"The further results were measured with different options: {words}.")
        likelihoods = {run.protocol.get("likelihood") for run in self.runs}
        if self.ranked and not self.differing and len(likelihoods) > 1:
            lines.append(
                f"The likelihoods differ ({', '.join(sorted(map(str, likelihoods)))}). All are normalized densities of "
                "the same pixels, so their numbers can be compared. A Gaussian has a part of its mass outside of "
                "[0, 1]."
            )
        return lines + [f"{name} is not compared. {reason}" for name, reason in self.left_out.items()]

    def differences(self) -> str:
        """The keys that differ, each with its values and the runs that have them."""
        parts = []
        for key, values in self.differing.items():
            names: dict[str, list[str]] = {}
            for run, value in zip(self.runs, values, strict=True):
                names.setdefault("none" if value is None else shown(value, 60), []).append(run.name)
            texts = [f"{value} for {_few(having)}" for value, having in names.items()]
            parts.append(f"{wording.in_words(key)} ({'; '.join(texts)})")
        return ", ".join(parts)


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"{_letter(number // 26 - 1)}{_letter(number % 26)}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def compare(folders: Iterable[str | os.PathLike[str]], *, any_protocol: bool = False) -> Comparison:
    """Reads the evaluations of runs, and ranks the runs by their ELBO if this is fair.

    Args:
        folders: run folders, and folders of them.
        any_protocol: whether to rank the runs even if their protocols differ. False by default.

    Raises:
        UserError: if there are fewer than two runs, if none has an ELBO, or if a file of a run is damaged.
    """
    found = [run for folder in folders for run in _runs_in(Path(folder))]
    found = list({os.path.realpath(run): run for run in found}.values())
    if len(found) < 2:
        raise UserError(f"Expected at least two runs to compare. Received {len(found)}.")
    names = names_of(found)
    runs, left_out = [], {}
    for name, folder in zip(names, found, strict=True):
        run = Run.open(folder)
        reason = _without_elbo(run)
        if reason is None:
            runs.append(_compared(name, run))
        else:
            left_out[name] = reason
    if not runs:
        raise UserError(f"Expected runs with an evaluation. {next(iter(left_out.values()))}")
    ranked = any_protocol or not differing([run.protocol for run in runs])
    if ranked:
        runs.sort(key=lambda run: -run.elbo)
    return Comparison(runs, left_out, differing([run.protocol for run in runs]), ranked)


def _runs_in(folder: Path) -> list[Path]:
    """The folder itself if it is a run, otherwise the runs in it."""
    runs = run_list.find(folder)[0] if os.path.isdir(folder) else []
    if not runs:
        Run.open(folder)  # raises the error that says what is expected
    return runs


def names_of(folders: Sequence[Path]) -> list[str]:
    """Names of folders that tell them apart: their paths from the folder that holds them all."""
    parents = [os.path.dirname(os.path.abspath(folder)) for folder in folders]
    try:
        common = os.path.commonpath(parents)
    except ValueError:  # on several drives of Windows
        return [str(folder) for folder in folders]
    return [Path(os.path.abspath(folder)).relative_to(common).as_posix() for folder in folders]


def _without_elbo(run: Run) -> str | None:
    """Why a run cannot be compared and what to do, or None if it can."""
    if not (run.folder / "model.keras").is_file():
        return f"Its training has not finished. To finish it: {kvae_command('train', '--resume', '--out', run.folder)}"
    if not (run.folder / "evaluation.json").is_file():
        return f"It has no evaluation. To make one: {kvae_command('evaluate', run.folder)}"
    if run_list.number(run.evaluation().get("elbo")) is None:
        return f"Its evaluation has no ELBO. To make one: {kvae_command('evaluate', run.folder)}"
    return None


def _compared(name: str, run: Run) -> Compared:
    evaluation, config = run.evaluation(), run.config
    columns = run.history() if run.history_file.is_file() else {}
    keys = ("elbo_standard_error", "log_likelihood", "log_likelihood_standard_error", "bits_per_dimension", "kl")
    numbers = {key: run_list.number(evaluation.get(key)) for key in keys}
    latent_dim = evaluation.get("latent_dim", config.model.latent_dim)
    return Compared(
        name=name,
        folder=run.folder,
        protocol=evaluation["protocol"],
        elbo=float(evaluation["elbo"]),
        **numbers,
        active_units=evaluation.get("active_units"),
        latent_dim=latent_dim,
        epochs=len(columns["epoch"]) if columns else None,
        planned_epochs=config.training.epochs,
        training_seconds=run.training_seconds(),
        parameters=parameters(run.folder / "model.keras"),
        bytes=(run.folder / "model.keras").stat().st_size,
        further=further_results.of_evaluation(evaluation),
        history=columns,
        held_out="validation" if config.data.validation else "test",
        kept=history.best_epoch(columns) if config.training.early_stopping is not None else None,
    )


def parameters(model_file: Path) -> int | None:
    """The number of weights in a .keras file; None if they cannot be counted.

    Whole numbers, such as the counter of the steps, are not weights.
    """
    try:
        import h5py
    except ImportError:  # it is installed with TensorFlow
        return None

    sizes: list[int] = []

    def add(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            sizes.append(int(item.size))

    try:
        with reading.open_regular(model_file) as file, zipfile.ZipFile(file) as archive:
            member = archive.getinfo("model.weights.h5")
            if member.compress_type != zipfile.ZIP_STORED:  # Keras stores it; what is compressed could have any size
                return None
            with archive.open(member) as weights, h5py.File(weights, "r") as content:
                content.visititems(add)
    except (OSError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile):
        return None
    return sum(sizes)


def differing(protocols: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys in which protocols differ so that their numbers cannot be compared, with the value of each."""
    ignored = {*OF_THE_MODEL, *wording.OF_FURTHER_EVALUATIONS}
    keys = dict.fromkeys(key for each in protocols for key in each if key not in ignored)
    values = {key: [each.get(key) for each in protocols] for key in keys}
    return {key: each for key, each in values.items() if len(_distinct(key, each)) > 1}


def _distinct(key: str, values: Sequence[Any]) -> set[str]:
    """The distinct values of a key. A run without the bound has no number of its samples, which is no difference."""
    given = [value for value in values if value is not None or key != "importance_samples"]
    return {json.dumps(_what_counts(key, value), sort_keys=True) for value in given}


def _what_counts(key: str, value: Any) -> Any:
    """What of a value of the protocol decides whether numbers can be compared.

    Densities of the same pixels can be, but no probability of binary pixels with them, and no density without its
    constant.
    """
    return wording.DENSITIES if key == "likelihood" and value in wording.DENSITIES else value


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The numbers of each run by the name of their column, in the units that the names of the columns state."""
    result = []
    further = dict.fromkeys(name for run in comparison.runs for name in run.further)
    for place, (run, letter) in enumerate(zip(comparison.runs, comparison.letters, strict=True), start=1):
        difference, error = comparison.difference(run) or (None, None)
        result.append(
            {
                "rank": place if comparison.ranked else None,
                "run": run.name,
                "folder": str(run.folder),
                "protocol": letter,
                "elbo": run.elbo,
                "elbo_standard_error": run.elbo_standard_error,
                "difference": difference,
                "difference_standard_error_unpaired": error,
                "log_likelihood": run.log_likelihood,
                "log_likelihood_standard_error": run.log_likelihood_standard_error,
                "importance_samples": run.protocol.get("importance_samples"),
                "bits_per_dimension": run.bits_per_dimension,
                "kl": run.kl,
                "active_units": run.active_units,
                "latent_dim": run.latent_dim,
                "epochs": run.epochs,
                "planned_epochs": run.planned_epochs,
                "kept_epoch": run.kept,
                "training_seconds": run.training_seconds,
                "parameters": run.parameters,
                "model_bytes": run.bytes,
                **{key: value for name in further for key, value in _columns(name, run.further.get(name))},
            }
        )
    return result


def _columns(name: str, number: Number | None) -> Iterator[tuple[str, float | None]]:
    mean, error = number or (None, None)
    yield name, mean
    yield f"{name}{further_results.ERROR}", error


def further_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of a table of the further results, with a column for each run."""
    runs = comparison.runs
    return further_results.table([run.name for run in runs], [run.further for run in runs])


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The headings of a table for people, and its rows of texts. A star marks the best run."""
    table = []
    for run, letter in zip(comparison.runs, comparison.letters, strict=True):
        best = comparison.ranked and run is comparison.runs[0] and len(comparison.runs) > 1
        samples, stopped = run.protocol.get("importance_samples"), run.epochs and run.epochs < run.planned_epochs
        bound = _with_error(run.log_likelihood, run.log_likelihood_standard_error)
        table.append(
            [
                f"{run.name} *" if best else run.name,
                letter,
                _with_error(run.elbo, run.elbo_standard_error),
                _with_error(*(comparison.difference(run) or (None, None))),
                f"{bound} (K = {samples})" if bound else "",
                "" if run.bits_per_dimension is None else f"{run.bits_per_dimension:.3f}",
                "" if run.kl is None else f"{run.kl:.2f}",
                "" if run.active_units is None else f"{run.active_units} of {run.latent_dim}",
                f"{run.epochs} of {run.planned_epochs}" if stopped else str(run.epochs or ""),
                "" if run.training_seconds is None else quantities.duration(run.training_seconds),
                quantities.size(run.bytes),
            ]
        )
    kept = [
        column
        for column, heading in enumerate(HEADINGS)
        if heading in ("run", "ELBO") or (heading != "protocol" and any(row[column] for row in table))
    ]
    if comparison.differing:
        kept.insert(1, HEADINGS.index("protocol"))
    return [HEADINGS[column] for column in kept], [[row[column] for column in kept] for row in table]


def key(comparison: Comparison) -> str:
    """Sentences that explain the table."""
    text = "The ELBO, the bound and the KL term are in nats per image, ± the standard error; 1 nat = 1.44 bits."
    if any(run.log_likelihood is not None for run in comparison.runs):
        text += " K is the number of draws of z per image for the bound."
    if any(run.bits_per_dimension is not None for run in comparison.runs):
        text += " The bits per dimension are per pixel and channel; lower is better."
    if any(run.further for run in comparison.runs):
        text += " docs/EVALUATION.md explains the further results, whose options are in evaluation.json."
    if any(run.protocol.get("likelihood") in wording.DENSITIES for run in comparison.runs):
        text += f" {wording.OF_DENSITIES}"
    if not comparison.ranked or len(comparison.runs) < 2:
        return text
    return f"{text} * {'has the highest ELBO' if comparison.differing else 'is the best run'}."


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def save(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Writes a comparison as comparison.csv, comparison.md and elbo_curves.png.

    Args:
        comparison: what `compare` returned.
        folder: the folder of the files, which replace those of an earlier comparison.

    Returns:
        The paths of the files. Without any history.csv there is no elbo_curves.png.

    Raises:
        UserError: if a file cannot be written.
    """
    from kvae.plotting import comparison as figures
    from kvae.plotting import drawing

    curves = [curve for run in comparison.runs if (curve := _curve(run)) is not None]
    names = [TABLE, PAGE, *([CURVES] if curves else [])]
    with files.atomic_entries(folder) as partial:
        (partial / TABLE).write_text(_as_csv(comparison), encoding="utf-8", newline="")
        (partial / PAGE).write_text(_as_markdown(comparison, bool(curves)), encoding="utf-8", newline="\n")
        if curves:
            drawing.save(figures.elbo_curves(curves), partial / CURVES)
    return [Path(folder) / name for name in names]


def _curve(run: Compared) -> Any:
    """The ELBO of a run by epoch: on the held-out images if it was measured there, else on the training images."""
    from kvae.plotting.comparison import Curve

    if not run.history:
        return None
    measured = history.best_epoch(run.history) is not None
    column, images = ("val_elbo", run.held_out) if measured else ("elbo", "training")
    return Curve(run.name, run.history["epoch"], run.history[column], images, run.kept)


def _as_csv(comparison: Comparison) -> str:
    text, table = io.StringIO(), rows(comparison)
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        [{name: visible(value) if isinstance(value, str) else value for name, value in row.items()} for row in table]
    )
    return text.getvalue()


def _as_markdown(comparison: Comparison, curves: bool) -> str:
    headings, table = cells(comparison)
    lines = ["# Comparison of runs", "", _row(headings), _row([":--", *["--:"] * (len(headings) - 1)])]
    lines += [_row([escaped(cell) for cell in row]) for row in table]
    further_headings, further = further_cells(comparison)
    if further:
        lines += ["", _row(further_headings), _row([":--", *["--:"] * len(comparison.runs)])]
        lines += [_row([escaped(cell) for cell in row]) for row in further]
    lines += ["", key(comparison), ""]
    lines += [f"- {escaped(note)}" for note in comparison.notes()]
    lines += ["", "## Protocol", ""]
    for letter, protocol in protocols(comparison).items():
        prefix = f"{letter}: " if comparison.differing else ""
        lines.append(f"- {prefix}{escaped(protocol)}")
    if curves:
        lines += ["", f"![ELBO by epoch]({CURVES})"]
    return "\n".join(lines) + "\n"


def protocols(comparison: Comparison) -> dict[str, str]:
    """What the measurements of each letter have in common, as a line."""
    result: dict[str, str] = {}
    likelihoods: dict[str, dict[str, None]] = {}  # of the runs of each letter, in order
    for run, letter in zip(comparison.runs, comparison.letters, strict=True):
        likelihoods.setdefault(letter, {})[str(run.protocol.get("likelihood"))] = None
    for run, letter in zip(comparison.runs, comparison.letters, strict=True):
        ignored = {*OF_THE_MODEL, *wording.OF_FURTHER_EVALUATIONS}
        measured = {key: value for key, value in run.protocol.items() if key not in ignored}
        if "likelihood" in measured:
            measured["likelihood"] = " or ".join(likelihoods[letter])
        facts = [f"{words}: {shortened(str(value), 100)}" for words, value in wording.of_protocol(measured).items()]
        result.setdefault(letter, "; ".join(facts))
    return result


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
