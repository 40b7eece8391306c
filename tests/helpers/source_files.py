"""Files of every format that kvae reads, whole and damaged."""

import gzip
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from kvae.data import open_source
from kvae.internal.errors import UserError

# Each example overwrites the files of the one before, so a shared tmp_path is safe. Derandomized, so that every run
# tests the same examples; for new ones use --hypothesis-seed and derandomize=False.
FUZZ = settings(
    deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SQUARES = st.integers(1, 5).flatmap(lambda side: arrays(np.uint8, st.tuples(st.integers(1, 6), *[st.just(side)] * 2)))
DAMAGE = st.tuples(
    st.just(10_000) | st.integers(0, 9_999),
    st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 255)), max_size=3),
)


def greys(count: int = 20, side: int = 4) -> np.ndarray:
    """Random images `[count, side, side]` uint8."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8)


def binary_scaled(images: np.ndarray) -> np.ndarray:
    """The bytes that every source returns for these: images of 0 and 1 only are read as black and white."""
    return images * 255 if images.max() == 1 else images


def damaged(content: bytes, damage: tuple[int, list[tuple[int, int]]]) -> bytes:
    """The bytes with some overwritten, then cut to a length; places and length are in 1/10,000 of the whole."""
    keep, flips = damage
    content = bytearray(content)
    for place, value in flips:
        content[place * len(content) // 10_000] = value
    return bytes(content[: keep * len(content) // 10_000])


def assert_reads_or_refuses(source: str) -> None:
    """Valid bytes become images, and all others a UserError, never another exception."""
    try:
        splits = open_source(source).splits.values()
    except UserError:
        return
    for split in splits:
        assert split.images.dtype == np.uint8
        assert split.images.shape == (split.count, *split.image_shape)


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, part: str, images: np.ndarray, labels: np.ndarray | None = None, suffix: str = "") -> None:
    pack = gzip.compress if suffix == ".gz" else bytes
    (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(images)))
    if labels is not None:
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))


def save_pictures(folder: Path, images: np.ndarray, mode: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for place, image in enumerate(images):
        picture = Image.fromarray(image)
        (picture if mode is None else picture.convert(mode)).save(folder / f"{place:03}.png")


def spoil_size(folder: Path) -> None:
    Image.fromarray(greys(1, side=5)[0]).save(folder / "zzz.png")
