"""Files that would be read for ever or fill the memory: pipes, devices, and small files that unpack to large ones."""

import gzip
import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from source_files import greys, idx_bytes

from kvae.completion import masks
from kvae.data import open_source
from kvae.data.sources import csv
from kvae.internal import memory, reading
from kvae.internal.errors import UserError


def idx_folder(path: Path) -> str:
    """A folder whose training images are a link to `path`."""
    folder = path.parent / "idx"
    folder.mkdir(exist_ok=True)
    (folder / "train-images-idx3-ubyte.gz").symlink_to(path)
    return f"idx:{folder}"


def picture_folder(path: Path) -> str:
    (path.parent / "images").mkdir()
    (path.parent / "images" / "a.png").symlink_to(path)
    return f"images:{path.parent / 'images'}"


READERS = {
    "csv": lambda path: open_source(f"csv:{path}"),
    "csv.gz": lambda path: open_source(f"csv:{path}"),
    "idx": lambda path: open_source(idx_folder(path)),
    "npz": lambda path: open_source(f"npz:{path}"),
    "images": lambda path: open_source(picture_folder(path)),
    "images, streamed": lambda path: open_source(picture_folder(path), streaming=True),
    "mask": lambda path: masks.named(str(path), (4, 4, 1)),
}


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_closed_input(path: Path) -> None:
    path.symlink_to("/dev/stdin")


SPECIAL = {
    "a pipe without a writer": make_pipe,
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "the standard input": make_closed_input,
    "a folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, reader, kind):
    path = tmp_path / ("a.csv.gz" if reader == "csv.gz" else "a.png")
    SPECIAL[kind](path)
    with pytest.raises(UserError) as caught:
        READERS[reader](path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["n" * 300, "\0", "a\0b"], ids=["too long", "null", "null within"])
@pytest.mark.parametrize("kind", ["csv", "idx", "npz", "images"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, kind, name):
    with pytest.raises(UserError):
        open_source(f"{kind}:{tmp_path}/{name}")


# --- sizes

MEMORY = 2**20  # bytes of the machine in these tests


def unpacked_zeros(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(64 * MEMORY)))


def many_rows(path: Path) -> None:
    path.write_bytes(gzip.compress(b"1,2,3,4\n" * MEMORY, 1))


def long_line(path: Path) -> None:
    path.write_bytes(gzip.compress(b"1," * 4 * MEMORY, 1))


def large_text(path: Path) -> None:
    path.write_bytes(b"1,2,3,4\n" * (MEMORY // 8))


def header_of(*shape: int):
    return lambda path: path.write_bytes(b"\0\0\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes())


def packed_header_of(*shape: int):
    def write(path: Path) -> None:
        header_of(*shape)(path)
        path.write_bytes(gzip.compress(path.read_bytes() + bytes(64 * MEMORY)))

    return write


def npz_of(shape: str, content: int, stated: int | None = None):
    """An archive of an array with this shape in its header and as many zeros, and with a stated size of its member."""

    def write(path: Path) -> None:
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
            archive.writestr("x_train.npy", start + header + bytes(content))
        data = bytearray(buffer.getvalue())
        if stated is not None:
            place = data.index(b"PK\x01\x02") + 24  # the size in the central directory
            data[place : place + 4] = (128 + stated).to_bytes(4, "little")
        path.write_bytes(data)

    return write


LARGE = {
    "gzip of zeros as csv": ("csv.gz", unpacked_zeros, "a first line of at most"),
    "gzip of many rows": ("csv.gz", many_rows, "at most 104,857 bytes after decompression"),
    "gzip of one line": ("csv.gz", long_line, "a first line of at most"),
    "large csv": ("csv", large_text, "at most 104,857 bytes. It has 1,048,576"),
    "gzip of zeros as idx": ("idx", unpacked_zeros, "type 8"),
    "idx header": ("idx", header_of(2**32 - 1, 2**32 - 1, 2**32 - 1), "needs at least [0-9,.]* GB"),
    "idx header, packed": ("idx", packed_header_of(2**16, 28, 28), "needs at least [0-9,.]* GB"),
    "idx with more than its header says": ("idx", packed_header_of(10, 28, 28), "at most 7,856 bytes after"),
    "npz bomb": ("npz", npz_of(f"({64 * MEMORY}, 1, 1)", 64 * MEMORY), "needs at least 0.1 GB"),
    "npz header of more": ("npz", npz_of("(1000000000, 28, 28)", 100), "should have 784000000000 bytes"),
    "npz header of less": ("npz", npz_of("(1, 1, 1)", 64 * MEMORY), "should have 1 bytes"),
    "npz member that lies": ("npz", npz_of("(2000000000, 1, 1)", 100, 2 * 10**9), "needs at least 4.0 GB"),
    "negative axis": ("npz", npz_of("(-10, -10, 1)", 100), "should have 100 bytes"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_what_does_not_fit_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch, kind):
    reader, make, message = LARGE[kind]
    path = tmp_path / ("a.csv.gz" if reader == "csv.gz" else "a.dat")
    make(path)
    monkeypatch.setattr(memory, "available", lambda: MEMORY)
    monkeypatch.setattr(csv, "LINE", 2**18)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message):
            READERS[reader](path)
        assert tracemalloc.get_traced_memory()[1] < 4 * MEMORY
    finally:
        tracemalloc.stop()


WIDE = {
    "long first line": (b"1," * (csv.LINE // 2 + 1), "a first line of at most 4,194,320 bytes"),
    "many columns": (b"1," * csv.COLUMNS + b"1\n", "at most 262,145 columns. Received 262,146"),
    "NUL": (b"1,2,\0,4\n1,2,3,4\n", "a NUL byte"),
    "NUL in a later row": (b"1,2,3,4\n1,2,\0,4\n", "column 3 of row 2"),
    "UTF-16": ("1,2,3,4\n".encode("utf-16"), "UTF-16"),
    "an open quote": (b'"1,2,3,4\n1,2,3,4\n', r"a\.csv"),
    "quotes in quotes": (b'"""1""",2,3,4\n', r"a\.csv"),
    "a line break in quotes": (b'"1\n",2,3,4\n1,2,3,4\n', r"a\.csv"),
}


@pytest.mark.parametrize("kind", WIDE)
def test_a_csv_file_with_a_strange_line_is_refused(tmp_path, kind):
    content, message = WIDE[kind]
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        open_source(f"csv:{tmp_path / 'a.csv'}")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


def test_names_in_an_archive_stay_in_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("a\nb", *("x" * 1000 + str(number) for number in range(20))):
            archive.writestr(f"{name}.npy", b"")
    with pytest.raises(UserError, match=r"Received 'a\\nb', 'xxx.*\.\.\.\.$") as caught:
        open_source(f"npz:{tmp_path / 'a.npz'}")
    assert len(str(caught.value)) < 800


@pytest.mark.slow
def test_a_row_may_be_longer_than_a_megabyte(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(["255"] * 512**2))
    assert csv.read_csv(tmp_path / "a.csv").images.shape == (1, 512, 512, 1)


@pytest.mark.parametrize("newline", ["\r", "\n", "\r\n"])
def test_lines_may_end_in_any_way(tmp_path, newline):
    (tmp_path / "a.csv").write_bytes(newline.join(["9,2,3,4", "5,6,7,8"]).encode())
    assert csv.read_csv(tmp_path / "a.csv").images.ravel().tolist() == [9, 2, 3, 4, 5, 6, 7, 8]


def test_a_gzip_file_of_many_members_is_read_in_linear_time(tmp_path):
    # With the rest of the file copied for each member, this would take minutes.
    content = gzip.compress(b"1") * 50_000
    assert reading.decompressed(content, 50_000, "a.gz") == b"1" * 50_000


def test_a_gzip_file_may_be_padded_with_zeros():
    assert reading.decompressed(gzip.compress(b"1") + bytes(99) + gzip.compress(b"2") + bytes(9), 2, "a") == b"12"


def test_files_of_macos_beside_idx_files_are_left_out(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(greys()))
    (tmp_path / "._train-images-idx3-ubyte").write_bytes(b"Mac OS X")
    assert open_source(f"idx:{tmp_path}").splits["train"].count == 18


def test_a_mask_is_a_picture_of_a_known_format(tmp_path):
    Image.fromarray(greys(1)[0]).save(tmp_path / "a.png", "PPM")
    with pytest.raises(UserError, match="Expected one of the formats PNG"):
        masks.named(str(tmp_path / "a.png"), (4, 4, 1))


def test_the_memory_is_at_most_that_of_the_container(tmp_path, monkeypatch):
    (tmp_path / "limit").write_text("12345\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", (tmp_path / "none", tmp_path / "limit", tmp_path / "absent"))
    assert memory.available() == 12345
