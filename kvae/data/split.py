"""What a source gives: named splits of grey or colour bytes, and slices of them."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kvae.internal.errors import UserError, unknown

SLICE = re.compile(r"(?P<name>\w+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Split:
    """Images and what is known of them; `labels` reach a model only where `kvae.data.load` was asked for them.

    Attributes:
        images: `[N, H, W, C]` uint8; None where the split streams from disk.
        labels: `[N]` integers, or None.
        count: N.
        image_shape: `(H, W, C)`.
        stream: for a split that streams: a function of (start, stop) that returns a `tf.data.Dataset` of
            `(index, encoded)` in the order on disk. Shuffling moves the encoded images, which are small.
        decode: for a split that streams: `encoded -> [H, W, C]` uint8.
        start: the index of the first image within the whole split.
        shuffle_buffer: for a split that streams: how many encoded images shuffling may hold; all by default.
    """

    images: np.ndarray | None
    labels: np.ndarray | None
    count: int
    image_shape: tuple[int, ...]
    stream: Any = None
    decode: Any = None
    start: int = 0
    shuffle_buffer: int | None = None

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray | None = None) -> "Split":
        """A split in memory; a missing channel axis is added, and bytes of 0 and 1 alone become 0 and 255."""
        images = as_bytes(images, "the images")
        images = images[..., None] if images.ndim == 3 else images
        return cls(images, labels, len(images), tuple(images.shape[1:]))

    def slice(self, start: int, stop: int) -> "Split":
        """The images start..stop-1; their index within this split stays what it was."""
        return replace(
            self,
            images=None if self.images is None else self.images[start:stop],
            labels=None if self.labels is None else self.labels[start:stop],
            count=stop - start,
            start=self.start + start,
        )


@dataclass(frozen=True)
class Source:
    """A dataset as it came from where it lies.

    Attributes:
        name: as the user wrote it, e.g. `mnist` or `idx:DIR`.
        splits: by name: `train`, and `test` where there is one.
        label_names: the name of each label, where the source has names.
        notes: what a reader of a number should know, e.g. how a test split was made.
    """

    name: str
    splits: dict[str, Split]
    label_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())

    def range(self, wanted: str) -> tuple[str, int, int]:
        """The split, and the first image and the one past the last, that `wanted` means; raises as `select` does."""
        match = SLICE.fullmatch(wanted.strip()) if isinstance(wanted, str) else None
        if match is None:
            raise UserError(f"Expected a split such as train, train[:10000] or train[80%:]. Received {wanted!r}.")
        if match["name"] not in self.splits:
            raise unknown(f"split of {self.name}", match["name"], self.splits)
        count = self.splits[match["name"]].count
        start, stop = _bound(match["start"], count, 0), _bound(match["stop"], count, count)
        if start >= stop:
            raise UserError(f"Expected at least one image in {wanted!r}. {self.name} has {count} in that split.")
        return match["name"], start, stop

    def overlap(self, one: str, other: str) -> bool:
        """Whether two slices have an image in common."""
        (name, start, stop), (other_name, other_start, other_stop) = self.range(one), self.range(other)
        return name == other_name and max(start, other_start) < min(stop, other_stop)

    def select(self, wanted: str) -> Split:
        """A split or a slice of one, in the words of TFDS: `train`, `train[:10000]`, `train[80%:]`, `test[-500:]`.

        Raises:
            UserError: not of this form, an unknown split, or no image in it.
        """
        name, start, stop = self.range(wanted)
        return self.splits[name].slice(start, stop)


def _bound(text: str | None, count: int, default: int) -> int:
    if text is None:
        return default
    value = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return min(max(value + count if value < 0 else value, 0), count)


def hold_out(name: str, splits: dict[str, Split], label_names: tuple[str, ...] | None = None) -> Source:
    """A source with a test split from one without: a tenth of `train`, at random, in equal shares of the labels.

    The seed is no part of a run's configuration, so that numbers of different runs stand on the same test images.
    """
    from sklearn.model_selection import train_test_split

    split = splits["train"]
    if split.images is None:
        raise UserError(f"Expected a test split in {name} for streaming. Found none; hold one out yourself.")
    if split.count < 2:
        raise UserError(f"Expected at least 2 images in {name} to hold some out for testing. Received {split.count}.")
    stratify = None
    if split.labels is not None:
        _, counts = np.unique(split.labels, return_counts=True)
        # Stratifying needs two examples a class and a test set of at least one a class.
        if counts.min() >= 2 and split.count // 10 >= len(counts):
            stratify = split.labels
    train, test = train_test_split(np.arange(split.count), test_size=0.1, random_state=0, stratify=stratify)
    held = {
        part: Split.of(split.images[rows], None if split.labels is None else split.labels[rows])
        for part, rows in (("train", np.sort(train)), ("test", np.sort(test)))
    }
    notes = ("no test split in the source: a random tenth of it was held out (seed 0)",)
    return Source(name, {**splits, **held}, label_names, notes)


def as_bytes(pixels: np.ndarray, where: str) -> np.ndarray:
    """Pixels of any numeric type as uint8 0..255.

    Integers (also those written as floats) must lie in 0..255; if none is above 1 they are taken as binary. Other
    floats must lie in [0, 1].

    Raises:
        UserError: NaN, infinity, or a value out of range, with its place.
    """
    if pixels.dtype == np.uint8:
        return pixels * np.uint8(255) if pixels.size and pixels.max() == 1 else pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind not in "iuf":
        raise UserError(f"Expected numbers as pixels in {where}. Received {pixels.dtype}.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        place = _place(~np.isfinite(pixels))
        raise UserError(f"Expected finite pixels in {where}. Received {pixels[place]} at {_words(place)}.")
    fractions = pixels != np.rint(pixels)
    whole = not fractions.any()
    outside = (pixels < 0) | (pixels > 255) | (fractions & (pixels > 1))
    if not whole and not outside.any():
        outside = pixels > 1
    if outside.any():
        place = _place(outside)
        raise UserError(
            f"Expected pixels in {where} to be whole numbers 0..255, or fractions 0..1. "
            f"Received {pixels[place]} at {_words(place)}."
        )
    if whole and not (pixels.size and pixels.max() <= 1):
        return pixels.astype(np.uint8)
    return np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)


def _place(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.unravel_index(int(mask.argmax()), mask.shape))


def _words(place: tuple[int, ...]) -> str:
    return f"image {place[0]}, pixel {list(place[1:])}"


def as_labels(labels: np.ndarray, count: int, where: str) -> np.ndarray:
    """Labels as int64 `[N]`.

    Raises:
        UserError: not whole numbers, or not one an image.
    """
    if labels.shape not in ((count,), (count, 1)):
        raise UserError(f"Expected one label an image in {where}: {count}. Received shape {labels.shape}.")
    labels = labels.reshape(-1)
    # Beyond 2^53 floats are no longer all of the whole numbers, and infinity lies there too.
    if labels.dtype.kind not in "iufb" or not ((labels == np.rint(labels)) & (np.abs(labels) < 2**53)).all():
        raise UserError(f"Expected whole numbers as labels in {where}. Received {labels.dtype}.")
    return labels.astype(np.int64)
