"""The process in which readers read. It may crash: the process that started it then goes on with the next input."""

import importlib
import os
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fuzzing.guard import Guard
from fuzzing.mutations import Mutation, mutate

from kvae.internal.errors import UserError

SECONDS = 10.0  # the longest time for one input
MEMORY = 2**30  # bytes: the most memory that one input may need
LINE = 8000  # characters of the longest message, which may explain several mistakes with the names that are valid


class Reader(NamedTuple):
    """A reader that is to be tested: an entry of the table."""

    make: Callable[[Path], None]  # writes a valid input into a folder
    files: Sequence[str]  # the files in it, of which one is changed for each input
    read: Callable[[Path], Any]  # reads the folder; it raises an AssertionError if the result is wrong
    mutations: Sequence[Mutation]
    share: float = 1.0  # of the number of inputs: less than 1 for a slow reader
    processes: bool = False  # whether it may start processes


class FaultError(Exception):
    """What must not happen."""


class Session:
    """One reader with its valid input, in the scratch folder of this process."""

    def __init__(self, name: str, reader: Reader, guard: Guard, seed: int) -> None:
        self.name, self.reader, self.guard, self.seed = name, reader, guard, seed
        self.folder = guard.scratch / "input"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        reader.make(self.folder)
        self.valid = {file: (self.folder / file).read_bytes() for file in reader.files}
        reader.read(self.folder)  # an error here is one of the fuzzer; it also imports what the reader needs
        guard.forget()

    def write(self, index: int) -> Path:
        """Writes the input of this number, which depends on the seed and the number alone. Returns the changed file."""
        generator = random.Random(f"{self.seed} {self.name} {index}")
        file = generator.choice(sorted(self.valid))
        path = self.folder / file
        path.write_bytes(mutate(generator, self.valid[file], self.reader.mutations))
        return path

    def run(self, index: int) -> bool:
        """Reads the input of this number. Returns whether it was accepted; raises an exception if there is a fault."""
        path = self.write(index)
        started, before = time.perf_counter(), _peak()
        try:
            with self.guard.watching(self.reader.processes) as seen:
                try:
                    self.reader.read(self.folder)
                    accepted = True
                except UserError as error:
                    _check_line(error)
                    accepted = False
            if seen:
                raise FaultError("; ".join(seen))
            if time.perf_counter() - started > SECONDS:
                raise FaultError(f"took {time.perf_counter() - started:.1f} s")
            if _peak() - before > MEMORY:
                raise FaultError(f"needed {(_peak() - before) / 1e9:.1f} GB")
        finally:
            os.replace(path, self.guard.scratch / "last")  # for `save`
            path.write_bytes(self.valid[str(path.relative_to(self.folder))])
            self.last = path.relative_to(self.folder)
        return accepted

    def save(self, folder: Path) -> None:
        """Copies the last input into a folder."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        shutil.copy(self.guard.scratch / "last", folder / self.last)


def _peak() -> int:
    """The greatest memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _check_line(error: UserError) -> None:
    message = str(error)
    if not message or len(message.splitlines()) != 1:
        raise FaultError(f"expected a message of one line, received {message[:200]!r}") from error
    if len(message) > LINE:
        raise FaultError(
            f"expected a message of at most {LINE} characters, received {len(message)}: {message[:200]}"
        ) from error


def serve(connection: Any, progress: Any, table: str, scratch: str, out: str, seed: int) -> None:
    """Runs the inputs that the connection names, until there are no more.

    Args:
        connection: receives (reader, first input, number of inputs) and sends (reader, input, fault) for each fault,
            and None after the last input.
        progress: an array of the number of the present input, and of the inputs that were accepted and refused.
        table: the name of the module with the table `READERS`.
        scratch: an empty folder for this process.
        out: the folder in which inputs with a fault are saved.
        seed: the seed of all inputs.
    """
    warnings.simplefilter("ignore")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    readers: dict[str, Reader] = importlib.import_module(table).READERS
    guard = Guard(Path(scratch))
    while (job := connection.recv()) is not None:
        name, first, last = job
        session = Session(name, readers[name], guard, seed)
        for index in range(first, last):
            progress[0] = index
            try:
                accepted = session.run(index)
                progress[1 if accepted else 2] += 1
            except BaseException as error:
                session.save(Path(out) / f"{slug(name)}-{index}")
                connection.send((name, index, describe(error)))
        progress[0] = last
        connection.send(None)


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def describe(error: BaseException) -> str:
    """An exception and the place in kvae that raised it, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/kvae/" in frame.filename]
    place = f" at {frames[-1].filename.rpartition('/kvae/')[2]}:{frames[-1].lineno}" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split())[:400] + place
