"""`load(..., condition="label")`: the batches of a model of classes, and the number of classes."""

import numpy as np
import pytest

from kvae.data import load
from kvae.internal.errors import UserError


def archive(folder, **labels):
    """Five images per split, with these labels."""
    path = folder / "x.npz"
    np.savez(path, **{f"x_{part}": np.full((5, 4, 4), 9, np.uint8) for part in ("train", "test")}, **labels)
    return f"npz:{path}"


def test_batches_have_the_label_as_with_labels_true():
    options = {"train": "train[:60]", "test": "test[:20]", "batch_size": 20}
    first, second = (load("mnist5k", **options, **given) for given in ({"condition": "label"}, {"labels": True}))
    for ours, theirs in zip(first.train.as_numpy_iterator(), second.train.as_numpy_iterator(), strict=True):
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])
    assert first.train.in_memory is not None
    assert first.info.protocol == {**second.info.protocol, "condition": "label"}


def test_classes_are_counted_in_all_splits(tmp_path):
    source = archive(tmp_path, y_train=[0, 1, 1, 0, 2], y_test=[0, 0, 3, 0, 0])
    data = load(source, train="train[:2]", condition="label")
    assert data.info.classes == 4
    assert data.info.class_names == ("0", "1", "2", "3")
    assert load(archive(tmp_path), batch_size=5).info.classes is None


def test_classes_have_their_names():
    info = load("mnist5k", train="train[:10]", test="test[:10]").info
    assert info.classes == 10
    assert info.class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("labels", "condition", "message"),
    [
        ({}, "label", "Expected a dataset with labels, because the label is the condition of the model"),
        ({"y_train": [-1] * 5, "y_test": [0] * 5}, "label", "negative"),
        ({"y_train": [0] * 5, "y_test": [0] * 5}, "labels", "Unknown condition 'labels'. Did you mean 'label'"),
    ],
)
def test_what_is_no_condition_is_refused(tmp_path, labels, condition, message):
    with pytest.raises(UserError, match=message):
        load(archive(tmp_path, **labels), condition=condition)
