"""Fixtures that tests of several folders share; plain functions are in tests/helpers."""

import atexit
import gc
import itertools
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if "KVAE_CACHE" not in os.environ:  # all processes of the tests share what is kept
    os.environ["KVAE_CACHE"] = tempfile.mkdtemp(prefix="kvae-cache-")
    atexit.register(shutil.rmtree, os.environ["KVAE_CACHE"], ignore_errors=True)

LONGEST = "tests/test_readme.py"


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by markers
def pytest_collection_modifyitems(items):
    """Marks as exhaustive all but the first case of each longer check; `make test-all` runs these too.

    The longest test is the first, so that no process waits for it at the end.
    """
    longer = [item for item in items if item.get_closest_marker("slow") and not item.get_closest_marker("every_case")]
    for _, group in itertools.groupby(sorted(longer, key=_function_of), key=_function_of):
        for case in list(group)[1:]:
            case.add_marker("exhaustive")
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def _function_of(item):
    return item.nodeid.partition("[")[0]


@pytest.fixture(scope="module")
def without_xla():
    """kvae compiles no model of this module with XLA, which takes a second and more per model.

    For tests of other things that make many small models. All other tests have XLA where users have it, and so has
    every process that a test starts.
    """
    from kvae.model import compiling

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "xla_pays", lambda model: False)
        yield


@pytest.fixture(autouse=True)
def the_same_initial_weights():
    """A model without a seed has the same initial weights, whatever tests came before."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def free_what_it_made():
    """What a longer test leaves behind is freed at its end, and what stays is looked at no more.

    A collection looks at all objects, and models make many: without this a fifth of the time of the tests goes there.
    An iterator of tf.data that is freed late may even wait for a minute for a thread of its own.
    """
    start = time.monotonic()
    yield
    if time.monotonic() - start > 0.3:
        gc.collect()
        gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def digits() -> np.ndarray:
    """200 binary digits, `[200, 28, 28, 1]` float32."""
    with np.load(Path(__file__).parent.parent / "kvae" / "data" / "mnist5k.npz") as archive:
        return (archive["x_train"][:200, ..., None] > 127).astype(np.float32)


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory) -> Path:
    """The run of which `tiny_run` is a copy, for fixtures that outlive a test and do not change it."""
    from tiny_runs import tiny_run

    return tiny_run(tmp_path_factory.mktemp("trained"), latent_dim=3, hidden_units=[8]).folder


@pytest.fixture
def tiny_run(shared_run, tmp_path_factory) -> Path:
    """A run of 3 latent dimensions on random images without labels: a copy for each test, which may change it."""
    return Path(shutil.copytree(shared_run, tmp_path_factory.mktemp("tiny") / "run"))


@pytest.fixture(scope="module")
def quick_exports():
    """Exports compare few samples, and measure no costs in processes of their own."""
    from exports import quick_parity

    with quick_parity():
        yield


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs `kvae` within this process, which already has TensorFlow: exit status, stdout, stderr."""
    from kvae import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.stopping, "install", lambda: None)  # pytest has handlers of its own
    for commands in (getattr(cli, name) for name in dir(cli)):
        if hasattr(commands, "quiet_tensorflow"):
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
