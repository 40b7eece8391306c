"""What XLA compiled, kept on disk, so that a second training of the same shape need not compile it again.

TensorFlow writes and reads the files itself, one for each program. A damaged file would end the training with an error,
or worse. So a digest stands beside each, and a file without its digest is deleted when kvae imports TensorFlow. A
program fits one processor and one version of TensorFlow, so there is a folder for each of them.

The command line uses the cache. In Python it is used if KVAE_XLA_CACHE names a folder before kvae imports TensorFlow.
"""

import atexit
import hashlib
import os
import platform
import shutil
import time
from contextlib import suppress
from pathlib import Path

FOLDER = "KVAE_XLA_CACHE"  # the environment variable with the folder; an empty one for no cache
MOST_BYTES = 200_000_000  # of all files; the oldest are deleted
ONE_DAY = 86_400  # seconds
LEAST_FREE = 1_000_000_000  # bytes on the disk, because TensorFlow fails if it cannot write a file
# What else decides how a program is compiled, or how many threads it has.
VARIABLES = ("XLA_FLAGS", "TF_XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS")


def use_by_default() -> None:
    """Uses the cache in the folder for caches of this user, if the environment names no other."""
    # A runtime alone, which keeps nothing, lacks this package; a user may have no home.
    with suppress(ImportError, OSError, RuntimeError):
        import platformdirs

        os.environ.setdefault(FOLDER, str(platformdirs.user_cache_path("kvae") / "xla"))


def begin() -> None:
    """Tells TensorFlow, before it compiles for the first time, where to keep what XLA compiles for processors.

    Nothing is kept if the environment asks for none, if it configures TensorFlow's cache itself, or if the folder
    cannot be used. What is compiled is the same.
    """
    asked, flags = os.environ.get(FOLDER, ""), os.environ.get("TF_XLA_FLAGS", "")
    if not asked or "persistent_cache" in flags or any(map(str.isspace, asked)):
        return
    folder = Path(asked).absolute() / _key()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean(folder.parent)
        if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < LEAST_FREE:
            return
    except OSError:
        return
    options = {"directory": folder, "prefix": "kvae", "device_types": "CPU"}
    os.environ["TF_XLA_FLAGS"] = " ".join(
        [flags, *(f"--tf_xla_persistent_cache_{name}={value}" for name, value in options.items())]
    ).strip()
    atexit.register(record, folder)


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
    return digest.is_file() and digest.read_text() == _digest(program)


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
