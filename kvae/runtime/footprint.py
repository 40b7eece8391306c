"""What an exported decoder costs: time to load, memory, latency. `python -m kvae.runtime.footprint`.

A process of its own, since memory and the number of threads belong to a process; no TensorFlow for a .tflite.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from kvae import runtime
from kvae.internal.errors import UserError
from kvae.noise import portable
from kvae.noise.streams import Stream

BATCHES = {1: 300, 64: 60}  # latents a call, and how often it is called


def footprint(path: Path, threads: int) -> dict[str, Any]:
    """Loads and calls a decoder in a fresh process.

    Args:
        path: a .tflite file or the folder of a SavedModel.
        threads: that the runtime may use.

    Returns:
        `load_seconds`, from the start of the process; `peak_memory_mb`, resident, None where the system does not tell;
        `latency_us`, the median time of one `decode`, by the number of latents.

    Raises:
        UserError: the decoder cannot be loaded or run there.
    """
    # With this process's path, and without the current folder, where any file may have the name of a module.
    command = [sys.executable, "-P", "-m", "kvae.runtime.footprint", str(path), str(threads), str(time.time())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"{path} does not run in a process of its own: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(path: Path, threads: int, started: float) -> dict[str, Any]:
    decode: Any
    if path.is_dir():
        from kvae.internal.tensorflow import tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        decode = tf.saved_model.load(str(path)).signatures["decode"]
        inputs = decode.structured_input_signature[1]
        latent_dim = inputs["z"].shape[1]
        condition_shape = inputs["condition"].shape[1:] if "condition" in inputs else None
    else:
        decoder = runtime.Decoder(path, threads)
        decode, latent_dim, condition_shape = decoder.decode, decoder.latent_dim, decoder.condition_shape
    load_seconds = time.time() - started
    latency = {}
    for count, times in BATCHES.items():
        given = {"z": portable.normals(portable.seeds(count, 0), Stream.LATENT, latent_dim)}
        if condition_shape is not None:
            given["condition"] = np.zeros((count, *condition_shape), np.float32)
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            decode(**{name: tf.constant(value) for name, value in given.items()}) if path.is_dir() else decode(**given)
            seconds.append(time.perf_counter() - start)
        latency[str(count)] = round(1e6 * statistics.median(seconds), 1)
    return {"load_seconds": round(load_seconds, 3), "peak_memory_mb": _peak_memory(), "latency_us": latency}


def _peak_memory() -> float | None:
    """Of this process since its start, in MB; the `resource` module would tell that of the parent."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) * 1024 / 1e6, 1) for line in lines if line.startswith("VmHWM")), None)


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
