"""Splits, binarization, order and batches: what reaches a model, and when.

Every image of the fixtures carries its index in its first row, as eight bits of black or white that no binarization
changes, so that an image can be recognised after shuffling.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kvae.data
from kvae.data.binarization import KINDS, binarize
from kvae.data.split import Source, Split
from kvae.internal.errors import UserError

TRAIN, TEST = 50, 20


def pictures(count: int) -> np.ndarray:
    """`[count, 8, 8]` uint8, grey below a first row of index bits."""
    images = np.random.default_rng(count).integers(1, 255, (count, 8, 8)).astype(np.uint8)
    images[:, 0] = 255 * np.unpackbits(np.arange(count, dtype=np.uint8)[:, None], axis=1)
    return images


def indices(x: np.ndarray) -> list[int]:
    return np.packbits(x[:, 0, :, 0].astype(bool), axis=1).ravel().tolist()


def gathered(dataset) -> np.ndarray:
    return np.concatenate([batch.numpy() for batch in dataset])


def by_index(dataset) -> np.ndarray:
    x = gathered(dataset)
    return x[np.argsort(indices(x))]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("npz") / "digits.npz"
    arrays = {"x_train": pictures(TRAIN), "x_test": pictures(TEST)}
    np.savez(path, **arrays, y_train=np.arange(TRAIN), y_test=np.arange(TEST))
    return f"npz:{path}"


@pytest.fixture
def load(archive):
    return lambda **arguments: kvae.data.load(archive, **({"batch_size": 20} | arguments))


# --- slices


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
    splits = {"train": Split.of(pictures(TRAIN), np.arange(TRAIN)), "test": Split.of(pictures(TEST), np.arange(TEST))}
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


# --- binarization


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.9])
def test_threshold_is_where_grey_exceeds_it(threshold):
    every_grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = binarize("threshold", every_grey, [0], seed=0, threshold=threshold).numpy()
    np.testing.assert_array_equal(x, every_grey / 255 > threshold)


def test_threshold_one_half_parts_127_and_128():
    x = binarize("threshold", np.array([127, 128], np.uint8).reshape(1, 1, 2, 1), [0], seed=0)
    assert x.numpy().ravel().tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_binarization_gives_float32_images(load, kind):
    train = load(binarize=kind).train
    assert train.element_spec.dtype.name == "float32"
    assert next(iter(train)).shape == (20, 8, 8, 1)


@pytest.mark.parametrize("kind", ["threshold", "stochastic", "fixed"])
def test_binarized_pixels_are_zero_or_one(load, kind):
    assert set(np.unique(gathered(load(binarize=kind).train))) == {0, 1}


def test_no_binarization_gives_grey_in_255ths(load):
    np.testing.assert_array_equal(
        by_index(load(binarize="none").train)[..., 0], pictures(TRAIN).astype(np.float32) / np.float32(255)
    )


@pytest.mark.parametrize("grey", [13, 128, 230])
def test_stochastic_mean_is_the_grey_value(grey):
    images, epochs, p = np.full((20, 16, 16, 1), grey, np.uint8), 10, grey / 255
    draws = np.stack([binarize("stochastic", images, np.arange(20), seed=0, epoch=epoch) for epoch in range(epochs)])
    # Five standard errors of a mean of independent Bernoulli draws: one seed in two million would lie outside.
    assert abs(draws.mean() - p) < 5 * math.sqrt(p * (1 - p) / draws.size)
    # The same of every pixel's own mean, with 6 errors since there are 256 of them, skewed at few draws.
    assert np.abs(draws.mean(axis=(0, 1)) - p).max() < 6 * math.sqrt(p * (1 - p) / (20 * epochs))


@pytest.mark.parametrize("kind", KINDS)
def test_only_stochastic_draws_differ_between_epochs(load, kind):
    data = load(binarize=kind)
    assert np.array_equal(by_index(data.train), by_index(data.train)) == (kind != "stochastic")


def test_stochastic_draws_are_the_same_for_the_same_seed(load):
    np.testing.assert_array_equal(
        by_index(load(binarize="stochastic", seed=3).train), by_index(load(binarize="stochastic", seed=3).train)
    )


@pytest.mark.parametrize("kind", ["stochastic", "fixed"])
def test_training_draws_differ_between_seeds(load, kind):
    assert not np.array_equal(by_index(load(binarize=kind, seed=3).train), by_index(load(binarize=kind, seed=4).train))


@pytest.mark.parametrize(("grey", "noise"), [(0, 0.0), (255, 1 - 2.0**-24)])
def test_black_and_white_survive_the_extreme_draws(monkeypatch, grey, noise):
    monkeypatch.setattr("kvae.noise.keyed.uniform", lambda shape, *key: np.full((1, *shape), noise, np.float32))
    assert binarize("stochastic", np.full((1, 1, 1, 1), grey, np.uint8), [0], seed=0).numpy().item() == grey / 255


def test_equal_images_get_draws_of_their_own():
    x = binarize("stochastic", np.full((2, 16, 16, 1), 128, np.uint8), [0, 1], seed=0).numpy()
    assert not np.array_equal(x[0], x[1])


def test_a_slice_keeps_the_draws_of_the_whole(load):
    whole, part = load(binarize="stochastic"), load(binarize="stochastic", train="train[15:]")
    np.testing.assert_array_equal(by_index(part.train), by_index(whole.train)[15:])


# --- evaluation data


@pytest.mark.parametrize("kind", ["stochastic", "fixed"])
@pytest.mark.parametrize("other", [{"seed": 7}, {"batch_size": 7}, {"drop_remainder": True}])
def test_evaluation_data_do_not_depend_on(load, kind, other):
    np.testing.assert_array_equal(
        gathered(load(binarize=kind, **other).test), gathered(load(binarize=kind, seed=0).test)
    )


@pytest.mark.parametrize("kind", ["stochastic", "fixed"])
def test_evaluation_data_are_drawn_from_evaluation_seed(load, kind):
    assert not np.array_equal(
        gathered(load(binarize=kind, evaluation_seed=1).test), gathered(load(binarize=kind, evaluation_seed=2).test)
    )


def test_evaluation_data_are_the_same_at_every_iteration(load):
    data = load(binarize="stochastic")
    first = gathered(data.test)
    gathered(data.train)
    np.testing.assert_array_equal(gathered(data.test), first)


def test_evaluation_data_come_in_the_order_of_the_source(load):
    data = load(train="train[:40]", validation="train[40:]")
    assert indices(gathered(data.test)) == list(range(TEST))
    assert indices(gathered(data.validation)) == list(range(40, TRAIN))


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


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "20"])
def test_a_bad_batch_size_is_refused(load, batch_size):
    with pytest.raises(UserError, match="batch_size to be a whole number"):
        load(batch_size=batch_size)


def test_a_batch_larger_than_the_data_is_refused(load):
    with pytest.raises(UserError, match=r"at most 50, the number of training images.*Received 51"):
        load(batch_size=51)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_bad_threshold_is_refused(load, threshold):
    with pytest.raises(UserError, match=r"threshold in \[0, 1\)"):
        load(threshold=threshold)


def test_an_unknown_binarization_names_the_nearest(load):
    with pytest.raises(UserError, match="Did you mean 'stochastic'"):
        load(binarize="stochastik")


# --- what is known of the data


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("count", [3, None])
def test_examples_come_with_their_labels(load, part, count):
    x, labels = load(binarize="stochastic", train="train[:40]", validation="train[40:]").examples(part, count)
    expected = {"train": range(40), "validation": range(40, TRAIN), "test": range(TEST)}[part][:count]
    assert indices(x) == labels.tolist() == list(expected)


def test_examples_of_evaluation_data_are_the_evaluation_data(load):
    data = load(binarize="stochastic", test="test[5:]", evaluation_seed=3)
    np.testing.assert_array_equal(data.examples("test")[0], gathered(data.test))


def test_examples_of_an_unknown_split_are_refused(load):
    with pytest.raises(UserError, match="Unknown split 'validation'"):
        load().examples("validation")


@pytest.mark.parametrize("kind", ["threshold", "fixed", "none"])
def test_pixel_mean_is_that_of_the_training_images(load, kind):
    data = load(binarize=kind, seed=5)
    # A sum of 50 values up to 1 in float64, rounded once to float32, whose relative precision is 6e-8.
    np.testing.assert_allclose(data.pixel_mean, data.examples("train")[0].mean(axis=0, dtype=np.float64), rtol=1e-7)


def test_pixel_mean_of_stochastic_images_is_near_the_mean_grey(load):
    grey = pictures(TRAIN)[..., None] / 255
    # Six standard errors of each of the 64 means, were it estimated from one draw an image; 1e-6 for float32.
    tolerance = 6 * np.sqrt((grey * (1 - grey)).sum(axis=0)) / TRAIN + 1e-6
    assert (np.abs(load(binarize="stochastic").pixel_mean - grey.mean(axis=0)) < tolerance).all()


def test_there_is_no_validation_unless_asked_for(load):
    data = load()
    assert data.validation is None
    assert data.info.sizes == {"train": TRAIN, "validation": 0, "test": TEST}


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


# --- streaming


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("images")
    for part, count in (("train", TRAIN), ("test", TEST)):
        (root / part).mkdir()
        for place, image in enumerate(pictures(count)):
            Image.fromarray(image).save(root / part / f"{place:03}.png")
    return f"images:{root}"


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


# --- single images and classes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_images_at_places_are_those_of_the_examples(load, kind, part):
    slices = {"train": "train[5:40]", "validation": "train[40:]", "test": "test[3:]"}
    data = load(binarize=kind, seed=3, evaluation_seed=4, **slices)
    places = [4, 0, 9, 4]
    np.testing.assert_array_equal(data.images_at(part, places), data.examples(part)[0][places])


def test_images_at_places_count_from_the_start_of_the_slice(load):
    assert indices(load(train="train[15:]").images_at("train", np.array([0, 34]))) == [15, 49]


@pytest.mark.parametrize("kind", ["threshold", "stochastic", "none"])
@pytest.mark.parametrize("streaming", [False, True])
def test_images_at_places_of_a_folder_are_those_of_the_archive(load, folder, kind, streaming):
    arguments = {"train": "train[15:]", "binarize": kind, "batch_size": 20}
    of_folder = kvae.data.load(folder, **arguments, streaming=streaming)
    for part, places in (("train", [30, 2]), ("test", [19, 0, 7])):
        np.testing.assert_array_equal(of_folder.images_at(part, places), load(**arguments).images_at(part, places))


@pytest.mark.parametrize(
    ("places", "received"), [([50], 50), ([0, -1], -1), ([3, 60, 70], 60)], ids=["too high", "negative", "two"]
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_place_out_of_range_is_refused(folder, streaming, places, received):
    data = kvae.data.load(folder, batch_size=20, streaming=streaming)
    with pytest.raises(UserError, match=f"places of train images between 0 and 49. Received {received}"):
        data.images_at("train", places)


@pytest.mark.parametrize("streaming", [False, True])
def test_no_place_is_refused(folder, streaming):
    data = kvae.data.load(folder, batch_size=20, streaming=streaming)
    with pytest.raises(UserError, match="at least one place of a train image"):
        data.images_at("train", [])


@pytest.mark.parametrize("ask", [lambda data: data.images_at("tset", [0]), lambda data: data.places_of("tset", 0)])
def test_an_unknown_split_names_the_nearest(load, ask):
    with pytest.raises(UserError, match=r"Unknown split 'tset'\. Did you mean 'test'"):
        ask(load())


@pytest.mark.parametrize("streaming", [False, True])
def test_only_data_read_batch_by_batch_stream(folder, streaming):
    assert kvae.data.load(folder, batch_size=20, streaming=streaming).streams == streaming


PETS = ("Cat", "cow", "dog")


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> str:
    """Four pictures a class, a sub-folder each."""
    root = tmp_path_factory.mktemp("pets")
    for part in ("train", "test"):
        for place, image in enumerate(pictures(12)):
            (root / part / PETS[place // 4]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / part / PETS[place // 4] / f"{place:02}.png")
    return f"images:{root}"


@pytest.fixture(params=[False, True], ids=["memory", "stream"])
def named(request, pets):
    return kvae.data.load(pets, batch_size=4, train="train[2:]", streaming=request.param)


@pytest.mark.parametrize("label", [1, "1", np.int64(1), "cow", "COW"])
def test_a_class_is_found_by_number_and_by_name_in_any_case(named, label):
    assert named.places_of("test", label).tolist() == [4]


def test_places_of_a_class_are_at_most_as_many_as_asked_for(named):
    assert named.places_of("test", "dog", 3).tolist() == [8, 9, 10]


def test_places_of_a_class_are_no_more_than_there_are(named):
    assert named.places_of("test", "dog", 99).tolist() == [8, 9, 10, 11]


def test_places_of_a_class_count_from_the_start_of_the_slice(named):
    assert named.places_of("train", "cat", 4).tolist() == [0, 1]
    assert named.places_of("train", "cow", 4).tolist() == [2, 3, 4, 5]


def test_places_of_a_class_hold_images_of_it(named):
    places = named.places_of("test", "cow", 4)
    assert indices(named.images_at("test", places)) == [4, 5, 6, 7]


def test_a_class_without_a_name_is_found_by_its_number(load):
    assert load().places_of("test", 7).tolist() == [7]


def test_a_class_of_unlabelled_images_is_refused(folder):
    data = kvae.data.load(folder, batch_size=20)
    with pytest.raises(UserError, match="The test images have none"):
        data.places_of("test", 0)


def test_an_unknown_class_lists_each_class_once():
    data = kvae.data.load("mnist5k", train="train[:20]", test="test[:100]", batch_size=20)
    with pytest.raises(UserError) as refused:
        data.places_of("test", "ten")
    assert str(refused.value) == (
        "Unknown class of the test images 'ten'. Expected one of: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9."
    )


def test_an_unknown_class_lists_the_names_and_the_nearest(named):
    with pytest.raises(UserError) as refused:
        named.places_of("test", "dogs")
    assert str(refused.value) == (
        "Unknown class of the test images 'dogs'. Did you mean 'dog'? Expected one of: Cat, cow, dog."
    )


def test_a_class_that_the_slice_lacks_is_unknown(pets):
    with pytest.raises(UserError, match=r"Unknown class of the train images 'dog'.* Expected one of: Cat, cow\."):
        kvae.data.load(pets, batch_size=4, train="train[:8]").places_of("train", "dog")


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


def test_two_devices_share_every_image_once_an_epoch(archive):
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


def test_overlapping_validation_images_are_refused(load):
    for validation in ("train[40:]", "test"):
        with pytest.raises(UserError, match="separate from the training and test images"):
            load(validation=validation)


def test_testing_on_training_images_is_noted_in_the_protocol(load):
    assert "test images were trained on" in load(test="train[:5]").info.protocol["notes"]
