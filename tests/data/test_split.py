"""Slices of splits: which images they take, and which are refused."""

import numpy as np
import pytest
from indexed_images import TEST, TRAIN, indices, pictures

from kvae.data.split import Source, Split
from kvae.internal.errors import UserError


@pytest.mark.parametrize(
    ("wanted", "first", "stop"),
    [
        ("train", 0, 50),
        ("train[:10]", 0, 10),
        ("train[10:]", 10, 50),
        ("train[10:20]", 10, 20),
        ("train[90%:]", 45, 50),
        ("train[:-5]", 0, 45),
        ("train[-10%:]", 45, 50),
        ("train[:999]", 0, 50),
        ("train[:]", 0, 50),
        ("test[-5:]", 15, 20),
        (" test ", 0, 20),
    ],
)
def test_a_slice_selects_as_in_numpy(wanted, first, stop):
    splits = {
        "train": Split.from_arrays(pictures(TRAIN), np.arange(TRAIN)),
        "test": Split.from_arrays(pictures(TEST), np.arange(TEST)),
    }
    split = Source("digits", splits).select(wanted)
    assert (split.start, split.count) == (first, stop - first)
    assert indices(split.images) == split.labels.tolist() == list(range(first, stop))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("trian", "Did you mean 'train'"),
        ("validation", "Unknown split"),
        ("train[5:5]", "at least one image"),
        ("train[50:]", "at least one image"),
        ("train[0:10:2]", "such as train"),
        ("train[10]", "such as train"),
        ("train[:1.5]", "such as train"),
        ("train[:10%%]", "such as train"),
        ("train+test", "such as train"),
        ("", "such as train"),
    ],
)
def test_a_bad_slice_is_refused(load, wanted, message):
    with pytest.raises(UserError, match=message):
        load(train=wanted)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_every_part_is_a_slice(load, part):
    with pytest.raises(UserError, match="Did you mean 'train'"):
        load(**{part: "trian"})


def test_there_is_no_validation_unless_asked_for(load):
    data = load()
    assert data.validation is None
    assert data.info.sizes == {"train": TRAIN, "validation": 0, "test": TEST}


def test_overlapping_validation_images_are_refused(load):
    for validation in ("train[40:]", "test"):
        with pytest.raises(UserError, match="separate from the training and test images"):
            load(validation=validation)


def test_testing_on_training_images_is_noted_in_the_protocol(load):
    assert "test images were trained on" in load(test="train[:5]").info.protocol["notes"]
