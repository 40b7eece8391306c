"""The reader of npz files, whole, wrong and damaged; objects in them are never unpickled."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from source_files import DAMAGE, FUZZ, SQUARES, assert_reads_or_refuses, binary_scaled, damaged, greys

from kvae.data import open_source
from kvae.internal.errors import UserError


def npz(folder: Path, **named: np.ndarray) -> str:
    np.savez(folder / "a.npz", **named)
    return f"npz:{folder / 'a.npz'}"


def test_npz_keras_layout(tmp_path):
    labels = np.arange(20)
    splits = open_source(npz(tmp_path, x_train=greys(), y_train=labels, x_test=greys(5), y_test=labels[:5])).splits
    for part, count in (("train", 20), ("test", 5)):
        np.testing.assert_array_equal(splits[part].images[..., 0], greys(count))
        np.testing.assert_array_equal(splits[part].labels, labels[:count])


@pytest.mark.parametrize(
    "stored",
    [
        greys(),
        greys().reshape(20, 16),
        greys()[..., None],
        greys().astype(np.int64),
        greys().astype(np.float32),
        (greys() / 255).astype(np.float32),
    ],
    ids=["bytes", "flat rows", "channel axis", "int64", "float 0..255", "float 0..1"],
)
def test_npz_pixels_of_any_form_become_the_same_bytes(tmp_path, stored):
    splits = open_source(npz(tmp_path, x_train=stored, x_test=stored)).splits
    np.testing.assert_array_equal(splits["train"].images[..., 0], greys())


def test_npz_fractions_are_rounded_to_the_nearest_byte(tmp_path):
    fractions = np.array([0.0, 0.4, 0.6, 127.5 - 1e-6, 254.6, 255.0]).reshape(6, 1, 1) / 255
    splits = open_source(npz(tmp_path, x_train=fractions, x_test=fractions)).splits
    assert splits["train"].images.ravel().tolist() == [0, 0, 1, 127, 255, 255]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float64])
def test_npz_of_one_and_zero_is_black_and_white(tmp_path, dtype):
    bits = (greys() > 127).astype(dtype)
    splits = open_source(npz(tmp_path, x_train=bits, x_test=bits)).splits
    np.testing.assert_array_equal(splits["train"].images[..., 0], (greys() > 127) * 255)


def test_npz_images_and_labels_have_a_tenth_held_out(tmp_path):
    splits = open_source(npz(tmp_path, images=greys(), labels=np.arange(20))).splits
    np.testing.assert_array_equal(splits["train"].images[..., 0], greys()[splits["train"].labels])
    assert {part: split.count for part, split in splits.items()} == {"train": 18, "test": 2}


def test_npz_keeps_colour(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 3), np.uint8)
    np.testing.assert_array_equal(open_source(npz(tmp_path, x=colour, x_test=colour)).splits["train"].images, colour)


class Bomb:
    """Unpickling one writes the file that it names."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


def test_the_bomb_goes_off_when_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "harm"))).close()
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["x_train", "y_train"])
def test_npz_of_pickled_objects_is_refused_and_never_unpickled(tmp_path, name):
    contents = {"x_train": greys(), "y_train": np.arange(20), name: np.array([Bomb(tmp_path / "harm")] * 20, object)}
    with pytest.raises(UserError, match="pickled objects"):
        open_source(npz(tmp_path, **contents))
    assert not (tmp_path / "harm").exists()


def test_a_bare_pickle_is_refused_and_never_unpickled(tmp_path):
    (tmp_path / "a.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))
    with pytest.raises(UserError, match=r"a\.npz"):
        open_source(f"npz:{tmp_path / 'a.npz'}")
    assert not (tmp_path / "harm").exists()


def test_objects_beside_the_images_are_left_alone(tmp_path):
    source = open_source(npz(tmp_path, x_train=greys(), extra=np.array([Bomb(tmp_path / "harm")], object)))
    assert source.splits["train"].count == 18
    assert not (tmp_path / "harm").exists()


BAD_ARRAYS = {
    "missing images": ({"pictures": greys()}, "expected an array called x_train"),
    "NaN": ({"x_train": np.full((20, 4, 4), np.nan)}, "finite"),
    "above the range": ({"x_train": np.full((20, 4, 4), 256)}, "Received 256"),
    "below the range": ({"x_train": np.full((20, 4, 4), -0.5)}, "Received -0.5"),
    "text": ({"x_train": np.full((20, 4, 4), "a")}, "numbers as pixels"),
    "no square": ({"x_train": np.zeros((20, 15))}, r"\(20, 15\)"),
    "rows of no pixel": ({"x_train": np.zeros((20, 0))}, r"\(20, 0\)"),
    "no image": ({"x_train": np.zeros((0, 4, 4))}, r"\(0, 4, 4\)"),
    "one number": ({"x_train": np.zeros(())}, r"\(\)"),
    "five axes": ({"x_train": np.zeros((20, 4, 4, 1, 1))}, r"\(20, 4, 4, 1, 1\)"),
    "labels of another number": ({"x_train": greys(), "y_train": np.arange(19)}, "one label per image"),
    "fractions as labels": ({"x_train": greys(), "y_train": np.arange(20) + 0.5}, "whole numbers as labels"),
    "infinity as label": ({"x_train": greys(), "y_train": np.full(20, np.inf)}, "whole numbers as labels"),
    "another size in test": ({"x_train": greys(), "x_test": greys(side=5)}, "one size"),
    "a single image": ({"x_train": greys(1)}, "at least 2 images"),
}


@pytest.mark.parametrize("fault", BAD_ARRAYS)
def test_bad_arrays_are_refused(tmp_path, fault):
    contents, message = BAD_ARRAYS[fault]
    with pytest.raises(UserError, match=message):
        open_source(npz(tmp_path, **contents))


def savez_bytes(folder: Path, save=np.savez) -> bytes:
    save(folder / "good.npz", x_train=greys(), y_train=np.arange(20))
    return (folder / "good.npz").read_bytes()


def zip_header_patched(offset: int, value: int):
    """A function that sets one byte of the central directory's first entry, where zipfile reads it."""

    def patch(good: bytes) -> bytes:
        place = good.index(b"PK\x01\x02") + offset
        return good[:place] + bytes([value]) + good[place + 1 :]

    return patch


def first_npy_header(**values: str):
    """A function that makes a .npz whose array has these words in its header and no data."""

    def make(good: bytes) -> bytes:
        words = {"descr": "'|u1'", "fortran_order": "False", "shape": "(20, 4, 4)"} | values
        header = ("{" + ", ".join(f"'{key}': {value}" for key, value in words.items()) + "}").ljust(117).encode()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        return buffer.getvalue()

    return make


BAD_NPZ = {
    "not a zip": (lambda good: b"these are no arrays", "npz archive"),
    "empty file": (lambda good: b"", "npz archive"),
    "truncated": (lambda good: good[: len(good) // 2], "npz archive"),
    "a damaged byte": (lambda good: good[:250] + bytes([good[250] ^ 255]) + good[251:], "npz archive"),
    "encrypted": (zip_header_patched(8, 1), "npz archive"),
    "unknown compression": (zip_header_patched(10, 99), "npz archive"),
    "more pixels than memory": (first_npy_header(shape=f"({2**46}, 28, 28)"), "npz archive"),
    "more pixels than int64": (first_npy_header(shape=f"({2**64}, 28, 28)"), "npz archive"),
    "unbalanced header": (first_npy_header(shape="(20, 4, 4"), "npz archive"),
}


@pytest.mark.parametrize("fault", BAD_NPZ)
def test_bad_npz_is_refused(tmp_path, fault):
    damage, message = BAD_NPZ[fault]
    (tmp_path / "a.npz").write_bytes(damage(savez_bytes(tmp_path)))
    with pytest.raises(UserError, match=message):
        open_source(f"npz:{tmp_path / 'a.npz'}")


def test_a_zip_of_text_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_train", "no array")
    with pytest.raises(UserError, match=r"a\.npz"):
        open_source(f"npz:{tmp_path / 'a.npz'}")


def test_a_single_array_is_no_archive(tmp_path):
    np.save(tmp_path / "a.npy", greys())
    with pytest.raises(UserError, match="single array"):
        open_source(f"npz:{tmp_path / 'a.npy'}")


@FUZZ
@given(images=SQUARES, flat=st.booleans())
def test_npz_round_trips_any_bytes(tmp_path, images, flat):
    stored = images.reshape(len(images), -1) if flat else images
    splits = open_source(npz(tmp_path, x_train=stored, x_test=stored)).splits
    np.testing.assert_array_equal(splits["train"].images[..., 0], binary_scaled(images))


@FUZZ
@given(content=st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"PK\x03\x04" + tail))
@example(content=b"\x80\x05.")
def test_arbitrary_bytes_as_npz_are_read_or_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    assert_reads_or_refuses(f"npz:{tmp_path / 'a.npz'}")


@FUZZ
@given(damage=DAMAGE, save=st.sampled_from([np.savez, np.savez_compressed]))
def test_damaged_npz_is_read_or_refused(tmp_path, damage, save):
    (tmp_path / "a.npz").write_bytes(damaged(savez_bytes(tmp_path, save), damage))
    assert_reads_or_refuses(f"npz:{tmp_path / 'a.npz'}")


def test_fractions_that_are_rounded_to_one_stay_dark(tmp_path):
    images = np.full((20, 2, 2), 0.005, np.float32)
    source = open_source(npz(tmp_path, x_train=images, x_test=images))
    assert source.splits["train"].images.max() == 1
