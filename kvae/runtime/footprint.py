"""The costs of an exported decoder: the time to load it, its memory and its latency.

They are measured in a separate process, `python -m kvae.runtime.footprint`, because memory and the number of threads
belong to a process. For a .tflite file it does not load TensorFlow.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvae import runtime
from kvae.internal import user_files
from kvae.internal.errors import UserError
from kvae.noise import portable
from kvae.noise.streams import Stream
from kvae.runtime import Decoder, children

BATCHES = {1: 300, 64: 60}  # the number of calls, at most, by the number of latent points per call
FEWEST, SECONDS = 5, 0.3  # calls that are made in any case, and the time after which no further call is made
# NumPy's products of matrices, which some runtimes use, have one thread.
ENVIRONMENT = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")


def footprint(path: Path, threads: Iterable[int], name: str | None = None) -> dict[str, Any]:
    """Loads and calls a decoder in a new process.

    Args:
        path: the file or folder of the decoder.
        threads: the numbers of threads that the runtime may use, one after another. Several of them need a format
            whose decoders can have different numbers of threads in one process, see `kvae.runtime.Format`.
        name: the name of its format, as in `kvae.runtime.open_decoder`.

    Returns:
        With the first number of threads, `load_seconds`, counted from the start of the process, and `peak_memory_mb`,
        the largest resident memory in MB, or None if the system does not report it. For every number, as `"1 threads"`
        in `latency_us`, the median time of one `decode` in microseconds, by the number of latent points.

    Raises:
        UserError: if the decoder cannot be loaded or called in the process.
    """
    file = [] if name is None or ":" not in name else [str(user_files.file_of(name))]
    arguments = [str(path), ",".join(map(str, threads)), str(time.monotonic()), name or "", *file]
    try:
        output = children.run_module("kvae.runtime.footprint", arguments, environment=ENVIRONMENT)
    except UserError as error:
        raise UserError(f"{path} cannot be used in a separate process: {error}") from error
    return json.loads(output.splitlines()[-1])


def _measure(path: Path, threads: Sequence[int], started: float, name: str | None) -> dict[str, Any]:
    decoder = runtime.open_decoder(path, threads[0], name)
    load_seconds = time.monotonic() - started
    latency = {f"{threads[0]} threads": _latency(decoder)}
    memory = _peak_memory()
    for count in threads[1:]:
        latency[f"{count} threads"] = _latency(runtime.open_decoder(path, count, name))
    return {"load_seconds": round(load_seconds, 3), "peak_memory_mb": memory, "latency_us": latency}


def _latency(decoder: Decoder) -> dict[str, float]:
    """The median time of one `decode` in microseconds, by the number of latent points."""
    latency = {}
    for count, times in BATCHES.items():
        z = portable.normals(portable.seeds(count, 0), Stream.LATENT, decoder.latent_dim)
        shape = decoder.condition_shape
        condition = None if shape is None else np.zeros((count, *shape), np.float32)
        seconds: list[float] = []
        while len(seconds) < times and (len(seconds) < FEWEST or sum(seconds) < SECONDS):
            start = time.perf_counter()
            decoder.decode(z, condition)
            seconds.append(time.perf_counter() - start)
        latency[str(count)] = round(1e6 * statistics.median(seconds), 1)
    return latency


def _peak_memory() -> float | None:
    """The largest memory of this process since its start, in MB. The module `resource` would include its parent's."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) * 1024 / 1e6, 1) for line in lines if line.startswith("VmHWM")), None)


def _main(path: str, threads: str, started: str, name: str, *imported_files: str) -> None:
    children.end_with_parent()
    for file in imported_files:
        user_files.import_file(file)
    counts = [int(count) for count in threads.split(",")]
    print(json.dumps(_measure(Path(path), counts, float(started), name or None)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
