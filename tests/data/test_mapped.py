"""Images of files that are mapped into memory: trained on without being read first, with the same result."""

import mmap

import numpy as np
import pytest

import kvae
from kvae.data.in_memory import ImagesInMemory, as_float32
from kvae.data.mapped import MappedImages, can_map
from kvae.internal import memory
from kvae.internal.errors import KvaeWarning

COUNT = 50


def pixels(dtype=np.uint8):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 5, 3, 1), np.uint8)
    return images if dtype == np.uint8 else (images / 255).astype(dtype)


@pytest.fixture
def saved(tmp_path):
    """A function that saves an array and maps the file."""

    def save(array, mode="r"):
        np.save(tmp_path / "images.npy", array)
        return np.load(tmp_path / "images.npy", mmap_mode=mode)

    return save


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("part", [slice(None), slice(7, 31), slice(1, 2)])
def test_a_tensor_has_the_images_of_a_part_of_a_file(saved, dtype, part):
    images = saved(pixels(dtype))[part]
    mapped = MappedImages(images)
    np.testing.assert_array_equal(mapped.tensor[mapped.first : mapped.first + len(images)], pixels(dtype)[part])


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_tensor_is_of_the_file_itself(saved, mode):
    images = saved(pixels(), mode)
    mapped = MappedImages(images)
    assert mapped.tensor.numpy()[3, 2, 1, 0] == pixels()[3, 2, 1, 0]
    if mode != "r":
        images[3, 2, 1, 0] += 1
        assert mapped.tensor.numpy()[3, 2, 1, 0] == images[3, 2, 1, 0]


def test_a_tensor_keeps_its_file_mapped(saved):
    tensor = MappedImages(saved(pixels())).tensor
    np.testing.assert_array_equal(tensor, pixels())


def test_a_part_of_a_part_with_another_axis_is_mapped(saved):
    images = saved(pixels()[..., 0])[5:][2:9][..., None]
    mapped = MappedImages(images)
    assert mapped.first == 7
    np.testing.assert_array_equal(mapped.tensor[7:14], pixels()[7:14])


def other_byte_order(saved, tmp_path):
    return saved(pixels(np.float32).astype(">f4"))


def every_second(saved, tmp_path):
    return saved(pixels())[::2]


def no_image(saved, tmp_path):
    return saved(pixels())[:0]


def shifted(saved, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(7) + pixels().tobytes())
    return np.memmap(tmp_path / "raw", np.uint8, "r", 7, (COUNT, 5, 3, 1))


def truth_values(saved, tmp_path):
    return saved(pixels() > 99)


def ordinary(saved, tmp_path):
    return pixels()


@pytest.mark.parametrize("make", [other_byte_order, every_second, no_image, shifted, truth_values, ordinary])
def test_other_arrays_are_read_into_memory(saved, tmp_path, make):
    images = make(saved, tmp_path)
    assert not can_map(images)
    if len(images):
        batch = next(iter(ImagesInMemory(images, as_float32, len(images)).dataset()))
        np.testing.assert_array_equal(batch, np.asarray(images, np.float32))


def trained(x, **options):
    vae = kvae.VAE(2, hidden_units=(4,), likelihood="gaussian", seed=0)
    vae.compile(optimizer="adam")
    history = vae.fit(x, batch_size=8, epochs=2, verbose=0, **options).history
    return history, vae.get_weights(), vae.evaluate(x, verbose=0)


def assert_same(first, second):
    assert first[0] == second[0]
    assert all(map(np.array_equal, first[1], second[1]))
    assert first[2] == second[2]


@pytest.mark.parametrize("options", [{}, {"validation_split": 0.3}], ids=["", "the last images held out"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "larger than memory"])
def test_fit_trains_on_a_mapped_file_as_on_an_array(saved, monkeypatch, large, options):
    x = pixels(np.float32)
    if large:
        monkeypatch.setattr(memory, "available", lambda: 1000)
    assert_same(trained(saved(x), **options), trained(x, **options))


class Watched(mmap.mmap):
    """A mapped file that notes what the system is advised."""

    def __init__(self, *_):
        self.advice = []

    def madvise(self, kind, *place):
        self.advice.append((kind, *place))
        return super().madvise(kind, *place)


@pytest.fixture
def watched(tmp_path):
    """A mapped file of 50 images of 8,000 bytes that begin after the 128 bytes of a header."""
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((COUNT, 50, 40, 1), np.float32))
    with path.open("r+b") as file:
        return Watched(file.fileno(), 0)


@pytest.mark.skipif(not hasattr(mmap, "MADV_RANDOM"), reason="Windows takes no advice")
def test_the_system_is_told_which_images_of_a_large_file_are_needed(watched, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: len(watched))
    images = np.ndarray.__new__(np.memmap, (COUNT, 50, 40, 1), np.float32, watched, 128)
    images.offset = 128
    mapped = MappedImages(images[10:])
    mapped.will_need(np.array([0, 3]))
    assert watched.advice[0] == (mmap.MADV_RANDOM,)
    for (kind, begin, length), image in zip(watched.advice[1:], (10, 13), strict=True):
        assert kind == mmap.MADV_WILLNEED
        assert begin % mmap.PAGESIZE == 0
        assert begin <= 128 + 8000 * image < begin + mmap.PAGESIZE
        assert begin + length == 128 + 8000 * (image + 1)


@pytest.mark.skipif(not hasattr(mmap, "MADV_RANDOM"), reason="Windows takes no advice")
def test_a_file_that_fits_is_left_to_the_system(watched, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2 * len(watched))
    images = np.ndarray.__new__(np.memmap, (COUNT, 50, 40, 1), np.float32, watched, 128)
    images.offset = 128
    MappedImages(images).will_need(np.arange(COUNT))
    assert watched.advice == []


def test_each_image_of_an_epoch_is_asked_for_before_it_is_needed(saved, monkeypatch):
    asked = []
    monkeypatch.setattr(MappedImages, "will_need", lambda _, indices: asked.append(list(indices)))
    vae = kvae.VAE(2, hidden_units=(4,), likelihood="gaussian", seed=0)
    vae.compile(optimizer="adam", steps_per_execution=2)
    vae.fit(saved(pixels(np.float32)), batch_size=8, verbose=0)
    assert [len(some) for some in asked] == [16, 16, 16, 2, 0]
    assert sorted(np.concatenate(asked)) == list(range(COUNT))


def test_grey_pixels_of_a_mapped_file_are_noticed(saved):
    x = np.round(pixels(np.float32))
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.compile(optimizer="adam")
    vae.fit(saved(x), batch_size=8, verbose=0)  # all are 0 or 1
    x[-1, 0, 0, 0] = 0.5
    with pytest.warns(KvaeWarning, match="Grey pixels"):
        vae.fit(saved(x), batch_size=8, verbose=0)
