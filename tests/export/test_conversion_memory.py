"""The memory that conversions to .tflite keep."""

import ctypes
import gc
import sys
from pathlib import Path

import pytest
from small_models import built

from kvae.export import convert

WARM_UP = 8  # in the first conversions the allocator takes about 100 MB, which later ones use again
CONVERSIONS = 10
# MB per conversion. Measured: 0.05 to 0.2 over dozens of them, with jumps of up to 10 MB between two. Issue 122598 of
# TensorFlow reports 22 for a model of 121 layers, in versions 2.20 and 2.21.
BOUND = 2.5


def resident() -> float:
    """The memory of this process in MB, after all that is free was given back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


@pytest.mark.exhaustive  # many conversions
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and calls the C library of Linux")
@pytest.mark.parametrize(
    "make",
    [
        lambda vae, tmp_path: convert(vae, ["float32"]),
        lambda vae, tmp_path: convert(vae, ["float16"]),
        lambda vae, tmp_path: vae.export(tmp_path / "m.tflite", format="litert", verbose=False),
    ],
    ids=["float32", "float16", "Keras's export"],
)
def test_conversions_in_one_process_keep_no_memory(make, tmp_path):
    vae = built((14, 14, 1), latent_dim=2, hidden_units=(64,))
    for _ in range(WARM_UP):
        make(vae, tmp_path)
    before = resident()
    for _ in range(CONVERSIONS):
        make(vae, tmp_path)
    assert (resident() - before) / CONVERSIONS < BOUND
