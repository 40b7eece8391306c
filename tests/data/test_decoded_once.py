"""Streams that are decoded once, `streaming="decoded"`: trained on like images in memory, to the last bit."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from indexed_images import TRAIN, by_index, gathered
from PIL import Image
from source_files import greys, save_pictures

import kvae.data
from kvae import training
from kvae.data import Source, open_source
from kvae.internal import caches
from kvae.internal.errors import UserError
from kvae.training.config import RunConfig


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(caches.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def no_decoding(monkeypatch):
    """No image may be decoded again."""

    def refuse(*_):
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr("kvae.data.decoded_once._write", refuse)


OPTIONS = {"train": "train[:40]", "validation": "train[40:]", "binarize": "stochastic", "batch_size": 15}


@pytest.mark.parametrize("order", ["source", "shuffled"])
def test_batches_are_those_of_memory(folder, cache, order):
    memory, mapped = (kvae.data.load(folder, **OPTIONS, order=order, streaming=s) for s in (False, "decoded"))
    assert mapped.info == memory.info
    assert not mapped.streams
    for _ in range(2):
        assert gathered(mapped.train).tolist() == gathered(memory.train).tolist()
    for part in ("validation", "test"):
        np.testing.assert_array_equal(by_index(getattr(mapped, part)), by_index(getattr(memory, part)))
    np.testing.assert_array_equal(mapped.images_at("validation", [3, 1]), memory.images_at("validation", [3, 1]))
    np.testing.assert_array_equal(mapped.files_at("validation", [3, 1]), memory.files_at("validation", [3, 1]))
    assert np.isclose(mapped.pixel_mean, memory.pixel_mean).all()


@pytest.mark.parametrize("folders", [("cats", "dogs"), ("train/cats", "train/dogs"), ("",)])
def test_pictures_are_held_out_as_in_memory(tmp_path, cache, folders):
    for number, name in enumerate(folders):
        save_pictures(tmp_path / "data" / name, np.roll(greys(20), number))
    memory, mapped = (
        kvae.data.load(f"images:{tmp_path / 'data'}", batch_size=4, streaming=s) for s in (False, "decoded")
    )
    for part in ("train", "test"):
        np.testing.assert_array_equal(mapped.examples(part)[0], memory.examples(part)[0])
        assert mapped.has_labels(part) == memory.has_labels(part)
        if memory.has_labels(part):
            np.testing.assert_array_equal(mapped.examples(part)[1], memory.examples(part)[1])
    assert mapped.info.protocol == memory.info.protocol


def test_labels_of_tfds_are_kept_with_the_images(mnist, cache, monkeypatch):
    for _ in range(2):
        memory = kvae.data.load("mnist", batch_size=4, condition="label")
        mapped = kvae.data.load("mnist", batch_size=4, condition="label", streaming="decoded")
        for (x, y), (expected_x, expected_y) in zip(mapped.train, memory.train, strict=True):
            np.testing.assert_array_equal(x, expected_x)
            np.testing.assert_array_equal(y, expected_y)
        assert mapped.info == memory.info
        monkeypatch.setattr("kvae.data.decoded_once._write", None)
    for kept in cache.glob("*.labels.npy"):
        kept.write_bytes(b"damaged")
    again = kvae.data.load("mnist", batch_size=4, streaming="decoded")
    np.testing.assert_array_equal(again.examples("test")[1], memory.examples("test")[1])


def test_a_conditional_stream_reads_the_labels_of_tfds(mnist):
    memory, stream = (kvae.data.load("mnist", batch_size=4, condition="label", streaming=s) for s in (False, True))
    assert stream.info == memory.info
    for (x, y), (expected_x, expected_y) in zip(stream.test, memory.test, strict=True):
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)
    pairs = sorted((x.tobytes(), y) for x, y in zip(*memory.examples("train"), strict=True))
    assert sorted((x.tobytes(), y) for x, y in stream.train.unbatch().as_numpy_iterator()) == pairs


def test_images_are_decoded_once_and_only_those_of_the_splits_that_are_needed(folder, cache, no_decoding, capsys):
    kvae.data.load(folder, **OPTIONS, streaming="decoded")
    assert "Decoding" in capsys.readouterr().err
    no_decoding()
    kvae.data.load(folder, **{**OPTIONS, "validation": None, "train": "train[10:]"}, streaming="decoded")
    assert capsys.readouterr().err == ""
    assert len(list(cache.glob("*.npy"))) == 2
    shutil.rmtree(cache)
    with pytest.raises(AssertionError, match="decoded again"):
        kvae.data.load(folder, **OPTIONS, streaming="decoded")
    assert not list(cache.iterdir())


def test_only_the_splits_that_are_named_are_decoded(folder, cache):
    kvae.data.load(folder, train="test[:10]", test="test[10:]", batch_size=5, streaming="decoded")
    assert len(list(cache.glob("*.npy"))) == 1


@pytest.fixture
def changing(tmp_path, cache):
    """A folder of pictures, and a function that returns their pixels as they are decoded."""
    for part in ("train", "test"):
        save_pictures(tmp_path / "data" / part, greys())
    source = f"images:{tmp_path / 'data'}"
    return tmp_path / "data", lambda: kvae.data.load(source, batch_size=4, binarize="none", streaming="decoded")


def changed(data):
    Image.fromarray(np.full((4, 4), 77, np.uint8)).save(data / "train" / "007.png")


def touched(data):
    os.utime(data / "train" / "007.png", (1, 1))


def added(data):
    Image.fromarray(np.full((4, 4), 77, np.uint8)).save(data / "train" / "100.png")


def removed(data):
    (data / "train" / "007.png").unlink()


def renamed(data):
    (data / "train" / "007.png").rename(data / "train" / "700.png")


@pytest.mark.parametrize("change", [changed, touched, added, removed, renamed])
def test_pictures_that_have_changed_are_decoded_again_and_the_old_ones_removed(changing, cache, change):
    data, load = changing
    load()
    before = {path.name for path in cache.iterdir()}
    change(data)
    memory = kvae.data.load(f"images:{data}", batch_size=4, binarize="none")
    np.testing.assert_array_equal(load().examples("train")[0], memory.examples("train")[0])
    after = {path.name for path in cache.iterdir()}
    assert len(after) == len(before) == 2
    assert len(after & before) == 1


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.write_bytes(b"")]
)
def test_a_file_that_is_not_whole_is_made_again(changing, cache, spoil):
    _, load = changing
    expected = load().examples("train")[0]
    for path in cache.iterdir():
        spoil(path)
    np.testing.assert_array_equal(load().examples("train")[0], expected)


def test_a_damaged_picture_is_named_and_nothing_is_left(changing, cache):
    data, load = changing
    path = data / "train" / "007.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"007\.png"):
        load()
    assert not [each for each in cache.iterdir() if "test" not in each.name and each.suffix != ".npy"]


def test_a_damaged_record_of_tfds_is_named(mnist, cache):
    path = mnist / "mnist-train.tfrecord-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="the split train of mnist"):
        kvae.data.load("mnist", batch_size=4, streaming="decoded")


def test_a_full_disk_is_noticed_before_the_first_image(folder, cache, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(UserError, match=r"on the disk of .*It has 10 bytes.*KVAE_CACHE"):
        kvae.data.load(folder, batch_size=5, streaming="decoded")
    assert not list(cache.iterdir())


def test_a_disk_that_gets_full_is_an_error(folder, cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kvae.data.decoded_once._write", full)
    with pytest.raises(UserError, match="Free some space"):
        kvae.data.load(folder, batch_size=5, streaming="decoded")
    assert not list(cache.iterdir())


def test_it_needs_a_folder(folder, monkeypatch):
    monkeypatch.setenv(caches.VARIABLE, "")
    with pytest.raises(UserError, match="KVAE_CACHE is empty"):
        kvae.data.load(folder, batch_size=5, streaming="decoded")


def test_in_python_it_uses_the_folder_of_the_user(folder, tmp_path, monkeypatch):
    monkeypatch.delenv(caches.VARIABLE)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path(tmp_path) / name)
    kvae.data.load(folder, batch_size=5, streaming="decoded")
    assert len(list((tmp_path / "kvae" / "decoded").iterdir())) == 2
    assert caches.VARIABLE not in os.environ  # so that nothing else is kept


@pytest.mark.parametrize("value", ["yes", "true", 2, None])
def test_other_ways_are_refused(folder, value):
    with pytest.raises(UserError, match="streaming=False, True or 'decoded'"):
        kvae.data.load(folder, batch_size=5, streaming=value)


def test_a_source_that_cannot_stream_is_refused():
    with pytest.raises(UserError, match="cannot be streamed"):
        kvae.data.load("mnist5k", streaming="decoded")


def test_a_stream_of_a_reader_of_ones_own_is_refused(folder):
    from dataclasses import replace

    source = open_source(folder, streaming=True)
    unknown = Source("own", {part: replace(split, state=None) for part, split in source.splits.items()})
    with pytest.raises(UserError, match="whose files are known"):
        kvae.data.load(unknown, batch_size=5, streaming="decoded")


def test_a_mistake_in_other_arguments_is_found_before_images_are_decoded(folder, cache, no_decoding):
    no_decoding()
    for mistake in ({"batch_size": TRAIN + 1}, {"binarize": "no"}, {"threshold": 2}, {"condition": "no"}, {"seed": -1}):
        with pytest.raises(UserError):
            kvae.data.load(folder, streaming="decoded", **{"batch_size": 5, **mistake})


@pytest.mark.slow
def test_a_training_and_its_continuation_are_those_of_memory(folder, tmp_path, cache):
    def train(name, streaming, epochs):
        values = {
            "data": {"source": folder, "batch_size": 15, "streaming": streaming},
            "model": {"hidden_units": [4]},
            "training": {"epochs": epochs, "jit_compile": False},
        }
        return training.train(RunConfig.from_dict(values), tmp_path / name, verbose=0)

    memory, mapped = (train(str(s), s, 2).load_model().get_weights() for s in (False, "decoded"))
    assert all(map(np.array_equal, memory, mapped))
