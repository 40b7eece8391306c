"""Order, epochs, batches and protocol of what reaches a model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from indexed_images import TRAIN, gathered, indices, pictures

import kvae.data
from kvae.internal.errors import UserError

# --- order and epochs


@pytest.mark.parametrize("train", ["train", "train[5:45]"])
def test_every_epoch_shows_every_image_once(load, train):
    data = load(train=train)
    expected = list(range(TRAIN))[5:45] if "[" in train else list(range(TRAIN))
    for _ in range(3):
        assert sorted(indices(gathered(data.train))) == expected


def test_the_order_differs_between_epochs(load):
    data = load()
    assert indices(gathered(data.train)) != indices(gathered(data.train))


def test_the_order_differs_between_seeds(load):
    assert indices(gathered(load(seed=0).train)) != indices(gathered(load(seed=1).train))


def test_an_epoch_is_a_function_of_seed_and_number(load):
    first, again = load(binarize="stochastic", seed=5), load(binarize="stochastic", seed=5)
    for _ in range(3):
        np.testing.assert_array_equal(gathered(first.train), gathered(again.train))


def test_setting_the_epoch_gives_that_epoch(load):
    data, resumed = load(binarize="stochastic"), load(binarize="stochastic")
    third = [gathered(data.train) for _ in range(3)][2]
    resumed.epoch.assign(2)
    np.testing.assert_array_equal(gathered(resumed.train), third)
    assert int(resumed.epoch) == 3


# --- batches


@pytest.mark.parametrize(("drop_remainder", "sizes"), [(False, [20, 20, 10]), (True, [20, 20])])
def test_the_ragged_last_batch_is_kept_unless_dropped(load, drop_remainder, sizes):
    data = load(drop_remainder=drop_remainder)
    assert [len(batch) for batch in data.train] == sizes
    assert int(data.train.cardinality()) == len(sizes)


def test_drop_remainder_spares_evaluation_data(load):
    data = load(batch_size=15, drop_remainder=True)
    assert [len(batch) for batch in data.test] == [15, 5]
    assert int(data.test.cardinality()) == 2


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_dataset_that_is_first_used_in_a_graph_can_be_used_later(load, part):
    data, expected = (load(train="train[:30]", validation="train[30:]") for _ in range(2))

    @tf.function
    def total():
        return getattr(data, part).reduce(tf.constant(0.0), lambda total, x: total + tf.reduce_sum(x))

    assert float(total()) == pytest.approx(gathered(getattr(expected, part)).sum())
    np.testing.assert_array_equal(gathered(getattr(data, part)), gathered(getattr(expected, part)))


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "20"])
def test_a_bad_batch_size_is_refused(load, batch_size):
    with pytest.raises(UserError, match="batch_size to be a whole number"):
        load(batch_size=batch_size)


def test_a_batch_larger_than_the_data_is_refused(load):
    with pytest.raises(UserError, match=r"at most 50, the number of training images.*Received 51"):
        load(batch_size=51)


def test_batches_have_at_most_as_many_images_as_there_are(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((20, 2, 2), np.uint8), x_test=np.zeros((2, 2, 2), np.uint8))
    assert [len(batch) for batch in kvae.data.load(f"npz:{tmp_path / 'a.npz'}").train] == [20]
    assert len(next(iter(kvae.data.load("mnist5k").train))) == 100


@pytest.mark.parametrize(("channels", "binarization"), [(1, "threshold 0.5"), (3, "none")])
def test_colours_are_not_binarized_unless_one_says_so(tmp_path, channels, binarization):
    images = np.full((4, 2, 2, channels), 100, np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, x_test=images)
    data = kvae.data.load(f"npz:{tmp_path / 'a.npz'}")
    assert data.info.protocol["binarization"] == binarization
    assert data.examples("train")[0].max() == pytest.approx(0 if channels == 1 else 100 / 255)
    told = kvae.data.load(f"npz:{tmp_path / 'a.npz'}", binarize="threshold")
    assert told.examples("train")[0].max() == 0


@pytest.mark.parametrize("kind", ["threshold", "fixed", "none"])
def test_pixel_mean_is_that_of_the_training_images(load, kind):
    data = load(binarize=kind, seed=5)
    # A sum of 50 values up to 1 in float64, rounded once to float32, whose relative precision is 6e-8.
    np.testing.assert_allclose(data.pixel_mean, data.examples("train")[0].mean(axis=0, dtype=np.float64), rtol=1e-7)


def test_pixel_mean_of_stochastic_images_is_near_the_mean_grey(load):
    grey = pictures(TRAIN)[..., None] / 255
    # Six standard errors of each of the 64 means, were it estimated from one draw per image; 1e-6 for float32.
    tolerance = 6 * np.sqrt((grey * (1 - grey)).sum(axis=0)) / TRAIN + 1e-6
    assert (np.abs(load(binarize="stochastic").pixel_mean - grey.mean(axis=0)) < tolerance).all()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("threshold", {"binarization": "threshold 0.5"}),
        ("none", {"binarization": "none"}),
        ("fixed", {"binarization": "fixed", "evaluation_binarization": "drawn once, seed 9"}),
        ("stochastic", {"binarization": "stochastic", "evaluation_binarization": "drawn once, seed 9"}),
    ],
)
def test_protocol_says_dataset_split_and_binarization(load, archive, kind, said):
    data = load(binarize=kind, train="train[:30]", validation="train[30:]", evaluation_seed=9)
    assert data.info.protocol == said | {
        "dataset": archive,
        "train": "train[:30] (30 images)",
        "validation": "train[30:] (20 images)",
        "test": "test (20 images)",
    }


def test_protocol_says_when_the_test_split_was_held_out(tmp_path):
    np.savez(tmp_path / "a.npz", images=pictures(TRAIN))
    data = kvae.data.load(f"npz:{tmp_path / 'a.npz'}", batch_size=5)
    assert "held out" in data.info.protocol["notes"][0]


# --- several devices

TWO_DEVICES = """
import json, sys
import numpy as np
from kvae.internal.tensorflow import tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import kvae.data
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
data = kvae.data.load(sys.argv[1], batch_size=20)
epochs = []
for _ in range(2):
    replicas = [[], []]
    for batch in strategy.experimental_distribute_dataset(data.train):
        for seen, x in zip(replicas, strategy.experimental_local_results(batch), strict=True):
            seen += np.packbits(x.numpy()[:, 0, :, 0].astype(bool), axis=1).ravel().tolist()
    epochs.append(replicas)
print(json.dumps(epochs))
"""


@pytest.mark.exhaustive  # tests/training/test_cluster.py trains on two devices as on one in CI
def test_two_devices_together_see_every_image_once_per_epoch(archive):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, archive],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for first, second in json.loads(done.stdout.splitlines()[-1]):
        assert sorted(first + second) == list(range(TRAIN))
        assert len(first) == len(second)
