"""Data in files, which several files of this folder read."""

from pathlib import Path

import numpy as np
import pytest
import small_tfds
from indexed_images import TEST, TRAIN, pictures
from PIL import Image

import kvae.data


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> str:
    """The indexed images with labels, in one npz file."""
    path = tmp_path_factory.mktemp("npz") / "digits.npz"
    arrays = {"x_train": pictures(TRAIN), "x_test": pictures(TEST)}
    np.savez(path, **arrays, y_train=np.arange(TRAIN), y_test=np.arange(TEST))
    return f"npz:{path}"


@pytest.fixture
def load(archive):
    """`kvae.data.load` of that archive."""
    return lambda **arguments: kvae.data.load(archive, **({"batch_size": 20} | arguments))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> str:
    """The indexed images without labels, one png file per image."""
    root = tmp_path_factory.mktemp("images")
    for part, count in (("train", TRAIN), ("test", TEST)):
        (root / part).mkdir()
        for place, image in enumerate(pictures(count)):
            Image.fromarray(image).save(root / part / f"{place:03}.png")
    return f"images:{root}"


@pytest.fixture
def mnist(tmp_path, monkeypatch) -> Path:
    """The folder of a small MNIST, which TFDS opens instead of the real one."""
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    return small_tfds.write(tmp_path)


def no_network(*_: object) -> None:
    raise OSError("no network")
