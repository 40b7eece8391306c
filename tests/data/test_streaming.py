"""Data that are read batch by batch are the same as data in memory."""

import numpy as np
import pytest
from indexed_images import TRAIN, by_index, gathered, indices

import kvae.data


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


def test_a_stream_resumes_at_an_epoch(folder):
    data, resumed = (kvae.data.load(folder, binarize="stochastic", streaming=True, batch_size=20) for _ in range(2))
    second = [gathered(data.train) for _ in range(2)][1]
    resumed.epoch.assign(1)
    np.testing.assert_array_equal(gathered(resumed.train), second)


@pytest.mark.parametrize("streaming", [False, True])
def test_only_data_read_batch_by_batch_stream(folder, streaming):
    assert kvae.data.load(folder, batch_size=20, streaming=streaming).streams == streaming
