"""The content of a data source: named splits of 8-bit images, and slices of them."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from kvae.internal.errors import UserError, unknown
from kvae.internal.visible import shown

SEED = 0  # of held-out images and of shuffled orders
SLICE = re.compile(r"(?P<name>\w+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Split:
    """The images of a split, or of a slice of it, in memory or streamed from disk.

    A model receives the labels only if `kvae.data.load` is called with `labels=True` or `condition="label"`.

    Attributes:
        images: images, `[N, H, W, C]` uint8; None for a split that is streamed.
        labels: integers, `[N]`, or None.
        count: the number of images, N.
        image_shape: the shape of one image, `(H, W, C)`.
        stream: only for a split that is streamed: a function of (start, stop) that returns a `tf.data.Dataset` of
            `(index, encoded)` in the order on disk. Shuffling moves the encoded images, which are small.
        decode: only for a split that is streamed: a function from an encoded image to `[H, W, C]` uint8.
        start: the index of the first image within the whole split.
        shuffle_buffer: only for a split that is streamed: the largest number of encoded images that shuffling keeps in
            memory. By default it keeps all.
        check: only for a split that is streamed: a function of (start, stop) that reads these images once and raises
            a `UserError` that names the first damaged one. By default damage is noticed only when an image is needed.
        reordered: only for a split that is streamed: a function of indices `[M]` that returns the split of these
            images, in this order. None if it can be read only as it is on disk.
        read_labels: only for a split that is streamed, and whose labels are in the files of the images: a function of
            (start, stop) that reads those of these images. None if `labels` has them, or if there are none.
        state: only for a split that is streamed: a function that returns what its images depend on, as JSON: the
            folder, and the names, sizes and times of the files. Decoded images are kept as long as it is the same.
        files: the file of each image, `[N]`, relative to the folder of the source; None if images have no files of
            their own.
    """

    images: np.ndarray | None
    labels: np.ndarray | None
    count: int
    image_shape: tuple[int, ...]
    stream: Any = None
    decode: Any = None
    start: int = 0
    shuffle_buffer: int | None = None
    check: Any = None
    reordered: Any = None
    read_labels: Any = None
    state: Any = None
    files: np.ndarray | None = None

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        files: np.ndarray | None = None,
        description: str = "the images",
    ) -> "Split":
        """A split in memory.

        Args:
            images: images, `[N, H, W]` or `[N, H, W, C]`, with pixels as in `as_bytes`.
            labels: integers, `[N]`, or None.
            files: the file of each image, `[N]`, as in the attribute, or None.
            description: what the images are, for messages.

        Raises:
            UserError: if a pixel is not valid.
        """
        images = as_bytes(images, description)
        images = images[..., None] if images.ndim == 3 else images
        return cls(images, labels, len(images), tuple(images.shape[1:]), files=files)

    @property
    def has_labels(self) -> bool:
        """Whether the images have labels, in memory or in their files."""
        return self.labels is not None or self.read_labels is not None

    @cached_property
    def known_labels(self) -> np.ndarray | None:
        """The labels `[N]`, which are read from the files of the images if they are only there; None if there are none.

        Models and pipelines take `labels` only, so that nothing is read that they do not ask for.
        """
        if self.labels is not None or self.read_labels is None:
            return self.labels
        return self.read_labels(self.start, self.start + self.count)

    def slice(self, start: int, stop: int) -> "Split":
        """The images from `start` to `stop - 1`, which keep their indices within the whole split."""
        return replace(
            self,
            images=None if self.images is None else self.images[start:stop],
            labels=None if self.labels is None else self.labels[start:stop],
            files=None if self.files is None else self.files[start:stop],
            count=stop - start,
            start=self.start + start,
        )

    def shuffled(self) -> "Split":
        """The whole split in a random order, which depends only on the number of images."""
        if self.images is None and self.reordered is None:
            return self
        return self.rows(np.random.RandomState(SEED).permutation(self.count))

    def rows(self, rows: np.ndarray) -> "Split":
        """The images with these indices `[M]`, in this order. A stream needs `reordered`."""
        if self.images is None:
            return self.reordered(rows)
        labels, files = (None if each is None else each[rows] for each in (self.labels, self.files))
        return Split(self.images[rows], labels, len(rows), self.image_shape, files=files)


@dataclass(frozen=True)
class Source:
    """A dataset as it was read.

    Attributes:
        name: the name that the user gave, for example `mnist` or `idx:DIR`.
        splits: the splits by name: `train`, `test`, and `validation` if the source has one.
        label_names: the name of each label, or None.
        notes: remarks that belong to every result on these data, for example how a test split was made.
        notes_if_shuffled: None if the order of the images is part of the dataset, as for MNIST. Otherwise the order
            means nothing, as that of the files of a folder, and often it is that of the classes; these notes replace
            `notes` after `shuffled`.
    """

    name: str
    splits: dict[str, Split]
    label_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())
    notes_if_shuffled: tuple[str, ...] | None = None

    def shuffled(self) -> "Source":
        """The source with the images of each split in a random order, if their order is no part of the dataset.

        So the first images of a split, and each slice of it, are a fair choice among all of its images. The seed is
        fixed, so that it is the same order in every run and on every machine.
        """
        if self.notes_if_shuffled is None:
            return self
        splits = {name: split.shuffled() for name, split in self.splits.items()}
        return replace(self, splits=splits, notes=self.notes_if_shuffled, notes_if_shuffled=None)

    def labelled(self, parts: Iterable[str]) -> "Source":
        """The same source, with the labels of these splits, where they are in the files of images that stream."""
        splits = {part: replace(self.splits[part], labels=self.splits[part].known_labels) for part in set(parts)}
        return replace(self, splits={**self.splits, **splits})

    def resolve(self, name: str) -> tuple[str, int, int]:
        """The split, start and stop of a slice that is named as in `select`, which also gives the errors."""
        match = SLICE.fullmatch(name.strip()) if isinstance(name, str) else None
        if match is None:
            raise UserError(f"Expected a split such as train, train[:10000] or train[80%:]. Received {name!r}.")
        if match["name"] not in self.splits:
            raise unknown(f"split of {self.name}", match["name"], self.splits)
        count = self.splits[match["name"]].count
        start, stop = _bound(match["start"], count, 0), _bound(match["stop"], count, count)
        if start >= stop:
            raise UserError(f"Expected at least one image in {name!r}. {self.name} has {count} in that split.")
        return match["name"], start, stop

    def overlap(self, first: str, second: str) -> bool:
        """Whether two slices, named as in `select`, have an image in common."""
        (split, start, stop), (second_split, second_start, second_stop) = self.resolve(first), self.resolve(second)
        return split == second_split and max(start, second_start) < min(stop, second_stop)

    def select(self, name: str) -> Split:
        """A split or a slice of one.

        Args:
            name: the name in the syntax of TFDS: `train`, `train[:10000]`, `train[80%:]`, `test[-500:]`.

        Raises:
            UserError: if the name has another form, if there is no such split, or if the slice is empty.
        """
        split, start, stop = self.resolve(name)
        return self.splits[split].slice(start, stop)


def _bound(text: str | None, count: int, default: int) -> int:
    """The index 0..count that one side of a slice means: a number or a percentage, from the end if it is negative."""
    if text is None:
        return default
    if len(text) > 20:  # Python reads no number of thousands of digits
        raise UserError(f"Expected a slice with the indices of images. Received {shown(text)}.")
    value = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return min(max(value + count if value < 0 else value, 0), count)


def hold_out(name: str, splits: dict[str, Split], label_names: tuple[str, ...] | None = None) -> Source:
    """A source whose test split is a random tenth of `train`, if possible with the same proportions of the labels.

    The seed is fixed, and not the seed of a run, so that the results of all runs are on the same test images. Both
    parts keep the order of the source, until `Source.shuffled`.

    Args:
        name: the name of the source.
        splits: its splits, among them `train`, which must be in memory or a stream that can be reordered.
        label_names: the name of each label, or None.

    Raises:
        UserError: if the split is a stream that cannot be reordered, or has fewer than 2 images.
    """
    split = splits["train"]
    if split.images is None and split.reordered is None:
        raise UserError(
            f"Expected a test split in {name} for streaming. Received none. Divide the files into train and test "
            "yourself."
        )
    if split.count < 2:
        raise UserError(f"Expected at least 2 images in {name} to hold some out for testing. Received {split.count}.")
    test = held_out(split.count, split.labels)
    held = {"train": split.rows(np.setdiff1d(np.arange(split.count), test)), "test": split.rows(test)}
    note = "no test split in the source: a random tenth of it was held out"
    share = ", with the same share of each label" if _is_stratified(split.count, split.labels) else ""
    shuffled = f"{note}{share}, and all images are in a random order (seed {SEED})"
    return Source(name, {**splits, **held}, label_names, (f"{note} (seed {SEED})",), (shuffled,))


def held_out(count: int, labels: np.ndarray | None = None) -> np.ndarray:
    """The images of the test split that `hold_out` makes: a tenth of all, rounded up.

    These are the images that `train_test_split(test_size=0.1, random_state=0)` of scikit-learn chooses, with which
    earlier versions of kvae made the split, so that results can be compared. The labels are its `stratify` if the test
    split has room for every class.

    Args:
        count: the number of images, N, at least 2.
        labels: integers, `[N]`, or None.

    Returns:
        Indices of images in ascending order, `[ceil(N / 10)]` int64.
    """
    generator = np.random.RandomState(SEED)  # the old generator of NumPy, whose numbers never change
    size = math.ceil(0.1 * count)
    if labels is None or not _is_stratified(count, labels):
        return np.sort(generator.permutation(count)[:size])
    classes, counts = np.unique(labels, return_counts=True)
    kept = _proportional(counts, count - size, generator)
    wanted = _proportional(counts - kept, size, generator)  # all others; it draws numbers only where rounding fails
    chosen = []
    for label, first, number in zip(classes, kept, wanted, strict=True):
        members = np.flatnonzero(labels == label)
        order = generator.permutation(len(members))
        chosen.append(members[order[first : first + number]])
    return np.sort(np.concatenate(chosen))


def _is_stratified(count: int, labels: np.ndarray | None) -> bool:
    """Whether each class has its share of a held-out tenth: it has two images, and the tenth one for each class."""
    if labels is None:
        return False
    counts = np.unique(labels, return_counts=True)[1]
    return bool(counts.min() >= 2 and count // 10 >= len(counts))


def _proportional(counts: np.ndarray, total: int, generator: np.random.RandomState) -> np.ndarray:
    """`total` divided in proportion to `counts`, in whole numbers: the largest remainders are rounded up.

    Among equal remainders, the generator chooses.
    """
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders = exact - shares
    missing = int(total - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        candidates = np.flatnonzero(remainders == remainder)
        raised = generator.choice(candidates, size=min(len(candidates), missing), replace=False)
        shares[raised] += 1
        missing -= len(raised)
    return shares.astype(int)


def refuse_ones(greatest: int, what: str) -> None:
    """Raises `UserError` for a stream whose pixels are 0 and 1: in memory, `as_bytes` makes them 0 and 255.

    Args:
        greatest: the greatest pixel of the stream, or of some of its images.
        what: the images, for the message.
    """
    if greatest == 1:
        raise UserError(
            f"Expected pixels from 0 to 255, for streaming. Those of {what} are 0 and 1, which become black and white "
            "only in memory: read them without streaming, or multiply them by 255."
        )


def as_bytes(pixels: np.ndarray, description: str) -> np.ndarray:
    """Pixels of any numeric type as uint8 in 0..255.

    Args:
        pixels: an array whose first axis counts images. Whole numbers, of any type, must be in 0..255; if all are 0 or
            1, they become 0 and 255. Other numbers must be in [0, 1]; they are multiplied by 255.
        description: a description of the array for error messages, such as a file name.

    Raises:
        UserError: if a value is NaN, infinite, out of range, or not a number; the message names its position.
    """
    if pixels.dtype == np.uint8:
        return pixels * np.uint8(255) if pixels.size and pixels.max() == 1 else pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind not in "iuf":
        raise UserError(f"Expected numbers as pixels in {description}. Received {pixels.dtype}.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        index = _first_index(~np.isfinite(pixels))
        raise UserError(f"Expected finite pixels in {description}. Received {pixels[index]} at {_describe(index)}.")
    fractions = pixels != np.rint(pixels)
    whole = not fractions.any()
    outside = (pixels < 0) | (pixels > 255) | (fractions & (pixels > 1))
    if not whole and not outside.any():
        outside = pixels > 1
    if outside.any():
        index = _first_index(outside)
        raise UserError(
            f"Expected pixels in {description} to be whole numbers 0..255, or fractions 0..1. "
            f"Received {pixels[index]} at {_describe(index)}."
        )
    if whole and not (pixels.size and pixels.max() <= 1):
        return pixels.astype(np.uint8)
    return np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)


def _first_index(mask: np.ndarray) -> tuple[int, ...]:
    """The index of the first True."""
    return tuple(int(axis) for axis in np.unravel_index(int(mask.argmax()), mask.shape))


def _describe(index: tuple[int, ...]) -> str:
    return f"image {index[0]}, pixel {list(index[1:])}"


def as_labels(labels: np.ndarray, count: int, description: str) -> np.ndarray:
    """Labels as int64 `[N]`.

    Args:
        labels: whole numbers of any type, `[N]` or `[N, 1]`.
        count: the number of images, N.
        description: a description of the array for error messages, such as a file name.

    Raises:
        UserError: if the labels are not whole numbers, or if there is not one label per image.
    """
    if labels.shape not in ((count,), (count, 1)):
        raise UserError(f"Expected one label per image in {description}: {count}. Received shape {labels.shape}.")
    labels = labels.reshape(-1)
    # Above 2^53 float64 does not represent every whole number; the limit also excludes infinity.
    if labels.dtype.kind not in "iufb" or not ((labels == np.rint(labels)) & (np.abs(labels) < 2**53)).all():
        raise UserError(f"Expected whole numbers as labels in {description}. Received {labels.dtype}.")
    return labels.astype(np.int64)
