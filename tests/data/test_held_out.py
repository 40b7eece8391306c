"""The images that are held out for testing: those that scikit-learn chose in kvae 0.3, without scikit-learn."""

import hashlib
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from kvae.data.split import Split, held_out, hold_out


def digest(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16]


# Recorded with train_test_split(np.arange(N), test_size=0.1, random_state=0, stratify=labels) of scikit-learn 1.9.1,
# which also agreed on 73,258 other sizes and distributions of labels, 22,099 of them stratified.
ARANGE = {count: np.arange(count) for count in (137, 600, 1000, 1234, 5003)}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(20, "0ce4922175386e3f"), (997, "c9159202dfefcc6f"), (5000, "aeb5ebe6e3c1611a"), (60_000, "e0aca1a0f5fb10d2")],
)
def test_without_labels_the_images_are_those_of_scikit_learn(count, expected):
    assert digest(held_out(count)) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (ARANGE[1000] % 10, "230bf71925dc1375"),
        (ARANGE[1234] ** 2 % 7, "9b1dba5cdc4ad7e3"),
        (ARANGE[137] % 3 // 2, "6feed3b47bb394ec"),
        (ARANGE[5003] % 13, "eeae4e40fd3a88e5"),
        (-5 * (ARANGE[600] ** 3 % 11), "eb6f549a408f95eb"),
    ],
    ids=["equal classes", "uneven classes", "two classes", "ties", "negative labels"],
)
def test_with_labels_the_images_are_those_of_scikit_learn(labels, expected):
    assert digest(held_out(len(labels), labels)) == expected


def test_the_images_of_a_small_set_are_those_of_scikit_learn():
    assert held_out(23).tolist() == [10, 11, 21]
    assert held_out(40, np.arange(40) % 3).tolist() == [0, 2, 4, 15]


@pytest.mark.parametrize(
    "labels",
    [np.arange(100) // 99, np.arange(100) // 50 * 99 + np.arange(100) % 50],
    ids=["a class of one image", "more classes than test images"],
)
def test_classes_that_do_not_fit_the_test_split_are_not_balanced(labels):
    assert held_out(100, labels).tolist() == held_out(100).tolist()


@pytest.mark.parametrize("count", [200, 1003, 7777])
@pytest.mark.parametrize("classes", [2, 7, 10])
def test_each_class_has_its_share_of_the_test_split(count, classes, rng):
    labels = rng.geometric(0.4, count) % classes
    test = held_out(count, labels)
    assert len(test) == len(np.unique(test)) == -(-count // 10)
    for label in np.unique(labels):
        share = Fraction(int((labels == label).sum()) * len(test), count)
        # Whole numbers beside the exact share: the training split is rounded first, and the test split has the rest.
        assert abs((labels[test] == label).sum() - share) < 1


@pytest.mark.parametrize("labelled", [False, True])
def test_no_image_is_lost_or_in_both_splits(labelled, rng):
    images = np.arange(250, dtype=np.uint8).repeat(4).reshape(250, 2, 2)
    labels = rng.integers(0, 3, 250) if labelled else None
    splits = hold_out("mine", {"train": Split.from_arrays(images, labels)}).splits
    parts = [splits[name].images[:, 0, 0, 0].tolist() for name in ("train", "test")]
    assert sorted(parts[0] + parts[1]) == list(range(250))
    assert parts == [sorted(part) for part in parts]
    if labelled:
        for name, part in zip(("train", "test"), parts, strict=True):
            np.testing.assert_array_equal(splits[name].labels, labels[part])


@pytest.mark.slow
def test_neither_splits_nor_plots_need_scikit_learn():
    code = """
import sys
sys.modules["sklearn"] = sys.modules["scipy"] = None  # any import of them fails
import numpy as np
from kvae.data.split import held_out
from kvae.plotting import drawing
held_out(100, np.arange(100) % 4)
drawing.latent_scatter(np.random.default_rng(0).normal(size=(30, 5)), np.arange(30) % 3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
