"""Decoded images of TFDS that are kept: used as long as the dataset is the same."""

import os
import shutil

import numpy as np
import pytest

from kvae.data import open_source
from kvae.data.sources import decoded
from kvae.internal import caches, memory
from kvae.internal.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(caches.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def no_decoding(monkeypatch):
    """TFDS may not be asked again."""
    return lambda: monkeypatch.setattr("tensorflow_datasets.builder", None)


def images_of(source):
    return {part: split.images[:, 0, 0, 0].tolist() for part, split in source.splits.items()}


def test_a_dataset_is_decoded_once(mnist, cache, no_decoding):
    first = open_source("mnist")
    no_decoding()
    again = open_source("mnist")
    assert len(list(cache.iterdir())) == 1
    assert again.label_names == first.label_names
    assert (again.notes, again.notes_if_shuffled) == (first.notes, first.notes_if_shuffled)
    for part, split in first.splits.items():
        kept = again.splits[part]
        np.testing.assert_array_equal(kept.images, split.images)
        np.testing.assert_array_equal(kept.labels, split.labels)
        assert (kept.images.dtype, kept.labels.dtype) == (split.images.dtype, split.labels.dtype)
        assert (kept.count, kept.image_shape) == (split.count, split.image_shape)
        assert kept.images.flags.writeable


def test_a_dataset_that_has_changed_is_decoded_again(mnist, cache):
    expected = images_of(open_source("mnist"))
    test = mnist / "mnist-test.tfrecord-00000-of-00001"
    shutil.copy(mnist / "mnist-train.tfrecord-00000-of-00001", test)
    test.write_bytes(test.read_bytes()[:-7])
    with pytest.raises(UserError, match="mnist"):  # it is not hidden that a file is damaged
        open_source("mnist")
    shutil.copy(mnist / "mnist-train.tfrecord-00000-of-00001", test)
    assert images_of(open_source("mnist")) == expected


def test_a_new_version_of_a_dataset_is_noticed(mnist, cache, no_decoding):
    open_source("mnist")
    (mnist.parent / "3.0.2").mkdir()
    os.utime(mnist.parent, ns=(0, 1))
    assert decoded.load("mnist") is None


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"", lambda content: b"no zip"])
def test_a_damaged_file_is_made_again(mnist, cache, damage):
    expected = images_of(open_source("mnist"))
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert images_of(open_source("mnist")) == expected
    assert len(path.read_bytes()) == len(whole)


def test_a_changed_pixel_is_noticed(mnist, cache):
    expected = images_of(open_source("mnist"))
    (path,) = cache.iterdir()
    content = path.read_bytes()
    place = content.index(bytes([50] * 784))
    path.write_bytes(content[:place] + b"0" + content[place + 1 :])
    assert images_of(open_source("mnist")) == expected


def test_nothing_is_kept_unless_it_is_asked_for(mnist, tmp_path, monkeypatch):
    monkeypatch.setenv(caches.VARIABLE, "")
    open_source("mnist")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mnist"]


def test_a_folder_that_cannot_be_written_to_changes_nothing(mnist, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(caches.VARIABLE, str(tmp_path / "file"))
    assert images_of(open_source("mnist"))["train"]


def test_a_dataset_whose_files_only_tfds_can_read_is_not_kept(mnist, cache, tmp_path):
    splits = open_source("mnist").splits
    (path,) = cache.iterdir()
    path.unlink()
    decoded.keep("mnist", tmp_path / "nowhere", splits, None)
    assert list(cache.iterdir()) == []


def test_nothing_is_kept_with_a_nightly_version_of_tfds(mnist, cache, monkeypatch):
    def version(package):
        raise decoded.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(decoded.metadata, "version", version)
    assert images_of(open_source("mnist"))["train"]
    assert not cache.exists()


def test_the_oldest_datasets_are_deleted_and_a_large_one_is_not_kept(mnist, cache, monkeypatch):
    open_source("mnist")
    (path,) = cache.iterdir()
    old = path.with_name("old.npz")
    shutil.copy(path, old)
    os.utime(old, (0, 0))
    monkeypatch.setattr(decoded, "MOST_BYTES", 1.5 * path.stat().st_size)
    path.write_bytes(b"damaged")
    monkeypatch.setattr(decoded, "MOST_BYTES", 2 * old.stat().st_size - 1)
    open_source("mnist")
    assert list(cache.iterdir()) == [path]
    path.unlink()
    monkeypatch.setattr(decoded, "MOST_BYTES", 1000)
    open_source("mnist")
    assert list(cache.iterdir()) == []


def test_what_does_not_fit_in_memory_is_refused_although_it_is_kept(mnist, cache, monkeypatch):
    open_source("mnist")
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(UserError, match="fit into the memory"):
        open_source("mnist")
