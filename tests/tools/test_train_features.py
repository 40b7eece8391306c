"""tools/train_features.py: it makes the file of the features of digits."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import train_features

from kvae.evaluation import digit_features

TOOL = Path(__file__).parents[2] / "tools" / "train_features.py"


def train(*arguments):
    words = [sys.executable, TOOL, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_moved_digits_are_the_same_digits(rng):
    x = np.zeros((50, 28, 28, 1), np.float32)
    x[:, 10:15, 12] = 1.0
    found = train_features.varied(x, rng)
    assert found.sum(axis=(1, 2, 3)).tolist() == [5.0] * 50
    columns, rows = np.unique(found.any(axis=1).argmax(axis=1)), np.unique(found.any(axis=2).argmax(axis=1))
    assert (columns.tolist(), rows.tolist()) == ([10, 11, 12, 13, 14], [8, 9, 10, 11, 12])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--epochs", "0"), "--epochs"), (("--seed", "x"), "--seed"), (("--out", "."), "directory"), (("more",), "more")],
)
def test_a_mistake_is_status_2_and_no_traceback(arguments, message):
    done = train(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.exhaustive
def test_it_makes_such_a_file_as_the_package_has(tmp_path):
    done = train("--out", tmp_path / "made.npz", "--epochs", 8)
    assert done.returncode == 0, done.stderr
    accuracy = train_features.accuracy(tmp_path / "made.npz", *train_features.digits("test"))
    assert f"{accuracy:.1%}, grey" in done.stdout
    assert accuracy > 0.94  # it is higher after all epochs
    with np.load(tmp_path / "made.npz") as new, np.load(digit_features.WEIGHTS) as old:
        assert {name: new[name].shape for name in new.files} == {name: old[name].shape for name in old.files}
        assert {new[name].dtype for name in new.files} == {np.dtype(np.float16)}
