"""Datasets of TensorFlow Datasets whose files on the disk are damaged."""

from pathlib import Path

import pytest
from small_tfds import COUNT

import kvae.data
from kvae.data import open_source
from kvae.internal.errors import UserError


def test_the_small_dataset_is_read_as_the_real_one_is(mnist):
    splits = open_source("mnist").splits
    assert splits["train"].images[:, 0, 0, 0].tolist() == [10 * place for place in range(COUNT)]
    assert splits["test"].labels.tolist() == [place % 10 for place in range(COUNT)]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(old: str, new: str):
    def change(path: Path) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def write(text: str):
    return lambda path: path.write_text(text)


RECORDS = {
    "cut": cut,
    "flipped": flip,
    "empty": write(""),
    "missing": Path.unlink,
    "no records": write("these are no records at all"),
}
DESCRIPTIONS = {
    "cut": cut,
    "empty": write(""),
    "no object": write("[1, 2]"),
    "binary zeros": write("\0" * 100),
    "no splits": write('{"name": "mnist", "version": "3.0.1"}'),
    "fewer images": rewrite('"12"', '"1"'),
    "more images": rewrite('"12"', '"13"'),
    "very many images": rewrite('"12"', '"9223372036854775807"'),
    "a negative count": rewrite('"12"', '"-12"'),
    "another format": rewrite('"tfrecord"', '"nothing"'),
}


def assert_refused(function) -> None:
    with pytest.raises(UserError, match="mnist") as caught:
        function()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("kind", RECORDS)
def test_damaged_records_are_refused_in_one_line(mnist, kind, part):
    RECORDS[kind](mnist / f"mnist-{part}.tfrecord-00000-of-00001")
    assert_refused(lambda: open_source("mnist"))


@pytest.mark.parametrize("kind", RECORDS)
def test_damaged_test_records_of_a_stream_are_refused_before_the_training(mnist, kind):
    RECORDS[kind](mnist / "mnist-test.tfrecord-00000-of-00001")
    assert_refused(lambda: kvae.data.load("mnist", batch_size=5, streaming=True))


@pytest.mark.parametrize("kind", RECORDS)
def test_damaged_training_records_of_a_stream_are_refused_by_a_check(mnist, kind):
    RECORDS[kind](mnist / "mnist-train.tfrecord-00000-of-00001")
    data = kvae.data.load("mnist", batch_size=5, streaming=True)
    assert_refused(lambda: data.check("train"))


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_damaged_description_is_refused_in_one_line(mnist, kind):
    DESCRIPTIONS[kind](mnist / "dataset_info.json")
    assert_refused(lambda: open_source("mnist"))


@pytest.mark.parametrize("damage", [cut, write(""), rewrite('"28"', '"29"')], ids=["cut", "empty", "another size"])
def test_a_damaged_list_of_features_has_no_consequence(mnist, damage):
    damage(mnist / "features.json")  # TFDS has the features of mnist in its code
    assert open_source("mnist").splits["train"].images[:, 0, 0, 0].tolist() == [10 * place for place in range(COUNT)]
