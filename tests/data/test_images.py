"""The reader of folders of pictures, in memory and streamed."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from source_files import greys, save_pictures, spoil_size

import kvae.data
from kvae.data import open_source
from kvae.internal import memory
from kvae.internal.errors import KvaeWarning, UserError


@pytest.mark.parametrize("shape", [(20, 4, 5), (20, 4, 5, 3)], ids=["grey", "RGB"])
def test_pictures_round_trip(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    save_pictures(tmp_path / "train", images)
    save_pictures(tmp_path / "test", images[:3])
    splits = open_source(f"images:{tmp_path}").splits
    np.testing.assert_array_equal(splits["train"].images, images.reshape(20, 4, 5, -1))
    np.testing.assert_array_equal(splits["test"].images, images[:3].reshape(3, 4, 5, -1))


def test_sub_folders_are_labels(tmp_path):
    for part in ("train", "test"):
        for name, value in (("cats", 10), ("dogs", 20)):
            save_pictures(tmp_path / part / name, np.full((3, 2, 2), value, np.uint8))
    source = open_source(f"images:{tmp_path}")
    assert source.label_names == ("cats", "dogs")
    for split in source.splits.values():
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], 10 * (1 + split.labels))


def test_pictures_in_one_folder_have_no_label_and_a_tenth_held_out(tmp_path):
    save_pictures(tmp_path, greys())
    source = open_source(f"images:{tmp_path}")
    assert {part: split.count for part, split in source.splits.items()} == {"train": 18, "test": 2}
    assert source.label_names is None
    assert source.splits["train"].labels is None


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_streamed_pictures_have_the_pixels_of_those_in_memory(tmp_path, mode, channels):
    colour = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    for part in ("train", "test"):
        save_pictures(tmp_path / part, colour, mode)
    memory, stream = (
        kvae.data.load(f"images:{tmp_path}", binarize="none", batch_size=4, streaming=streaming).examples("test")[0]
        for streaming in (False, True)
    )
    assert memory.shape == (6, 4, 5, channels)
    np.testing.assert_array_equal(stream, memory)


def test_streamed_pictures_keep_their_labels(tmp_path):
    for part in ("train", "test"):
        for name in ("cats", "dogs"):
            save_pictures(tmp_path / part / name, greys(3))
    splits = open_source(f"images:{tmp_path}", streaming=True).splits
    assert splits["test"].images is None
    assert splits["test"].labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("order", ["source", "shuffled"])
@pytest.mark.parametrize("folders", [("cats", "dogs"), ("train/cats", "train/dogs"), ("",)])
def test_a_stream_holds_out_the_pictures_that_are_held_out_in_memory(tmp_path, folders, order):
    for number, folder in enumerate(folders):
        save_pictures(tmp_path / folder, np.roll(greys(20), number))
    memory, stream = (
        kvae.data.load(f"images:{tmp_path}", binarize="stochastic", batch_size=4, order=order, streaming=streaming)
        for streaming in (False, True)
    )
    assert stream.streams
    assert stream.info == memory.info
    for part in ("train", "test"):
        (x, labels), (expected, expected_labels) = stream.examples(part), memory.examples(part)
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(labels, expected_labels)
        assert (labels is None) == (folders == ("",))


def spoil_nothing(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def spoil_file(folder: Path) -> None:
    (folder / "zzz.png").write_bytes((folder / "000.png").read_bytes()[:40])


def spoil_text(folder: Path) -> None:
    (folder / "zzz.png").write_text("no picture")


def spoil_depth(folder: Path) -> None:
    Image.fromarray(greys(1)[0].astype(np.uint16) * 257).save(folder / "zzz.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_nothing, "Expected pictures in"),
        (spoil_size, "has 3 of 4 x 4 grey, such as 000.png; 1 of 5 x 5 grey, such as zzz.png"),
        (spoil_file, r"Could not read .*zzz\.png"),
        (spoil_text, r"Could not read .*zzz\.png"),
        (spoil_depth, r"zzz\.png: expected 8 bits"),
    ],
    ids=["empty folder", "different sizes", "truncated picture", "text", "16 bit"],
)
def test_bad_pictures_are_refused(tmp_path, spoil, message):
    save_pictures(tmp_path, greys(3))
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        open_source(f"images:{tmp_path}")


@pytest.mark.parametrize("streaming", [False, True])
def test_the_line_for_different_pictures_names_their_place_and_converts_them(tmp_path, streaming):
    save_pictures(tmp_path / "a" / "cats", greys(3), "RGB")
    save_pictures(tmp_path / "a" / "dogs", greys(2, side=6))
    with pytest.raises(UserError) as raised:
        open_source(f"images:{tmp_path / 'a'}", streaming=streaming)
    text = str(raised.value)
    assert "3 of 4 x 4 colour, such as cats/000.png; 2 of 6 x 6 grey, such as dogs/000.png" in text
    exec(text.partition("in Python: ")[2].replace("COPY", str(tmp_path / "a")), {})
    assert open_source(f"images:{tmp_path / 'a'}", streaming=streaming).splits["train"].image_shape == (4, 4, 3)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_an_alpha_channel_is_left_out_with_one_warning(tmp_path, mode, streaming):
    save_pictures(tmp_path, greys(3), mode)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_source(f"images:{tmp_path}", streaming=streaming)
    texts = [str(each.message) for each in caught if each.category is KvaeWarning]
    assert len(texts) == (mode != "RGB")
    assert all("3 pictures, such as" in text and "alpha channel" in text for text in texts)


def test_train_and_test_pictures_of_different_sizes_are_refused(tmp_path):
    save_pictures(tmp_path / "train", greys())
    save_pictures(tmp_path / "test", greys(side=5))
    with pytest.raises(UserError, match="one size"):
        open_source(f"images:{tmp_path}")


def test_streamed_pictures_of_different_sizes_are_refused_at_once(tmp_path):
    save_pictures(tmp_path / "train", greys(3))
    save_pictures(tmp_path / "test", greys(3))
    spoil_size(tmp_path / "train")
    with pytest.raises(UserError, match=r"5 x 5"):
        open_source(f"images:{tmp_path}", streaming=True)


# --- what is left out


def write(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


HIDDEN = ("._000.png", ".DS_Store", ".hidden.png", "__MACOSX/000.png", ".ipynb_checkpoints/000.png", "Thumbs.db")
HIDDEN += ("desktop.ini", "@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/a/b.png")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_files_and_folders_are_no_images_and_no_classes_and_are_counted(tmp_path, name, streaming):
    for part in ("train", "test"):
        for label in ("cats", "dogs"):
            save_pictures(tmp_path / part / label, greys(3))
        write(tmp_path / part / name)
        write(tmp_path / part / "cats" / name)
    with pytest.warns(
        KvaeWarning, match=rf"^images:.* these are not used: hidden files or folders \(4, such as '{name[:5]}"
    ):
        source = open_source(f"images:{tmp_path}", streaming)
    assert source.label_names == ("cats", "dogs")
    assert {part: split.count for part, split in source.splits.items()} == {"train": 6, "test": 6}


def test_a_folder_without_anything_else_gives_no_warning(tmp_path):
    save_pictures(tmp_path / ".place" / "of mine", greys(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(f"images:{tmp_path / '.place' / 'of mine'}")


def test_other_files_and_links_to_folders_are_left_out_and_counted(tmp_path):
    save_pictures(tmp_path / "data" / "a", greys(3))
    write(tmp_path / "data" / "README.txt")
    write(tmp_path / "data" / "a" / "photo.heic")
    os.mkfifo(tmp_path / "data" / "a" / "pipe.png")
    (tmp_path / "data" / "a" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "data" / "a" / "itself.png").symlink_to("itself.png")
    (tmp_path / "data" / "a" / "up").symlink_to(tmp_path / "data")
    left_out = r"links to folders \(1, such as 'up'\); files that are not pictures \(5, such as 'README.txt'\)\."
    with pytest.warns(KvaeWarning, match=left_out):
        source = open_source(f"images:{tmp_path / 'data'}")
    assert (source.label_names, source.splits["train"].count + source.splits["test"].count) == (("a",), 3)


def test_a_link_to_a_picture_is_a_picture(tmp_path):
    save_pictures(tmp_path / "there", greys(3))
    (tmp_path / "here").mkdir()
    for path in (tmp_path / "there").iterdir():
        (tmp_path / "here" / path.name).symlink_to(path)
    source = open_source(f"images:{tmp_path / 'here'}")
    assert sum(split.count for split in source.splits.values()) == 3


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    save_pictures(tmp_path / "a", greys(3))
    scan = os.scandir

    def denied(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=r"Could not read the folder .*a: Permission denied\."):
        open_source(f"images:{tmp_path}")


def test_more_pictures_than_the_memory_holds_are_refused_with_the_numbers(tmp_path, monkeypatch):
    save_pictures(tmp_path, greys())
    monkeypatch.setattr(memory, "available", lambda: 639)
    with pytest.raises(UserError, match=r"20 pictures of 4 x 4, such as .* to fit into the memory .*streaming"):
        open_source(f"images:{tmp_path}")


# --- streams


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"quality": 30}, {"progressive": True}, {"subsampling": 2}], ids=str)
def test_streamed_jpeg_has_the_pixels_of_memory(tmp_path, mode, options):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        colour = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
        # The name ends in png, because the content decides.
        Image.fromarray(colour).convert(mode).save(tmp_path / part / "a.png", "JPEG", **options)
    memory, stream = (
        kvae.data.load(f"images:{tmp_path}", binarize="none", batch_size=1, streaming=streaming).examples("test")[0]
        for streaming in (False, True)
    )
    np.testing.assert_array_equal(stream, memory)


def test_streamed_bmp_has_the_pixels_of_memory(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)).save(tmp_path / part / "a.bmp")
    memory, stream = (
        kvae.data.load(f"images:{tmp_path}", binarize="none", batch_size=1, streaming=streaming).examples("test")[0]
        for streaming in (False, True)
    )
    np.testing.assert_array_equal(stream, memory)


TURNED = Image.Exif()
TURNED[0x0112] = 3
UNSTREAMED = {
    "grey BMP": ("BMP", "L", {}, "BMP of mode L"),
    "BMP with a palette": ("BMP", "P", {}, "BMP of mode P"),
    "GIF": ("GIF", "P", {}, "GIF of mode P"),
    "TIFF": ("TIFF", "L", {}, "TIFF of mode L"),
    "WebP": ("WEBP", "RGB", {}, "WEBP of mode RGB"),
    "turned": ("JPEG", "RGB", {"exif": TURNED}, "JPEG of mode RGB, rotated by its EXIF data"),
}


@pytest.mark.parametrize("kind", UNSTREAMED)
def test_pictures_that_tensorflow_would_decode_to_other_pixels_are_not_streamed(tmp_path, kind):
    format, mode, options, message = UNSTREAMED[kind]
    for part in ("train", "test"):
        save_pictures(tmp_path / part, greys(1))
        colour = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(colour).convert(mode).save(tmp_path / part / "zzz.png", format, **options)
    with pytest.raises(UserError, match=rf"for streaming\. zzz\.png is {message}\. Convert"):
        open_source(f"images:{tmp_path}", streaming=True)


def damage(path: Path) -> None:
    """Damages the pixels of a picture, but not its header."""
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_damaged_picture_that_is_needed_after_the_training_is_named_before_it(tmp_path, part):
    for each in ("train", "validation", "test"):
        save_pictures(tmp_path / each, greys())
    damage(tmp_path / part / "011.png")
    with pytest.raises(UserError, match=rf"Could not read .*{part}.011\.png"):
        kvae.data.load(f"images:{tmp_path}", validation="validation", batch_size=5, streaming=True)


@pytest.mark.parametrize(
    "use",
    [lambda data: data.check(), lambda data: data.examples("train"), lambda data: data.pixel_mean],
    ids=["check", "examples", "pixel_mean"],
)
def test_a_damaged_training_picture_of_a_stream_is_named(tmp_path, use):
    for part in ("train", "test"):
        save_pictures(tmp_path / part, greys())
    data = kvae.data.load(f"images:{tmp_path}", batch_size=5, streaming=True)
    damage(tmp_path / "train" / "011.png")
    with pytest.raises(UserError, match=r"Could not read .*train.011\.png"):
        use(data)


def test_damaged_jpeg_files_in_a_stream_print_nothing(tmp_path, capfd):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        Image.fromarray(greys(1)[0]).save(tmp_path / part / "a.jpg")
    content = (tmp_path / "test" / "a.jpg").read_bytes()
    generator, refused = np.random.default_rng(0), 0
    for _ in range(30):
        damaged = bytearray(content)
        place = generator.integers(100, len(content))
        damaged[place:place] = generator.bytes(20)
        (tmp_path / "test" / "a.jpg").write_bytes(damaged)
        try:
            split = open_source(f"images:{tmp_path}", streaming=True).splits["test"]
            split.check(0, 1)
        except UserError:
            refused += 1
    assert refused > 5
    assert capfd.readouterr() == ("", "")


def test_a_picture_that_has_become_another_one_is_named(tmp_path):
    for part in ("train", "test"):
        save_pictures(tmp_path / part, greys())
    data = kvae.data.load(f"images:{tmp_path}", batch_size=5, streaming=True)
    Image.new("L", (9, 9)).save(tmp_path / "train" / "011.png")
    with pytest.raises(UserError, match=r"train.011\.png cannot be streamed"):
        data.check()


def test_a_picture_that_only_pillow_can_decode_is_named(tmp_path):
    for part in ("train", "test"):
        save_pictures(tmp_path / part, greys())
    path = tmp_path / "test" / "011.png"
    content = bytearray(path.read_bytes())
    content[content.index(b"IEND") - 5] ^= 1  # the checksum of the pixels, which Pillow does not compare
    path.write_bytes(content)
    open_source(f"images:{tmp_path}")
    with pytest.raises(UserError, match=r"011\.png cannot be streamed"):
        kvae.data.load(f"images:{tmp_path}", batch_size=5, streaming=True)


@pytest.mark.parametrize("streaming", [True, "decoded"])
def test_pictures_of_zeros_and_ones_are_black_and_white_in_memory_and_refused_as_a_stream(tmp_path, streaming):
    for part in ("train", "test"):
        save_pictures(tmp_path / part, greys() % 2)
    memory = kvae.data.load(f"images:{tmp_path}", batch_size=5).examples("test")[0]
    assert set(np.unique(memory)) == {0.0, 1.0}
    with pytest.raises(UserError, match=r"from 0 to 255, for streaming.* are 0 and 1"):
        kvae.data.load(f"images:{tmp_path}", batch_size=5, streaming=streaming)


def test_what_is_beside_the_folders_of_splits_is_named(tmp_path):
    for part in ("train", "val", "test"):
        save_pictures(tmp_path / part, greys(3))
    with pytest.warns(KvaeWarning, match=r"files or folders beside train, validation and test \(1, such as 'val'\)"):
        open_source(f"images:{tmp_path}")
