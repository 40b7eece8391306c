"""Decoders run without TensorFlow, and `kvae.runtime.footprint` measures what that costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvae.internal.errors import UserError
from kvae.runtime.footprint import footprint

ROOT = Path(__file__).parents[2]


WITHOUT = """
import sys
import kvae.runtime
decoder = kvae.runtime.load(sys.argv[1])
decoder.sample(kvae.runtime.seeds(2, seed=0))
decoder.lattice(3)
print(sorted({"tensorflow", "keras", "jax", "torch"} & set(sys.modules)))
"""


def test_sampling_loads_neither_tensorflow_nor_keras(bundled):
    command = [sys.executable, "-c", WITHOUT, str(bundled)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.fixture
def no_tensorflow(tmp_path, monkeypatch):
    """Child processes in which TensorFlow cannot be loaded."""
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "tensorflow.py").write_text("raise SystemExit('TensorFlow was loaded')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "shadow"), str(ROOT)]))


@pytest.mark.usefixtures("no_tensorflow")
def test_the_footprint_of_a_tflite_file_is_measured_without_tensorflow(bundled):
    measured = footprint(bundled / "decoder.tflite", [1, 2])
    assert sorted(measured) == ["latency_us", "load_seconds", "peak_memory_mb"]
    assert list(measured["latency_us"]) == ["1 threads", "2 threads"]
    for latency in measured["latency_us"].values():
        assert list(latency) == ["1", "64"]
        assert min(latency.values()) > 0
    assert measured["load_seconds"] > 0
    if sys.platform == "linux":
        # Python, NumPy and LiteRT are some 50 MB, TensorFlow alone 400.
        assert 10 < measured["peak_memory_mb"] < 200


@pytest.mark.usefixtures("no_tensorflow")
def test_the_footprint_of_a_file_that_is_no_decoder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"missing\.tflite cannot be used in a separate process: .*Could not read"):
        footprint(tmp_path / "missing.tflite", [1])
