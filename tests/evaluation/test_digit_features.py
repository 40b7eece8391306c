"""The features of digits: their file is the one that is described, and its classifier knows digits."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import train_features

from kvae.evaluation import digit_features
from kvae.evaluation.samples import kernel_distance

DESCRIPTION = digit_features.WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def test_the_file_has_the_documented_checksum_and_is_small():
    weights = arrays(digit_features.WEIGHTS)
    digest = hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest()
    assert re.findall(r"[0-9a-f]{64}", DESCRIPTION) == [digest]
    assert digit_features.WEIGHTS.stat().st_size < 200_000


def test_the_classifier_has_the_documented_accuracy_on_held_out_digits():
    x, y = train_features.digits("test")
    grey, binary = map(float, re.search(r"([\d.]+) % .*grey.* ([\d.]+) %", DESCRIPTION.replace("\n", " ")).groups())
    # Rounding on another machine may change the class of one of the 1,000 digits.
    assert 100 * train_features.accuracy(digit_features.WEIGHTS, x, y) == pytest.approx(grey, abs=0.11)
    drawn = train_features.drawn(x, np.random.default_rng(0))
    assert 100 * train_features.accuracy(digit_features.WEIGHTS, drawn, y) == pytest.approx(binary, abs=0.11)


def test_the_features_are_scaled_and_do_not_depend_on_the_chunk():
    x, _ = train_features.digits("train")
    found = digit_features.features(x)
    assert found.shape == (4000, 64)
    assert found.min() >= 0
    assert np.square(found).mean() == pytest.approx(1.0, abs=0.01)  # the weights are rounded to float16
    np.testing.assert_allclose(digit_features.features(x[:3, ..., 0]), found[:3], rtol=1e-4, atol=1e-4)


def test_the_features_tell_damaged_digits_from_others(rng):
    x, _ = train_features.digits("test")
    first, second = np.float64(digit_features.features(x)).reshape(500, 2, -1).transpose(1, 0, 2)
    damaged = np.where(rng.random(x.shape) < 0.1, 1 - x, x)[1::2]
    alike = kernel_distance(first, second)
    assert abs(alike.mean()) < 4 * alike.std() / np.sqrt(500)
    different = kernel_distance(first, np.float64(digit_features.features(damaged)))
    assert different.mean() > 10 * different.std() / np.sqrt(500)
