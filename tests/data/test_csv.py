"""The reader of csv files, whole, wrong and damaged."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_files import DAMAGE, FUZZ, SQUARES, assert_reads_or_refuses, binary_scaled, damaged, greys

from kvae.data import open_source
from kvae.internal.errors import UserError

HEADER = "label,pixel0,pixel1,pixel2,pixel3"


def csv_text(images: np.ndarray, labels: np.ndarray | None = None, header: bool = False) -> str:
    rows = images.reshape(len(images), -1).astype(int)
    names = [f"pixel{column}" for column in range(rows.shape[1])]
    if labels is not None:
        rows, names = np.column_stack([labels, rows]), ["label", *names]
    lines = [",".join(map(str, row)) for row in rows.tolist()]
    return "\n".join([",".join(names), *lines] if header else lines) + "\n"


@pytest.mark.parametrize("name", ["digits.csv", "digits.csv.gz"])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("labelled", [True, False])
def test_csv_round_trip(tmp_path, name, header, labelled):
    labels = np.arange(20) if labelled else None
    content = csv_text(greys(), labels, header).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    train = open_source(f"csv:{tmp_path / name},{tmp_path / name}").splits["train"]
    np.testing.assert_array_equal(train.images[..., 0], greys())
    np.testing.assert_array_equal(train.labels, labels)


def test_csv_train_and_test_are_two_files(tmp_path):
    (tmp_path / "a.csv").write_text(csv_text(greys()))
    (tmp_path / "b.csv").write_text(csv_text(greys(5)))
    splits = open_source(f"csv:{tmp_path / 'a.csv'},{tmp_path / 'b.csv'}").splits
    assert {part: split.count for part, split in splits.items()} == {"train": 20, "test": 5}


def test_csv_alone_has_a_tenth_held_out(tmp_path):
    (tmp_path / "a.csv").write_text(csv_text(greys()))
    splits = open_source(f"csv:{tmp_path / 'a.csv'}").splits
    assert {part: split.count for part, split in splits.items()} == {"train": 18, "test": 2}


def test_csv_columns_are_found_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("pixel3,pixel1,label,pixel0,pixel2\n40,20,7,10,30\n41,21,8,11,31\n")
    train = open_source(f"csv:{tmp_path / 'a.csv'},{tmp_path / 'a.csv'}").splits["train"]
    assert train.images[..., 0].tolist() == [[[10, 20], [30, 40]], [[11, 21], [31, 41]]]
    assert train.labels.tolist() == [7, 8]


def test_csv_of_one_and_zero_is_black_and_white(tmp_path):
    (tmp_path / "a.csv").write_text("0,1,1,0\n1,0,0,1\n")
    train = open_source(f"csv:{tmp_path / 'a.csv'},{tmp_path / 'a.csv'}").splits["train"]
    assert train.images[..., 0].tolist() == [[[0, 255], [255, 0]], [[255, 0], [0, 255]]]


NINE = ",".join(f"pixel{column}" for column in range(9) if column != 4)
BAD_CSV = {
    "missing column": (f"{NINE}\n1,2,3,4,5,6,7,8\n", "pixel4 is missing"),
    "missing last column": ("pixel0,pixel1,pixel2\n1,2,3\n", "square number of pixel columns. Received 3"),
    "repeated column": ("pixel0,pixel1,pixel1,pixel2\n1,2,3,4\n", "every column once"),
    "unknown column": ("id,pixel0\n1,2\n", "Received 'id' among 2 columns"),
    "column without a number": ("pixelfoo,pixel0\n1,2\n", "columns pixel0, pixel1, .*Received 'pixelfoo'"),
    "pixel number beyond all sense": (f"pixel0,pixel{'9' * 5000}\n1,2\n", r"a\.csv"),
    "no square": ("1,2,3\n4,5,6\n", "square number of pixels"),
    "text in a pixel": (f"{HEADER}\n1,2,3,4,5\n1,2,oops,4,5\n", "column 3 of row 2. Received 'oops'"),
    "text in a label": (f"{HEADER}\n1,2,3,4,5\ncat,2,3,4,5\n", "column 1 of row 2. Received 'cat'"),
    "fraction in a label": (f"{HEADER}\n1.5,2,3,4,5\n", "whole numbers as labels"),
    "infinity in a label": (f"{HEADER}\ninf,2,3,4,5\n", "whole numbers as labels"),
    "short row": (f"{HEADER}\n1,2,3,4,5\n1,2,3,4\n", "same length"),
    "long row": (f"{HEADER}\n1,2,3,4,5\n1,2,3,4,5,6\n", "same length"),
    "header of another width": (f"{HEADER}\n1,2,3,4\n", "expected 5 columns"),
    "empty cell": (f"{HEADER}\n1,2,3,4,5\n1,2,,4,5\n", "column 3 of row 2. Received ''"),
    "above the range": (f"{HEADER}\n1,2,3,4,256\n", "Received 256"),
    "below the range": (f"{HEADER}\n1,2,3,4,-1\n", "Received -1"),
    "fraction above 1": (f"{HEADER}\n1,200,100,1.5,50\n", "Received 1.5"),
    "NaN": (f"{HEADER}\n1,2,3,4,nan\n", "finite"),
    "infinity": (f"{HEADER}\n1,2,3,4,inf\n", "finite"),
    "empty file": ("", "is empty"),
    "blank file": ("\n\n", "is empty"),
    "header only": (f"{HEADER}\n", "a.csv"),
}


@pytest.mark.parametrize("fault", BAD_CSV)
def test_bad_csv_is_refused(tmp_path, fault):
    content, message = BAD_CSV[fault]
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        open_source(f"csv:{tmp_path / 'a.csv'},{tmp_path / 'a.csv'}")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_binary_garbage_as_csv_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(range(255, -1, -1)) * 4)
    with pytest.raises(UserError, match=name):
        open_source(f"csv:{tmp_path / name}")


def test_truncated_gzip_as_csv_is_refused(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(csv_text(greys(200)).encode())[:-100])
    with pytest.raises(UserError, match=r"a\.csv\.gz"):
        open_source(f"csv:{tmp_path / 'a.csv.gz'}")


@pytest.mark.parametrize("files", ["a.csv,b.csv,c.csv", "a.csv,", ",a.csv"])
def test_csv_wants_one_or_two_files(files):
    with pytest.raises(UserError, match="csv:TRAIN,TEST"):
        open_source(f"csv:{files}")


def test_csv_splits_of_different_sizes_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text(csv_text(greys()))
    (tmp_path / "b.csv").write_text(csv_text(greys(side=5)))
    with pytest.raises(UserError, match="one size"):
        open_source(f"csv:{tmp_path / 'a.csv'},{tmp_path / 'b.csv'}")


@FUZZ
@given(images=SQUARES, header=st.booleans())
def test_csv_round_trips_any_bytes(tmp_path, images, header):
    (tmp_path / "a.csv").write_text(csv_text(images, np.arange(len(images)), header))
    train = open_source(f"csv:{tmp_path / 'a.csv'},{tmp_path / 'a.csv'}").splits["train"]
    np.testing.assert_array_equal(train.images[..., 0], binary_scaled(images))


@FUZZ
@given(content=st.binary(max_size=60) | st.text("0123456789.,-enaipxl\"'\r\n ", max_size=60).map(str.encode))
def test_arbitrary_bytes_as_csv_are_read_or_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    assert_reads_or_refuses(f"csv:{tmp_path / 'a.csv'},{tmp_path / 'a.csv'}")


@FUZZ
@given(damage=DAMAGE, header=st.booleans(), suffix=st.sampled_from(["", ".gz"]))
def test_damaged_csv_is_read_or_refused(tmp_path, damage, header, suffix):
    content = csv_text(greys(), np.arange(20), header).encode()
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(damaged(gzip.compress(content) if suffix else content, damage))
    assert_reads_or_refuses(f"csv:{path},{path}")


def test_csv_with_the_label_last_is_refused(tmp_path):
    rows = [",".join([*map(str, image.ravel()), str(n % 10)]) for n, image in enumerate(greys(30))]
    rows = ["0," + row.split(",", 1)[1] for row in rows]  # the first pixel is black, as the corner of a digit is
    (tmp_path / "a.csv").write_text("\n".join(rows))
    with pytest.raises(UserError, match="label in the first column"):
        open_source(f"csv:{tmp_path / 'a.csv'}")


def test_black_and_white_pictures_of_one_class_are_read(tmp_path):
    rows = [f"7,{a},{b},{c},{d}" for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)]
    (tmp_path / "one.csv").write_text("\n".join(rows))
    source = open_source(f"csv:{tmp_path / 'one.csv'}")
    assert source.splits["train"].image_shape == (2, 2, 1)


def test_black_and_white_pictures_with_the_label_last_are_refused(tmp_path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 2, (40, 4))
    pixels[:, 0] = 0  # a corner that is always black looks like the label of one class
    rows = [",".join(map(str, [*row, n % 10])) for n, row in enumerate(pixels)]
    (tmp_path / "last.csv").write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"first column.*label, pixel0"):
        open_source(f"csv:{tmp_path / 'last.csv'}")
