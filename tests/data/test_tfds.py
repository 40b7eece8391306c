"""Datasets of TensorFlow Datasets, and the errors where one cannot be had."""

import functools
import os
from pathlib import Path

import numpy as np
import pytest
from slow_cases import slow

import kvae.data
from kvae.data import open_source
from kvae.data.binarization import binarize
from kvae.data.split import Source
from kvae.internal.errors import UserError


@pytest.mark.parametrize(
    ("word", "nearest"), [("mnst", "mnist"), ("mnist5K", "mnist5k"), ("fashion-mnist", "fashion_mnist")]
)
def test_an_unknown_dataset_names_the_nearest_match(word, nearest):
    with pytest.raises(UserError, match=f"Did you mean '{nearest}'"):
        open_source(word)


@pytest.mark.parametrize(
    "name", ["imdb_reviews", "imagenette"], ids=["a dataset without images", "pictures of all sizes"]
)
def test_a_dataset_without_images_of_one_size_is_refused(name):
    with pytest.raises(UserError, match="8-bit `image` of a fixed size"):
        open_source(name)


def unreachable(*_: object) -> None:
    raise ConnectionError("no route to host")


@pytest.mark.parametrize(
    ("resolve", "reason"),
    [(unreachable, "no network"), (lambda *_: [], "ConnectionError: no route to host")],
    ids=["no host", "broken download"],
)
def test_a_failed_download_names_the_ways_out(tmp_path, monkeypatch, resolve, reason):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    monkeypatch.setattr("tensorflow_datasets.core.DatasetBuilder.download_and_prepare", unreachable)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("socket.getaddrinfo", resolve)
    with pytest.raises(UserError, match=rf"\({reason}\).*mnist5k.*TFDS_DATA_DIR"):
        open_source("mnist")


@pytest.fixture(scope="module")
def real_data():
    """A function that reads a dataset which lies on this machine, once, and skips where it does not."""
    folder = Path(
        os.environ.get("TFDS_DATA_DIR", Path(__file__).parents[3] / "shared" / "data" / "tensorflow_datasets")
    )

    @functools.cache
    def read(name: str) -> Source:
        if not list(folder.glob(f"{name}/*/dataset_info.json")):
            pytest.skip(f"{name} is not in TFDS_DATA_DIR or ../shared/data/tensorflow_datasets")
        return open_source(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(folder))
        yield read


FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "label_names", "first_train", "first_test"),
    [
        ("mnist", tuple("0123456789"), [4, 1, 0, 7, 8, 1, 2, 7], [2, 0, 4, 8, 7, 6, 0, 6]),
        *slow(("fashion_mnist", FASHION, [2, 1, 8, 4, 1, 9, 2, 2], [4, 4, 9, 7, 5, 1, 0, 5])),
    ],
)
def test_real_datasets_are_whole_and_in_order(real_data, name, label_names, first_train, first_test):
    source = real_data(name)
    assert source.splits["train"].images.shape == (60_000, 28, 28, 1)
    assert source.splits["test"].images.shape == (10_000, 28, 28, 1)
    assert source.label_names == label_names
    assert source.splits["train"].labels[:8].tolist() == first_train
    assert source.splits["test"].labels[:8].tolist() == first_test


@pytest.mark.parametrize("kind", ["none", "fixed"])
def test_a_streamed_slice_of_mnist_is_that_of_mnist_in_memory(real_data, kind):
    memory = real_data("mnist").splits["test"].images[5000:5200]
    data = kvae.data.load("mnist", test="test[5000:5200]", binarize=kind, evaluation_seed=3, streaming=True)
    np.testing.assert_array_equal(data.examples("test")[0], binarize(kind, memory, np.arange(5000, 5200), seed=3))


@pytest.mark.parametrize("name", ["data[1]", "a b é", "data?"])
def test_a_folder_whose_name_looks_like_a_pattern_is_read(real_data, tmp_path, monkeypatch, name):
    from tensorflow_datasets.core import constants

    memory = real_data("mnist").splits["test"].images[:20]
    (tmp_path / name).symlink_to(constants.DATA_DIR)
    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path / name))
    data = kvae.data.load("mnist", test="test[:20]", binarize="none", streaming=True)
    np.testing.assert_array_equal(data.examples("test")[0], binarize("none", memory, np.arange(20), seed=0))
