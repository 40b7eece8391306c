"""A sweep: one training for each point of a grid of settings, all in one folder.

<sweep>/
  sweep.json              the points: their settings and their configurations
  <point>/                the run folder of a point, for example beta=0.5
  sweep.csv               one row for each run that has finished
  rate_distortion.png     the KL term of each run against its reconstruction error
  .lock                   held by the process that trains; .lock.json says which one that is
"""

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kvae.internal import files, locks, sealed
from kvae.internal.errors import UserError
from kvae.internal.visible import shown, visible
from kvae.plotting import drawing, rate_distortion
from kvae.training import comparison
from kvae.training.config import RunConfig, collected, override, parse_setting
from kvae.training.names import check_name, distinct_name
from kvae.training.runs import Run
from kvae.training.train_resume import resume, train, with_absolute_source

MOST_POINTS = 1_000
ESTIMATES = ("elbo", "reconstruction", "kl")
MEASURED = (
    *(f"{name}{suffix}" for name in ESTIMATES for suffix in ("", "_standard_error")),
    "active_units",
    "latent_dim",
)
OPEN, CLOSE, QUOTES = "[{", "]}", "\"'"


class Point(NamedTuple):
    """A point of the grid."""

    name: str  # that of its run folder
    settings: dict[str, Any]  # by dotted key, only those that differ between points
    config: RunConfig


class Sweep:
    """The folder of a sweep.

    Attributes:
        folder: its path.
        points: the points of the grid, in the order in which they are trained.
    """

    def __init__(self, folder: Path, points: Sequence[Point]) -> None:
        self.folder = folder
        self.points = list(points)

    @classmethod
    def create(cls, folder: str | Path, points: Sequence[Point]) -> "Sweep":
        """Makes the folder of a new sweep.

        Args:
            folder: the path of the folder, which is new or empty.
            points: the points, as `plan` returns them.

        Raises:
            UserError: if the folder holds something, or cannot be written.
        """
        folder = Path(folder)
        check_new(folder)
        points = [point._replace(config=with_absolute_source(point.config)) for point in points]
        stated = [{**point._asdict(), "config": point.config.to_dict()} for point in points]
        sealed.write(folder / "sweep.json", {"points": stated})
        return cls(folder, points)

    @classmethod
    def open(cls, folder: str | Path) -> "Sweep":
        """Opens the folder of a sweep.

        Raises:
            UserError: if it is not the folder of a sweep, or if its sweep.json is damaged.
        """
        folder = Path(folder)
        if not (folder / "sweep.json").is_file():
            raise UserError(f"Expected the folder of a sweep. {str(folder)!r} is not a sweep: it has no sweep.json.")
        stated: Any = sealed.read(folder / "sweep.json").get("points")
        try:
            points = [
                Point(check_name(point["name"]), dict(point["settings"]), RunConfig.from_dict(point["config"]))
                for point in stated
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder / 'sweep.json'} does not describe a sweep: {error}.") from error
        return cls(folder, points)

    def train(
        self, *, verbose: int = 2, begin: Callable[[int, Point], None] = lambda number, point: None
    ) -> dict[str, UserError]:
        """Trains every point that has not been trained, and continues those that were interrupted.

        A training that ends with an error, for example because it diverges, does not end the sweep.

        Args:
            verbose: what Keras `fit` prints, as in `kvae.training.train`.
            begin: a function that is called before each point, with its number, counted from 1, and the point.

        Returns:
            The errors by the names of their points.

        Raises:
            UserError: if another process trains the sweep.
        """
        errors = {}
        with locks.locked(self.folder):
            for number, point in enumerate(self.points, start=1):
                begin(number, point)
                folder = self.folder / point.name
                try:
                    if (folder / "config.json").is_file():
                        resume(folder, point.config, verbose=verbose)
                    else:
                        train(point.config, folder, verbose=verbose)
                except UserError as error:
                    errors[point.name] = error
            if rows := self.rows():
                self._write(rows)
        return errors

    def rows(self) -> list[dict[str, Any]]:
        """What was measured on the test set, one row for each run that has finished.

        Each row has the name of the run, its settings by dotted key, the terms of the ELBO in nats per image, the
        number of active units and that of trained epochs.
        """
        rows = []
        for point, run in self._finished():
            evaluation = run.evaluation()
            measured = {name: evaluation.get(name) for name in MEASURED}
            rows.append({"run": point.name, **point.settings, **measured, "epochs": len(run.history()["epoch"])})
        return rows

    def _finished(self) -> Iterator[tuple[Point, Run]]:
        for point in self.points:
            if (self.folder / point.name / "evaluation.json").is_file():
                yield point, Run.open(self.folder / point.name)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if value is None else visible(value) for name, value in row.items()} for row in rows)
        files.write_text(self.folder / "sweep.csv", text.getvalue())
        drawing.save(self.curve(rows), self.folder / "rate_distortion.png")

    def curve(self, rows: list[dict[str, Any]]) -> drawing.Drawing:
        """The rate-distortion curve: a line through the runs that differ only in the first setting of the grid.

        It leaves out a run whose last evaluation had no ELBO.
        """
        first, *others = self.points[0].settings or ("run",)
        short = short_names([first, *others])
        lines: dict[str, list[rate_distortion.Run]] = {}
        for row in rows:
            if row["kl"] is None:
                continue
            line = ", ".join(f"{short[key]}={row[key]}" for key in others)
            errors = row.get("kl_standard_error"), row.get("reconstruction_standard_error")
            point = rate_distortion.Run(f"{short[first]}={row[first]}", row["kl"], row["reconstruction"], *errors)
            point = point._replace(least=_annealed_curve(Run.open(self.folder / row["run"]).evaluation()))
            lines.setdefault(line, []).append(point)
        protocols = [run.evaluation()["protocol"] for _, run in self._finished()]
        return rate_distortion.figure(lines, comparable=not comparison.differing(protocols))


def _annealed_curve(evaluation: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Rates and distortions that `kvae.evaluation.ais` found on the images of the ELBO; none if it had fewer images."""
    protocol = evaluation["protocol"]
    if (protocol.get("ais_images") or math.inf) < protocol["examples"]:
        return []
    return list(zip(evaluation.get("ais_rates", ()), evaluation.get("ais_distortions", ()), strict=True))


def check_new(folder: Path) -> None:
    """Checks that a new sweep can have this folder. Raises `UserError` if it holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{str(folder)!r} exists. To continue a sweep there: --resume. For a new one choose another --out."
        )


def plan(
    values: Mapping[str, Any],
    settings: Iterable[str],
    configured: Callable[[dict[str, Any]], RunConfig] = RunConfig.from_dict,
) -> list[Point]:
    """The points of a grid.

    Args:
        values: the values of a recipe, as nested dictionaries.
        settings: texts `key=value,value,...`. A comma in brackets or quotes belongs to a value. A key with one value is
            the same in all points.
        configured: a function that makes the configuration of a point from its values. By default those that are not
            given are the defaults of `RunConfig`.

    Returns:
        One point for each combination of the values. The values of the last key change first.

    Raises:
        UserError: if a setting cannot be read, if a key has one value twice, if no key has several values, or if a
            configuration is not valid.
    """
    given = [(text, *_parsed(text)) for text in settings]
    fixed = [(f"--set {text}", key, found[0]) for text, key, found in given if len(found) == 1]
    grid = {key: found for _, key, found in given if len(found) > 1}
    collected([*fixed, *((f"--set {text}", key, found[0]) for text, key, found in given if len(found) > 1)])
    if not grid:
        raise UserError(
            "Expected a key with several values, e.g. --set model.beta=0.5,1,2,4. Received none; kvae train trains a "
            "single model."
        )
    number = 1
    for found in grid.values():
        number *= len(found)
    if number > MOST_POINTS:
        raise UserError(f"Expected a grid of at most {MOST_POINTS:,} trainings. Received {number:,}.")
    short = short_names(grid)
    points = []
    for combination in itertools.product(*grid.values()):
        chosen = dict(zip(grid, combination, strict=True))
        name = _name(",".join(f"{short[key]}={value}" for key, value in chosen.items()))
        # In one call: an option of a kind that the grid chooses would be lost if it came before the kind.
        settings_of_point = {**{key: value for _, key, value in fixed}, **chosen}
        config = configured({**override(dict(values), settings_of_point), "name": name})
        points.append(Point(name, chosen, config))
    return points


def _parsed(text: str) -> tuple[str, list[Any]]:
    """The key and the values of a setting."""
    key, equals, rest = text.partition("=")
    found = [parse_setting(f"{key}{equals}{value}")[1] for value in _split(rest)]
    key = parse_setting(text)[0]
    if twice := [value for value, count in Counter(map(repr, found)).items() if count > 1]:
        raise UserError(f"Expected different values of {shown(key)}. Received {shown(twice[0])} twice.")
    return key, found


def _split(text: str) -> list[str]:
    """The parts of a text between commas that are not in brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in QUOTES:
            quote = letter
        else:
            depth += (letter in OPEN) - (letter in CLOSE)
        if letter == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted key, or the whole key where two end alike."""
    keys = list(keys)
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return {key: end if ends[end := key.rpartition(".")[2]] == 1 else key for key in keys}


def _name(text: str) -> str:
    """The name of the run folder of a point."""
    try:
        return check_name(text)
    except UserError:
        return distinct_name(text)
