"""The reader of idx files, whole, wrong and damaged."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from source_files import DAMAGE, FUZZ, assert_reads_or_refuses, binary_scaled, damaged, greys, idx_bytes, write_idx

from kvae.data import open_source
from kvae.internal.errors import UserError


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_round_trip(tmp_path, suffix, labelled):
    labels = np.arange(20) % 3
    write_idx(tmp_path, "train", greys(), labels if labelled else None, suffix)
    write_idx(tmp_path, "t10k", greys(5), labels[:5] if labelled else None, suffix)
    splits = open_source(f"idx:{tmp_path}").splits
    for part, count in (("train", 20), ("test", 5)):
        np.testing.assert_array_equal(splits[part].images[..., 0], greys(count))
        np.testing.assert_array_equal(splits[part].labels, labels[:count] if labelled else None)


def test_a_missing_test_split_is_held_out_of_train(tmp_path):
    write_idx(tmp_path, "train", np.arange(100, dtype=np.uint8).reshape(100, 1, 1), np.arange(100) % 2)
    source = open_source(f"idx:{tmp_path}")
    train, test = (source.splits[part].images.ravel() for part in ("train", "test"))
    assert len(test) == 10
    assert sorted([*train, *test]) == list(range(100))
    assert source.notes


def test_held_out_labels_belong_to_their_images(tmp_path):
    write_idx(tmp_path, "train", np.arange(100, dtype=np.uint8).reshape(100, 1, 1), np.arange(100) % 7)
    for split in open_source(f"idx:{tmp_path}").splits.values():
        np.testing.assert_array_equal(split.labels, split.images.ravel() % 7)


BAD_IDX = {
    "truncated data": (lambda good: good[:-1], "too short"),
    "truncated header": (lambda good: good[:10], "too short"),
    "trailing bytes": (lambda good: good + b"\0", "too long"),
    "wrong magic": (lambda good: b"PK" + good[2:], "two zero bytes"),
    "empty file": (lambda good: b"", "two zero bytes"),
    "floats": (lambda good: idx_bytes(greys(), kind=13), "type 13"),
    "labels as images": (lambda good: idx_bytes(np.arange(20)), "expected images"),
    "no image": (lambda good: idx_bytes(greys()[:0]), "train-images"),
    "no image of a vast size": (lambda good: b"\0\0\x08\x03" + b"\0" * 4 + b"\xff" * 8, "train-images"),
    "truncated gzip": (lambda good: gzip.compress(good)[:-9], "is truncated"),
    "damaged gzip": (lambda good: gzip.compress(good)[:-8] + b"\0" * 8, "is damaged"),
}


@pytest.mark.parametrize("fault", BAD_IDX)
def test_bad_idx_is_refused(tmp_path, fault):
    damage, message = BAD_IDX[fault]
    (tmp_path / "train-images-idx3-ubyte").write_bytes(damage(idx_bytes(greys())))
    with pytest.raises(UserError, match=message):
        open_source(f"idx:{tmp_path}")


def test_idx_labels_of_another_number_are_refused(tmp_path):
    write_idx(tmp_path, "train", greys(), np.arange(19))
    with pytest.raises(UserError, match="expected 20 labels"):
        open_source(f"idx:{tmp_path}")


def test_idx_splits_of_different_sizes_are_refused(tmp_path):
    write_idx(tmp_path, "train", greys())
    write_idx(tmp_path, "t10k", greys(side=5))
    with pytest.raises(UserError, match="one size"):
        open_source(f"idx:{tmp_path}")


def test_idx_folder_without_idx_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="train-images-idx3-ubyte"):
        open_source(f"idx:{tmp_path}")


@FUZZ
@given(images=arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3)), suffix=st.sampled_from(["", ".gz"]))
def test_idx_round_trips_any_bytes(tmp_path, images, suffix):
    for stale in tmp_path.iterdir():
        stale.unlink()
    for part in ("train", "t10k"):
        write_idx(tmp_path, part, images, np.arange(len(images)), suffix)
    read = open_source(f"idx:{tmp_path}").splits["train"].images[..., 0]
    np.testing.assert_array_equal(read, binary_scaled(images))


@FUZZ
@given(content=st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\0\0\x08\x03" + tail))
def test_arbitrary_bytes_as_idx_are_read_or_refused(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    assert_reads_or_refuses(f"idx:{tmp_path}")


@FUZZ
@given(damage=DAMAGE, pack=st.sampled_from([bytes, gzip.compress]))
def test_damaged_idx_is_read_or_refused(tmp_path, damage, pack):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(damaged(pack(idx_bytes(greys())), damage))
    assert_reads_or_refuses(f"idx:{tmp_path}")


def test_several_sets_in_a_folder_are_refused_with_their_names(tmp_path):
    write_idx(tmp_path, "emnist-letters-train", greys(), None)
    write_idx(tmp_path, "emnist-digits-train", greys(), None)
    with pytest.raises(UserError, match=r"one set of images.*emnist-digits-train.*emnist-letters-train"):
        open_source(f"idx:{tmp_path}")


def test_a_file_is_that_of_a_split_whose_name_is_a_word_of_its_own(tmp_path):
    write_idx(tmp_path, "latest-train", greys(20), np.arange(20) % 2)
    source = open_source(f"idx:{tmp_path}")
    assert {part: split.count for part, split in source.splits.items()} == {"train": 18, "test": 2}


def test_files_beside_those_of_a_set_are_left_alone(tmp_path):
    write_idx(tmp_path, "train", greys(), np.arange(20) % 3)
    (tmp_path / "train-images-idx3-ubyte.gz.md5").write_text("0123")
    (tmp_path / "train-images.idx3-ubyte").mkdir()
    assert open_source(f"idx:{tmp_path}").splits["train"].count == 18
