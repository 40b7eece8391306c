"""What several test files share."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@pytest.fixture(scope="session", autouse=True)
def plain_graphs():
    """Models that leave it to kvae do without XLA, which compiles a second and more a model; `with_xla` takes it back.

    Tests that start a process of their own have what users have.
    """
    from kvae.model.fast_fit import FastFit

    chosen = FastFit.xla_pays
    FastFit.xla_pays = property(lambda self: False)
    yield chosen
    FastFit.xla_pays = chosen


@pytest.fixture
def with_xla(plain_graphs, monkeypatch):
    """kvae chooses by itself where to compile with XLA, as it does for users."""
    from kvae.model.fast_fit import FastFit

    monkeypatch.setattr(FastFit, "xla_pays", plain_graphs)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def digits() -> np.ndarray:
    """200 binary digits, `[200, 28, 28, 1]` float32."""
    with np.load(Path(__file__).parent.parent / "kvae" / "data" / "mnist5k.npz") as archive:
        return (archive["x_train"][:200, ..., None] > 127).astype(np.float32)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs `kvae` within this process, which already has TensorFlow: exit status, stdout, stderr."""
    from kvae import cli

    monkeypatch.chdir(tmp_path)
    for commands in (cli.training, cli.results, cli.exports):
        monkeypatch.setattr(commands, "quiet_tensorflow", lambda: None)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kvae", *map(str, arguments)])
        try:
            cli.run()
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return status, out, err

    return call
