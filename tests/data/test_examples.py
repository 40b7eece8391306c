"""Single images of a dataset, found by their place or class."""

import numpy as np
import pytest
from indexed_images import TEST, TRAIN, gathered, indices, pictures
from PIL import Image

import kvae.data
from kvae.data.binarization import KINDS
from kvae.internal.errors import UserError

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


def test_batches_are_the_examples_a_few_at_a_time(load):
    data = load(binarize="stochastic", train="train[5:40]", seed=3)
    batches = list(data.batches("train", 9, 4))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    np.testing.assert_array_equal(np.concatenate(batches), data.examples("train", 9)[0])


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
    of_folder = kvae.data.load(folder, order="source", **arguments, streaming=streaming)
    for part, places in (("train", [30, 2]), ("test", [19, 0, 7])):
        np.testing.assert_array_equal(of_folder.images_at(part, places), load(**arguments).images_at(part, places))


@pytest.mark.parametrize(
    ("places", "received"), [([50], 50), ([0, -1], -1), ([3, 60, 70], 60)], ids=["too high", "negative", "two"]
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_place_out_of_range_is_refused(folder, streaming, places, received):
    data = kvae.data.load(folder, order="source", batch_size=20, streaming=streaming)
    with pytest.raises(UserError, match=f"indices of train images from 0 to 49. Received {received}"):
        data.images_at("train", places)


@pytest.mark.parametrize("streaming", [False, True])
def test_no_place_is_refused(folder, streaming):
    data = kvae.data.load(folder, order="source", batch_size=20, streaming=streaming)
    with pytest.raises(UserError, match="at least one index of a train image"):
        data.images_at("train", [])


@pytest.mark.parametrize("ask", [lambda data: data.images_at("tset", [0]), lambda data: data.places_of("tset", 0)])
def test_an_unknown_split_names_the_nearest(load, ask):
    with pytest.raises(UserError, match=r"Unknown split 'tset'\. Did you mean 'test'"):
        ask(load())


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
    return kvae.data.load(pets, order="source", batch_size=4, train="train[2:]", streaming=request.param)


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
    data = kvae.data.load(folder, order="source", batch_size=20)
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
        kvae.data.load(pets, order="source", batch_size=4, train="train[:8]").places_of("train", "dog")
