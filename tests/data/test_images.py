"""The reader of folders of pictures, in memory and streamed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from source_files import greys, save_pictures, spoil_size

import kvae.data
from kvae.data import open_source
from kvae.internal.errors import UserError


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


def test_streaming_pictures_needs_a_test_folder(tmp_path):
    save_pictures(tmp_path / "train", greys())
    with pytest.raises(UserError, match=r"test split in images:.* for streaming"):
        open_source(f"images:{tmp_path}", streaming=True)


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
        (spoil_nothing, "No picture in"),
        (spoil_size, "000.png is 4 x 4 L, zzz.png is 5 x 5 L"),
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
