"""Data that are read batch by batch are the same as data in memory."""

import numpy as np
import pytest
from indexed_images import TRAIN, by_index, gathered, indices
from source_files import greys, save_pictures

import kvae.data
from kvae import training
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras
from kvae.training import results
from kvae.training.config import RunConfig


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_streaming_gives_the_draws_of_memory(folder, part):
    arguments = {"train": "train[:40]", "validation": "train[40:]", "binarize": "stochastic", "batch_size": 15}
    memory, stream = (kvae.data.load(folder, **arguments, streaming=streaming) for streaming in (False, True))
    np.testing.assert_array_equal(by_index(getattr(stream, part)), by_index(getattr(memory, part)))


def test_a_stream_shows_every_image_once_in_a_new_order_each_epoch(folder):
    data = kvae.data.load(folder, batch_size=20, streaming=True)
    orders = [indices(gathered(data.train)) for _ in range(2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(TRAIN))


def test_labels_in_the_files_of_a_stream_are_those_of_memory_and_are_read_when_they_are_asked_for(mnist):
    arguments = {"test": "test[3:9]", "batch_size": 4, "binarize": "none"}
    memory, stream = (kvae.data.load("mnist", **arguments, streaming=streaming) for streaming in (False, True))
    assert stream.streams
    for part in ("train", "test"):
        assert stream.has_labels(part)
        for ours, theirs in zip(stream.examples(part, 5), memory.examples(part, 5), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(stream.labels_at("test", [5, 0]), memory.labels_at("test", [5, 0]))
    np.testing.assert_array_equal(stream.places_of("test", 7), memory.places_of("test", 7))
    pairs = zip(stream.labelled_test(), memory.labelled_test(), strict=True)
    for (x, y), (x_of_memory, y_of_memory) in pairs:
        np.testing.assert_array_equal(x, x_of_memory)
        np.testing.assert_array_equal(y, y_of_memory)
    assert all(batch.shape[1:] == (28, 28, 1) for batch in stream.test)  # no labels, which were not requested


@pytest.mark.slow
def test_a_stream_resumes_at_an_epoch(folder):
    data, resumed = (kvae.data.load(folder, binarize="stochastic", streaming=True, batch_size=20) for _ in range(2))
    second = [gathered(data.train) for _ in range(2)][1]
    resumed.epoch.assign(1)
    np.testing.assert_array_equal(gathered(resumed.train), second)


@pytest.mark.parametrize("streaming", [False, True])
def test_only_data_read_batch_by_batch_stream(folder, streaming):
    assert kvae.data.load(folder, batch_size=20, streaming=streaming).streams == streaming


# --- damaged pictures, in a training


@pytest.fixture
def config(tmp_path) -> RunConfig:
    """The configuration of a short training on streamed pictures in the folder `data`."""
    for part in ("train", "test"):
        save_pictures(tmp_path / "data" / part, greys())
    values = {
        "data": {"source": f"images:{tmp_path / 'data'}", "batch_size": 5, "streaming": True},
        "model": {"hidden_units": [4]},
        "training": {"epochs": 3, "jit_compile": False},
    }
    return RunConfig.from_dict(values)


def test_a_run_that_streams_is_evaluated_on_data_that_cannot_be_streamed(tmp_path, config):
    run = training.train(config, tmp_path / "run", verbose=0)
    np.savez(tmp_path / "other.npz", x_train=greys(), x_test=greys())
    result = results.evaluate(run, f"npz:{tmp_path / 'other.npz'}")
    assert result["protocol"]["examples"] == len(greys())


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_training_does_not_begin_with_a_damaged_picture(tmp_path, config, part):
    path = tmp_path / "data" / part / "007.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=rf"Could not read .*{part}.007\.png"):
        training.train(config, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_picture_that_is_damaged_during_the_training_is_named(tmp_path, config):
    path = tmp_path / "data" / "train" / "007.png"

    def damage(epoch, logs=None):
        path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(UserError, match=r"Could not read .*train.007\.png"):
        training.train(config, tmp_path / "run", verbose=0, extra=[keras.callbacks.LambdaCallback(on_epoch_end=damage)])
