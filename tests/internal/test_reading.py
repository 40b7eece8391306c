"""`kvae.internal.reading`: only regular files, and none that is larger than expected."""

import gzip
import os

import pytest

from kvae.internal import reading
from kvae.internal.errors import UserError


@pytest.fixture
def place(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link to a pipe").symlink_to("pipe")
    return tmp_path


@pytest.mark.parametrize("name", ["file", "link"])
def test_a_file_or_a_link_to_one_is_read(place, name):
    assert reading.read_bytes(place / name, most=5) == b"12345"


REFUSED = {
    "pipe": "is a pipe or a device",
    "link to a pipe": "is a pipe or a device",
    "/dev/zero": "is a pipe or a device",
    "folder": "is a folder",
    "missing": "No such file",
    "loop": "Too many levels of symbolic links",
    "file/within": "Not a directory",
    "x" * 300: "File name too long",
    "nul\0": "null",
}


@pytest.mark.parametrize(("name", "message"), REFUSED.items(), ids=lambda text: text[:20].replace("\0", ""))
def test_what_is_no_file_is_refused_at_once(place, name, message):
    with pytest.raises(UserError, match=message):
        reading.read_bytes(place / name)


def test_a_file_that_is_too_large_is_refused_with_both_numbers(place):
    with pytest.raises(UserError, match=r"at most 4 bytes\. It has 5"):
        reading.read_bytes(place / "file", most=4)


def test_text_is_utf_8(place):
    (place / "file").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not text in UTF-8"):
        reading.read_text(place / "file")


def test_a_gzip_file_of_several_members_is_decompressed():
    content = gzip.compress(b"one") + gzip.compress(b"two") + b"\0" * 5
    assert reading.decompressed(content, 6, "a.gz") == b"onetwo"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(bytes(10_000_000)), "at most 1,000 bytes after decompression"),
        (gzip.compress(b"one")[:-3], "truncated"),
        (b"no gzip", "damaged"),
        (gzip.compress(b"one") + b"rest", "damaged"),
    ],
    ids=["too large", "truncated", "no gzip", "with a rest"],
)
def test_what_cannot_be_decompressed_is_refused(content, message):
    with pytest.raises(UserError, match=message):
        reading.decompressed(content, 1000, "a.gz")
