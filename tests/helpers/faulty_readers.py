"""A table of readers for the fuzzer, each with a fault that it must notice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fuzzing.mutations import flip
from fuzzing.worker import Reader

from kvae.internal.errors import UserError

VALID = b"valid"


def make(folder: Path) -> None:
    (folder / "a").write_bytes(VALID)


def reader(fault) -> Reader:
    """A reader that has a fault for every input but the valid one."""

    def read(folder: Path) -> None:
        if (folder / "a").read_bytes() != VALID:
            fault(folder)

    return Reader(make, ["a"], read, [flip])


def fail(error: BaseException):
    def fault(_: Path) -> None:
        raise error

    return fault


def write_outside(folder: Path) -> None:
    (folder.parent.parent / f"{folder.parent.name}-outside").touch()


def remove_outside(folder: Path) -> None:
    (folder.parent.parent / "nothing").unlink(missing_ok=True)


def start_process(_: Path) -> None:
    subprocess.run([sys.executable, "--version"], stdout=subprocess.DEVNULL, check=True)


READERS = {
    "accepts": reader(lambda folder: None),
    "refuses": reader(fail(UserError("a line"))),
    "another error": reader(fail(KeyError("x"))),
    "an assertion": reader(fail(AssertionError("wrong result"))),
    "an exit": reader(fail(SystemExit(2))),
    "two lines": reader(fail(UserError("a\nb"))),
    "no line": reader(fail(UserError(""))),
    "a long line": reader(fail(UserError("a" * 9000))),
    "writes": reader(write_outside),
    "removes": reader(remove_outside),
    "starts a process": reader(start_process),
    "prints": reader(lambda folder: print("a line")),
    "prints an error": reader(lambda folder: os.write(2, b"a line")),
    "leaves a file": reader(lambda folder: Path("left").touch()),
    "crashes": reader(lambda folder: os.kill(os.getpid(), signal.SIGSEGV)),
    "exits": reader(lambda folder: os._exit(3)),
    "hangs": reader(lambda folder: time.sleep(600)),
}
