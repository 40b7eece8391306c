"""What XLA compiled, kept on disk, so that a second training of the same shape need not compile it again.

TensorFlow writes and reads the files itself, one for each program. A damaged file would end the training with an error,
or worse. So a digest stands beside each, and a file without its digest is deleted when kvae imports TensorFlow. A
program fits one processor and one version of TensorFlow, so there is a folder for each of them.
"""

import atexit
import functools
import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kvae.internal import caches

MOST_BYTES = 200_000_000  # of all files; the oldest are deleted
ONE_DAY = 86_400  # seconds
NAMES = 10_000  # more than what is traced before a program, or with it
LEAST_FREE = 1_000_000_000  # bytes on the disk, because TensorFlow fails if it cannot write a file
# What else decides how a program is compiled, or how many threads it has.
VARIABLES = ("XLA_FLAGS", "TF_XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS")


def begin() -> None:
    """Tells TensorFlow, before it compiles for the first time, where to keep what XLA compiles for processors.

    Nothing is kept if the environment asks for none, if it configures TensorFlow's cache itself, or if the folder
    cannot be used. What is compiled is the same.
    """
    programs, flags = caches.folder("xla"), os.environ.get("TF_XLA_FLAGS", "")
    if programs is None or "persistent_cache" in flags or any(map(str.isspace, str(programs))):
        return
    folder = programs / _key()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean(programs)
        if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < LEAST_FREE:
            return
    except OSError:
        return
    options = {"directory": folder, "prefix": "kvae", "device_types": "CPU"}
    os.environ["TF_XLA_FLAGS"] = " ".join(
        [flags, *(f"--tf_xla_persistent_cache_{name}={value}" for name, value in options.items())]
    ).strip()
    atexit.register(record, folder)


def named_alike(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose traces have the same names in every process, so that what is kept is found by them.

    TensorFlow appends a number to the name of each traced function, which it counts up in the process. Whether images
    are read from a dataset or from a file would then decide whether a program is found. So each trace begins at a round
    number.
    """

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        from tensorflow.python.framework import ops

        # TensorFlow has no public name for the counter. tests/model/test_keras_privates.py fails if it changes.
        while ops.uid() % NAMES:
            pass
        return function(*args, **kwargs)

    return traced


def clean(folder: Path) -> None:
    """Deletes all programs that are not as their digests say, and the oldest ones if there are too many."""
    size = 0
    for program in sorted(folder.glob("*/*.pb"), key=_changed, reverse=True):
        with suppress(OSError):  # another process deleted it
            size += program.stat().st_size
            if size > MOST_BYTES or not _is_whole(program):
                program.unlink()
                _digest_file(program).unlink(missing_ok=True)
    for partial in folder.glob("*/*.tmp"):  # of a process that was killed while it wrote
        if _changed(partial) < time.time() - ONE_DAY:
            partial.unlink(missing_ok=True)


def _is_whole(program: Path) -> bool:
    digest = _digest_file(program)
    return digest.is_file() and digest.read_bytes() == _digest(program).encode()


def record(folder: Path) -> None:
    """Writes the digests of the programs that have none yet."""
    for program in folder.glob("*.pb"):
        with suppress(OSError):
            if not _digest_file(program).exists():
                _digest_file(program).write_text(_digest(program))


def _digest_file(program: Path) -> Path:
    return program.with_suffix(".sha256")


def _digest(program: Path) -> str:
    with program.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _key() -> str:
    """A name for this processor and this version of TensorFlow."""
    from importlib import metadata

    try:
        version = metadata.version("tensorflow")
    except metadata.PackageNotFoundError:
        version = ""
    facts = [version, platform.machine(), _processor(), os.cpu_count(), *map(os.environ.get, VARIABLES)]
    if hasattr(os, "sched_getaffinity"):
        facts.append(len(os.sched_getaffinity(0)))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _processor() -> str:
    """The model of the processor and the instructions that it has, as far as the system tells."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
        return "".join(sorted(line for line in lines if line.startswith(("model", "flags", "Features", "CPU "))))
    return platform.processor()
