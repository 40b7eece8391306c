"""Kills commands of kvae at random moments, and checks that nothing of a run is lost or half-written.

    python tools/kill.py                   100 kills with SIGKILL over all commands, about 15 minutes on 2 cores
    python tools/kill.py --kills 7 --seed 3

After each kill every file of the run must be whole. Then the command, or `kvae train --resume`, is called once more:
its result must be bit for bit that of a command that was not killed, and no unfinished file may be left. A folder in
which this does not hold is kept, and its path is printed.
"""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import h5py
import numpy as np
from PIL import Image

from kvae.internal import files, partials
from kvae.internal.errors import UserError
from kvae.runtime import cards
from kvae.training.runs import read_evaluation

EPOCHS, LONGER = 12, 24
COMMANDS = ("train", "resume", "lengthen", "overwrite", "export", "plot", "evaluate")
SETTINGS = (
    "model.hidden_units=[8]",
    "data.batch_size=10",
    "training.checkpoint_seconds=0",
    "training.jit_compile=false",
    "training.schedule=constant",  # so that a run can get more epochs
)


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        before: the state of the run before it: `"nothing"`, `"interrupted"` or `"finished"`.
        command: its arguments, after `kvae` and before the folder of the run.
        option: the option that names the folder; empty if the folder is an argument.
        epochs: the epochs of the run at the end.
    """

    before: str
    command: tuple[str, ...]
    option: str = ""
    epochs: int = EPOCHS

    def arguments(self, run: Path) -> list[str]:
        """The arguments of the command for the folder of a run."""
        return [self.command[0], *([self.option] if self.option else []), str(run), *self.command[1:]]


def scenarios(data: Path) -> dict[str, Scenario]:
    """The commands by name, which train on `npz:data`."""
    train = ("train", f"--dataset=npz:{data}", *(f"--set={setting}" for setting in SETTINGS))
    export = ("export", "--formats=tflite", "--variants=float32", "--no-evaluation", "--overwrite")
    return {
        "train": Scenario("nothing", (*train, f"--epochs={EPOCHS}"), "--out"),
        "resume": Scenario("interrupted", ("train", "--resume"), "--out"),
        "lengthen": Scenario("finished", ("train", "--resume", f"--epochs={LONGER}"), "--out", LONGER),
        "overwrite": Scenario("finished", (*train, f"--epochs={LONGER}", "--overwrite"), "--out", LONGER),
        "export": Scenario("finished", export),
        "plot": Scenario("finished", ("plot", "samples", "lattice")),
        "evaluate": Scenario("finished", ("evaluate", "--samples=20")),
    }


def kvae(arguments: Iterable[str]) -> subprocess.Popen[str]:
    """Starts a command of kvae."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "kvae", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def finish(arguments: list[str]) -> float:
    """Runs a command of kvae to its end, and returns its seconds; raises `Fault` if it fails."""
    start = time.monotonic()
    process = kvae(arguments)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise Fault(f"kvae {' '.join(arguments)} ended with status {process.returncode}: {errors.strip()}")
    return time.monotonic() - start


class Fault(Exception):  # noqa: N818 - what is looked for
    """Something that a kill must not cause."""


def check_whole(run: Path) -> None:
    """Raises `Fault` if a file of a run is not whole."""
    for path in (path for path in run.rglob("*") if path.is_file()):
        if any(partials.is_partial(part) for part in path.relative_to(run).parts):
            continue
        try:
            if path.suffix == ".keras" and zipfile.ZipFile(path).testzip() is not None:
                raise UserError("a member is damaged")
            if path.suffix == ".json" and path.name != ".lock.json":
                files.read_json(path)
            if path.name == "evaluation.json":
                read_evaluation(path)
            if path.suffix == ".png":
                with Image.open(path) as image:
                    image.load()
            if path.name == cards.CARD:
                for name, facts in cards.read_card(path.parent)["files"].items():
                    cards.check_file(path.parent, name, facts)
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise Fault(f"{path} is not whole: {error}") from error


def result_of(run: Path) -> str:
    """What a training gives: its weights, its history and its number of epochs, as text."""
    weights: dict[str, str] = {}
    with zipfile.ZipFile(run / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as values:
        values.visititems(lambda name, item: _note(weights, name, item))
    config = files.read_json(run / "config.json")["config"]
    return json.dumps([weights, (run / "history.csv").read_text(), config["training"]["epochs"]], sort_keys=True)


def _note(weights: dict[str, str], name: str, item: object) -> None:
    if isinstance(item, h5py.Dataset):
        weights[name] = np.asarray(item).tobytes().hex()


class Killer:
    """Kills commands in folders of their own, and checks what is left.

    Args:
        folder: a folder for all runs.
        seed: the seed of the moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        rng = np.random.default_rng(0)
        arrays = {name: rng.integers(0, 256, (40, 6, 5), np.uint8) for name in ("x_train", "x_test")}
        np.savez(folder / "data.npz", **arrays)
        self.scenarios = scenarios(folder / "data.npz")
        self.results: dict[int, str] = {}
        self.seconds: dict[str, float] = {}

    def prepare(self, names: Iterable[str]) -> None:
        """Makes the runs that these commands begin with, and the results and times of commands that are not killed."""
        finished, interrupted = self.folder / "finished", self.folder / "interrupted"
        self.seconds["train"] = finish(self.scenarios["train"].arguments(finished))
        self.results[EPOCHS] = result_of(finished)
        if "export" in names:
            finish(self.scenarios["export"].arguments(finished))  # so that there is a bundle to replace
        if "resume" in names:
            process = kvae(self.scenarios["train"].arguments(interrupted))
            while not list(interrupted.glob("checkpoint/epoch-*3")) and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        for name in (name for name in names if name not in self.seconds):
            run = self._begin(name, f"timed-{name}") / "run"
            self.seconds[name] = finish(self.scenarios[name].arguments(run))
            self.results[self.scenarios[name].epochs] = result_of(run)

    def _begin(self, name: str, folder: str) -> Path:
        """A new folder whose `run` is in the state before a command."""
        work = self.folder / folder
        work.mkdir()
        if self.scenarios[name].before != "nothing":
            shutil.copytree(self.folder / self.scenarios[name].before, work / "run")
        return work

    def kill(self, name: str, number: int) -> str | None:
        """Kills a command once; returns what went wrong, or None."""
        scenario, work = self.scenarios[name], self._begin(name, f"{number:04d}-{name}")
        run = work / "run"
        # Most of the first quarter is the import of TensorFlow, in which nothing is written.
        delay = random.Random(f"{self.seed} {number}").uniform(0.2, 1.05) * self.seconds[name]
        process = kvae(scenario.arguments(run))
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        try:
            self._check(scenario, run)
        except Fault as fault:
            return f"{name}, killed after {delay:.2f} s: {fault} See {work}"
        shutil.rmtree(work)
        return None

    def _check(self, scenario: Scenario, run: Path) -> None:
        check_whole(run.parent)
        if scenario.option and (run / "config.json").is_file() and "--overwrite" not in scenario.command:
            finish(["train", "--resume", "--out", str(run), f"--epochs={scenario.epochs}"])
        else:
            finish(scenario.arguments(run))
        check_whole(run.parent)
        if result_of(run) != self.results[scenario.epochs]:
            raise Fault("the result is not that of a training that was not killed.")
        left = [path.name for path in run.parent.rglob(f"{partials.PREFIX}*")]
        if left:
            raise Fault(f"unfinished files are left: {', '.join(left)}.")


@click.command()
@click.option("--kills", type=click.IntRange(min=1), default=100, show_default=True, help="Number of kills.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the moments at which commands are killed."
)
@click.option("--only", type=click.Choice(COMMANDS), help="Kill only this command.  [default: all in turn]")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Number of commands at a time.")
def main(kills: int, seed: int, only: str | None, jobs: int) -> None:
    """Kill commands of kvae at random moments, and check that nothing is lost or half-written."""
    folder = Path(tempfile.mkdtemp(prefix="kvae-kill-"))
    os.environ["TMPDIR"] = str(folder)  # TensorFlow leaves its generated code there when it is killed
    killer = Killer(folder, seed)
    names = [only] if only else list(killer.scenarios)
    killer.prepare(names)
    chosen = [names[number % len(names)] for number in range(kills)]
    with ThreadPoolExecutor(jobs) as pool:
        faults = list(pool.map(killer.kill, chosen, range(kills)))
    for name in names:
        found = [fault for fault, each in zip(faults, chosen, strict=True) if each == name]
        click.echo(f"{name:10} {len(found):4} kills  {sum(fault is not None for fault in found):4} faults")
    for fault in filter(None, faults):
        click.echo(fault, err=True)
    if any(faults):
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
