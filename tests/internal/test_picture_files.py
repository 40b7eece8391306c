"""Reading of picture files: which formats, what happens to damaged ones, and in which orientation."""

import io
import logging
import os
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from kvae.internal import picture_files
from kvae.internal.errors import UserError

GREY = dict.fromkeys(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"), "L")
Image.init()
# Those that Pillow writes itself, without MPO, which is JPEG with further pictures.
OTHERS = sorted(set(Image.SAVE) - {*picture_files.FORMATS, "MPO", "BUFR", "GRIB", "HDF5", "WMF"})


def picture(size=(6, 4), mode="RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(format, image=None, **options) -> bytes:
    """A picture in a format, in the first mode that it can have."""
    file = io.BytesIO()
    for mode in ("RGB", "L", "1", "RGBA", "P") if image is None else (image.mode,):
        try:
            (picture(mode=mode) if image is None else image).save(file, format, **options)
            return file.getvalue()
        except (OSError, ValueError, KeyError):
            file = io.BytesIO()
    return pytest.skip(f"this Pillow does not write {format}")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *before: bytes) -> bytes:
    """A grey PNG file with this size in its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"".join((chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("format", picture_files.FORMATS)
def test_each_format_is_read_whatever_the_name_is(tmp_path, format):
    (tmp_path / "a.xyz").write_bytes(encoded(format))
    assert picture_files.read(tmp_path / "a.xyz", GREY).size == (6, 4)
    header = picture_files.header(tmp_path / "a.xyz")
    assert (header.format, header.size, header.turned) == (format, (6, 4), False)


@pytest.mark.parametrize("format", OTHERS)
@pytest.mark.parametrize("function", [picture_files.header, lambda path: picture_files.read(path, GREY)])
def test_other_formats_are_refused_and_start_no_program(tmp_path, monkeypatch, format, function):
    def started(*_, **__):
        pytest.fail("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    (tmp_path / "a.png").write_bytes(encoded(format))
    formats = "PNG, JPEG, BMP, GIF, TIFF, WEBP"
    with pytest.raises(UserError, match=rf"a\.png as a picture\. Expected .*{formats}\. It begins"):
        function(tmp_path / "a.png")


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"no picture", "begins with b'no picture'"),
    "truncated": (encoded("PNG")[:-30], r"a\.png"),
    "text bomb": (png(4, 4, b"\0" * 20, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"0" * 2**21))), "too large"),
    "damaged data": (png(4, 4, b"\0" * 20).replace(zlib.compress(b"\0" * 20), b"\xff" * 11), r"a\.png"),
    "no data": (png(400, 400, b""), "truncated"),
    "too many pixels": (png(4097, 4096, b""), "at most 16,777,216 pixels.* has 4097 x 4096"),
    "far too many pixels": (png(2**31 - 1, 2**31 - 1, b""), r"a\.png as a picture: Image size"),
    "no pixels": (png(0, 0, b""), r"a\.png"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_damaged_picture_is_refused_in_one_line(tmp_path, capfd, fault):
    content, message = BAD[fault]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        picture_files.read(tmp_path / "a.png", GREY)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", None])
def test_damaged_tiff_files_print_nothing(tmp_path, capfd, recwarn, compression):
    content = encoded("TIFF", compression=compression)
    generator, refused = np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in generator.integers(len(content), size=3):
            damaged[place] = generator.integers(256)
        (tmp_path / "a.tif").write_bytes(damaged)
        try:
            picture_files.read(tmp_path / "a.tif", GREY)
        except UserError:
            refused += 1
    assert refused > 20
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("handlers", [[], [logging.StreamHandler]], ids=["no handler", "handler"])
def test_what_pillow_logs_of_a_damaged_file_is_not_printed(tmp_path, capfd, monkeypatch, handlers):
    """With a handler of the root logger too, which TensorFlow adds when it saves a model."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler() for handler in handlers])  # without those of pytest
    entry = struct.pack("<HHIHH", 277, 3, 1, 3, 0)  # three samples per pixel
    content = encoded("TIFF", picture())
    assert entry in content
    (tmp_path / "a.tif").write_bytes(content.replace(entry, struct.pack("<HHIHH", 277, 3, 1, 127, 0)))
    with pytest.raises(UserError, match=r"a\.tif"):
        picture_files.read(tmp_path / "a.tif", GREY)
    assert capfd.readouterr() == ("", "")


ERRORS = (
    SyntaxError,
    struct.error,
    ValueError,
    EOFError,
    OverflowError,
    MemoryError,
    zlib.error,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    RecursionError,
    NotImplementedError,
    OSError,
)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_every_error_of_pillow_names_the_file(tmp_path, monkeypatch, error, format):
    def fail(*_):
        raise error("two\nlines")

    (tmp_path / "a.png").write_bytes(encoded(format))
    monkeypatch.setattr(Image.Image, "convert", fail)
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", fail)
    with pytest.raises(UserError, match=r"Could not read .*a\.png as a picture: .*two.*\.") as caught:
        picture_files.read(tmp_path / "a.png", GREY)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    places = (tmp_path / "pipe.png", tmp_path / "folder.png", tmp_path / "absent.png", "/dev/zero")
    for place in places:
        with pytest.raises(UserError, match=str(place)):
            picture_files.read(place, GREY)


def test_a_mode_that_is_not_asked_for_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: expected 8 bits per channel\. Received Pillow's mode I;16"):
        picture_files.read(tmp_path / "a.png", GREY)


# --- orientation


def with_orientation(format, orientation) -> bytes:
    exif = Image.Exif()
    exif[picture_files.ORIENTATION] = orientation
    return encoded(format, picture(), exif=exif)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_a_picture_is_read_as_it_is_shown(tmp_path, format, orientation):
    (tmp_path / "a").write_bytes(with_orientation(format, orientation))
    with Image.open(tmp_path / "a") as image:
        shown = ImageOps.exif_transpose(image).convert("L")
    read = picture_files.read(tmp_path / "a", GREY)
    np.testing.assert_array_equal(np.asarray(read), np.asarray(shown))
    header = picture_files.header(tmp_path / "a")
    assert header.size == shown.size
    assert header.turned == (orientation in range(2, 9) and format != "TIFF")


def test_damaged_exif_data_leave_a_picture_as_it_is_stored(tmp_path):
    content = encoded("JPEG", picture(), exif=b"Exif\0\0no TIFF header")
    (tmp_path / "a.jpg").write_bytes(content)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(picture_files.read(tmp_path / "a.jpg", GREY), image.convert("L"))
    assert not picture_files.header(tmp_path / "a.jpg").turned


def test_exif_data_after_the_pixels_turn_nothing_so_that_streams_agree(tmp_path):
    exif = Image.Exif()
    exif[picture_files.ORIENTATION] = 6
    content = encoded("PNG", picture())
    end = content.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + content[end:])
    assert picture_files.read(tmp_path / "a.png", GREY).size == (6, 4)
    assert picture_files.header(tmp_path / "a.png").size == (6, 4)


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_is_read(tmp_path, format):
    frames = [Image.new("L", (6, 4), value) for value in (0, 255)]
    frames[0].save(tmp_path / "a", format, save_all=True, append_images=frames[1:])
    assert np.asarray(picture_files.read(tmp_path / "a", GREY)).max() == 0


def test_a_palette_with_transparency_gives_no_warning(tmp_path, recwarn):
    picture(mode="P").save(tmp_path / "a.png", transparency=bytes(range(256)))
    picture_files.read(tmp_path / "a.png", {"P": "RGB"})
    assert not list(recwarn)


def test_text_in_a_picture_may_not_fill_the_memory():
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 2**20  # Pillow's limit, which the text bomb above exceeds
