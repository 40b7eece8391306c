"""The 5,000 digits that come with kvae."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from kvae.data import open_source

FOLDER = Path(__file__).parents[2] / "kvae" / "data"


@pytest.fixture(scope="module")
def mnist5k():
    return open_source("mnist5k")


@pytest.mark.parametrize(("part", "count", "per_class"), [("train", 4000, 400), ("test", 1000, 100)])
def test_mnist5k_is_balanced(mnist5k, part, count, per_class):
    assert mnist5k.splits[part].images.shape == (count, 28, 28, 1)
    assert np.bincount(mnist5k.splits[part].labels).tolist() == [per_class] * 10


def test_mnist5k_label_names_are_the_digits(mnist5k):
    assert mnist5k.label_names == tuple("0123456789")


def test_mnist5k_has_the_documented_checksum():
    with np.load(FOLDER / "mnist5k.npz") as archive:
        digest = hashlib.sha256(b"".join(archive[name].tobytes() for name in sorted(archive.files))).hexdigest()
    assert re.findall(r"[0-9a-f]{64}", (FOLDER / "mnist5k.md").read_text(encoding="utf-8")) == [digest]
