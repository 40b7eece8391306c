"""The order of images: that of a folder is the order of its classes, and no part of the dataset."""

import json

import numpy as np
import pytest
from source_files import greys, save_pictures

import kvae
from kvae import training
from kvae.data import open_source
from kvae.internal import files, sealed
from kvae.internal.errors import UserError
from kvae.training.config import RunConfig, of_run
from kvae.training.runs import Run


@pytest.fixture
def classes(tmp_path):
    """The source of three folders with 20 pictures each, whose grey is 10, 20 or 30 by class."""
    for place, name in enumerate("abc"):
        save_pictures(tmp_path / "pictures" / name, np.full((20, 2, 2), 10 * (place + 1), np.uint8))
    return f"images:{tmp_path / 'pictures'}"


def load(source, **options):
    return kvae.data.load(source, binarize="none", batch_size=5, **options)


def test_the_first_test_images_of_a_folder_are_of_several_classes(classes):
    _, labels = load(classes).examples("test")
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]
    assert len(set(labels[:3])) > 1
    assert sorted(labels) != labels.tolist()


def test_a_slice_of_a_folder_is_of_several_classes(classes):
    data = load(classes, train="train[:90%]", validation="train[90%:]")
    assert len(set(data.examples("validation")[1])) > 1


def test_shuffled_images_keep_their_labels_and_none_is_lost(classes):
    shuffled, ordered = (load(classes, order=order) for order in ("shuffled", "source"))
    for part in ("train", "test"):
        x, labels = shuffled.examples(part)
        np.testing.assert_array_equal(np.rint(x[:, 0, 0, 0] * 255), 10 * (labels + 1))
        np.testing.assert_array_equal(np.sort(labels), ordered.examples(part)[1])


def test_the_order_is_the_same_on_every_machine():
    """Recorded from `RandomState(0).permutation(9)` of NumPy, whose numbers never change."""
    x = np.arange(9, dtype=np.uint8).reshape(9, 1, 1)
    split = kvae.data.Split.from_arrays(x, np.arange(9)).shuffled()
    assert split.labels.tolist() == split.images[:, 0, 0, 0].tolist() == [7, 2, 1, 4, 8, 6, 3, 0, 5]


def test_a_stream_of_pictures_has_the_order_of_those_in_memory(tmp_path):
    for part in ("train", "test"):
        save_pictures(tmp_path / part / "a", greys(12))
        save_pictures(tmp_path / part / "b", 255 - greys(12))
    memory, stream = (load(f"images:{tmp_path}", streaming=streaming).examples("test") for streaming in (False, True))
    np.testing.assert_array_equal(stream[0], memory[0])
    np.testing.assert_array_equal(stream[1], memory[1])
    assert len(set(memory[1][:8])) == 2


@pytest.mark.parametrize("source", ["mnist5k", "npz"])
def test_a_dataset_with_its_own_test_split_keeps_its_order(source, tmp_path):
    if source == "npz":
        np.savez(tmp_path / "a.npz", x_train=greys(), x_test=greys(8))
        source = f"npz:{tmp_path / 'a.npz'}"
    splits = open_source(source).splits
    data = load(source)
    for part in ("train", "test"):
        np.testing.assert_array_equal(data.images_at(part, range(8)), splits[part].images[:8] / np.float32(255))
    assert "notes" not in data.info.protocol


def test_an_unknown_order_is_refused():
    with pytest.raises(UserError, match="Unknown order of images 'sorted'"):
        load("mnist5k", order="sorted")


@pytest.mark.parametrize(
    ("order", "notes"),
    [
        (
            "shuffled",
            "no test split in the source: a random tenth of it was held out, with the same share of each label, and "
            "all images are in a random order (seed 0)",
        ),
        ("source", "no test split in the source: a random tenth of it was held out (seed 0)"),
    ],
)
def test_the_protocol_says_how_the_order_was_made(classes, order, notes):
    assert load(classes, order=order).info.protocol["notes"] == [notes]


def test_the_protocol_promises_no_shares_where_classes_have_none(tmp_path):
    np.savez(tmp_path / "a.npz", images=greys(), labels=np.arange(20))
    notes = load(f"npz:{tmp_path / 'a.npz'}").info.protocol["notes"]
    assert notes == [
        "no test split in the source: a random tenth of it was held out, and all images are in a random order (seed 0)"
    ]


# --- runs of earlier versions, whose configuration has no order


def config(source, **training_options):
    return RunConfig.from_dict(
        {
            "data": {"source": source, "binarize": "threshold", "batch_size": 18},
            "model": {"hidden_units": [3]},
            "training": {"epochs": 1, "jit_compile": False, **training_options},
        }
    )


@pytest.mark.slow
def test_a_new_run_states_its_order(classes, tmp_path):
    run = training.train(config(classes), tmp_path / "run", verbose=0)
    assert json.loads((run.folder / "config.json").read_text())["config"]["data"]["order"] == "shuffled"


@pytest.mark.slow
def test_a_run_without_an_order_is_evaluated_and_resumed_in_that_of_its_source(classes, tmp_path):
    ordered = config(classes).model_dump()
    ordered["data"]["order"] = "source"
    run = training.train(RunConfig.from_dict(ordered), tmp_path / "run", verbose=0)
    for path in (run.folder / "config.json", *run.folder.glob("checkpoint/*/state.json")):
        content = json.loads(path.read_text())
        del content["config"]["data"]["order"]  # as earlier versions wrote it
        (sealed.write if path.name == "state.json" else files.write_json)(path, content)
    assert training.load_data(Run.open(run.folder).config).examples("test")[1].tolist() == [0, 0, 1, 1, 2, 2]
    longer = config(classes, epochs=2)  # a recipe that does not mention the order
    resumed = training.resume(run.folder, longer, verbose=0)
    assert resumed.config.data.order == "source"
    assert len(resumed.history()["epoch"]) == 2


def test_a_file_of_a_run_means_what_it_meant():
    values = RunConfig().to_dict()
    assert of_run(values).data.order == "shuffled"
    del values["data"]["order"]
    assert of_run(values).data.order == "source"
