"""Feeds damaged files to everything in kvae that reads files: `python tools/fuzz.py --inputs 2000 [--reader NAME]`.

Each input is a valid file with a random change, which depends only on the seed, the reader and the number of the input.
It must end in a result or in one UserError of one line, within a limited time and memory, without any change outside of
its folder, without a new process and without a line of output. For each fault, the input is saved and its path is
printed, and the exit status is 1.

A new reader is an entry in fuzzing/readers.py. docs/SECURITY.md says what this is for.
"""

import multiprocessing
import queue
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
from fuzzing.worker import SECONDS, Reader, serve, slug

TABLE = "fuzzing.readers"
HANG = SECONDS + 5  # seconds without a result after which a process is ended
START = 120.0  # seconds that a process may take to import TensorFlow and to make the valid input


class Row(NamedTuple):
    """The result of one reader."""

    reader: str
    inputs: int
    accepted: int
    refused: int
    faults: list[tuple[int, str]]  # the number of the input, and what was wrong
    seconds: float


class Worker:
    """A process that reads inputs, and is started again if it crashes or hangs."""

    def __init__(self, table: str, out: Path, seed: int) -> None:
        self._arguments = (table, out, seed)
        self._process: Any = None

    def run(self, name: str, first: int, last: int) -> Row:
        """Reads the inputs `first` to `last - 1` of a reader."""
        started, faults, accepted, refused, index = time.monotonic(), [], 0, 0, first
        while index < last:
            if self._process is None:
                self._start()
            self._progress[:] = [index - 1, 0, 0]
            self._connection.send((name, index, last))
            ended_by = self._wait(faults, index)
            accepted, refused = accepted + self._progress[1], refused + self._progress[2]
            present = self._progress[0]
            index = present + 1
            if ended_by is not None:
                if present < first:
                    self.stop()
                    raise click.ClickException(f"The valid input of {name!r} could not be read: {ended_by}.")
                faults.append((present, ended_by))
                saved = self._arguments[1] / f"{slug(name)}-{present}"
                shutil.copytree(self._scratch / "input", saved, dirs_exist_ok=True)
                self.stop()
        return Row(name, last - first, accepted, refused, faults, time.monotonic() - started)

    def _start(self) -> None:
        table, out, seed = self._arguments
        context = multiprocessing.get_context("spawn")
        self._scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self._progress = context.Array("q", 3, lock=False)  # a process that is killed could keep a lock
        self._connection, other = context.Pipe()
        arguments = (other, self._progress, table, str(self._scratch), str(out.resolve()), seed)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        other.close()

    def _wait(self, faults: list[tuple[int, str]], first: int) -> str | None:
        """Waits for the end of the inputs. Returns what ended the process, or None if nothing did."""
        seen, since = first - 1, time.monotonic()
        while True:
            try:
                if self._connection.poll(0.2):
                    report = self._connection.recv()
                    if report is None:
                        return None
                    faults.append(report[1:])
            except (EOFError, OSError):
                self._process.join(5)
                return f"the process ended with status {self._process.exitcode}"
            if self._progress[0] != seen:
                seen, since = self._progress[0], time.monotonic()
            if time.monotonic() - since > (START if seen < first else HANG):
                return f"no result after {time.monotonic() - since:.0f} s"

    def stop(self) -> None:
        """Ends the process, and removes its scratch folder."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._process = None


def fuzz(
    readers: dict[str, Reader], inputs: int, out: Path, seed: int = 0, first: int = 0, jobs: int = 2, table: str = TABLE
) -> list[Row]:
    """Tests readers in several processes. Returns one row for each, in the order of the table."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    # The slow ones first, so that all processes end at about the same time.
    for name in sorted(readers, key=lambda name: readers[name].share):
        waiting.put(name)
    rows: dict[str, Row] = {}
    errors: list[Exception] = []

    def work() -> None:
        worker = Worker(table, out, seed)
        try:
            while not errors:
                name = waiting.get_nowait()
                rows[name] = worker.run(name, first, first + max(1, round(inputs * readers[name].share)))
        except queue.Empty:
            pass
        except Exception as error:
            errors.append(error)
        finally:
            worker.stop()

    threads = [threading.Thread(target=work) for _ in range(min(jobs, len(readers)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [rows[name] for name in readers]


@click.command(help=__doc__)
@click.option("--inputs", default=2000, show_default=True, type=click.IntRange(1), help="Number of inputs per reader.")
@click.option(
    "--reader", "names", multiple=True, metavar="NAME", help="Test only this reader. Can be given several times."
)
@click.option("--seed", default=0, show_default=True, type=int, help="Seed of the changes.")
@click.option(
    "--first", default=0, show_default=True, type=click.IntRange(0), help="Number of the first input, from 0."
)
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Number of processes.")
@click.option(
    "--out",
    default="fuzz_faults",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the inputs with a fault.",
)
def main(inputs: int, names: tuple[str, ...], seed: int, first: int, jobs: int, out: Path) -> None:
    from fuzzing.readers import READERS

    unknown = [name for name in names if name not in READERS]
    if unknown:
        raise click.UsageError(f"Unknown reader {unknown[0]!r}. Expected one of: {', '.join(READERS)}.")
    started = time.monotonic()
    rows = fuzz({name: READERS[name] for name in names or READERS}, inputs, out, seed, first, jobs)
    click.echo(f"{'reader':<16}{'inputs':>8}{'accepted':>10}{'refused':>9}{'faults':>8}{'seconds':>9}")
    for row in rows:
        click.echo(
            f"{row.reader:<16}{row.inputs:>8}{row.accepted:>10}{row.refused:>9}{len(row.faults):>8}{row.seconds:>9.1f}"
        )
    for row in rows:
        for index, fault in row.faults:
            click.echo(f"{out / f'{slug(row.reader)}-{index}'}: {fault}")
    click.echo(f"{sum(row.inputs for row in rows)} inputs in {time.monotonic() - started:.0f} s")
    if any(row.faults for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
