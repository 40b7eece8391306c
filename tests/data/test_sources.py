"""What holds for sources of several formats: missing files, words that name no source, validation splits."""

import numpy as np
import pytest
from source_files import greys, save_pictures, write_idx

from kvae.data import open_source
from kvae.internal.errors import UserError


@pytest.mark.parametrize("kind", ["idx", "images"])
def test_a_missing_folder_is_refused(tmp_path, kind):
    with pytest.raises(UserError, match="not a folder"):
        open_source(f"{kind}:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_a_missing_file_is_refused(tmp_path, kind):
    with pytest.raises(UserError, match="nowhere"):
        open_source(f"{kind}:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize(
    "word", ["", " ", "idx:", "csv:", "npz:", "images:", "IDX:x", "foo:bar", "a/b/c", "mnist:9.9.9"]
)
def test_a_word_that_is_no_source_is_refused(word):
    with pytest.raises(UserError, match="dataset"):
        open_source(word)


@pytest.mark.parametrize("source", ["mnist5k", "idx:x", "csv:x", "npz:x"])
def test_what_is_read_as_a_whole_does_not_stream(source):
    with pytest.raises(UserError, match="for streaming"):
        open_source(source, streaming=True)


@pytest.mark.parametrize("kind", ["idx", "npz", "images"])
def test_a_validation_split_is_read_where_there_is_one(tmp_path, kind):
    for part in ("train", "validation", "test"):
        write_idx(tmp_path, part, greys())
        save_pictures(tmp_path / "pictures" / part, greys())
    np.savez(tmp_path / "a.npz", x_train=greys(), x_val=greys(), x_test=greys())
    place = {"idx": tmp_path, "npz": tmp_path / "a.npz", "images": tmp_path / "pictures"}[kind]
    assert set(open_source(f"{kind}:{place}").splits) == {"train", "validation", "test"}
