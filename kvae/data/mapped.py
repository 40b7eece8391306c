"""Images in a file that is mapped into memory: the system reads the pages that are needed, and may drop them again.

So a set of images can be larger than the memory, and is used like one that is in memory: in any order, and in compiled
loops. `np.load(..., mmap_mode="r")` makes such arrays of files of NumPy, and `kvae.data.decoded_once` such files of
pictures.
"""

import ctypes
import mmap
from typing import Any

import numpy as np

from kvae.internal import memory
from kvae.internal.tensorflow import tf

ALIGNMENT = 64  # bytes; TensorFlow copies arrays that begin between two multiples of it
SHARE = 0.5  # of the memory; the system keeps a smaller file in memory once it has read it


class MappedImages:
    """A tensor of the same memory as an array of a mapped file.

    Args:
        images: `[N, *image]`, an array for which `can_map` is true.

    Attributes:
        tensor: `[M, *image]`. A part of a file rarely begins where a tensor may, so the tensor begins with the file.
        first: place in the tensor of the first image: the images are `tensor[first:first + N]`.
    """

    def __init__(self, images: np.memmap) -> None:
        whole = _whole(images)
        start, before = _address(whole), _address(images) - _address(whole)
        self._size = images.nbytes // len(images)
        self.first = before // self._size
        # DLPack refuses arrays that may not be written. What reads these bytes as one that may is a `ctypes` array; if
        # a read-only one were written to, the system would end the process rather than change the file.
        shared: Any = (ctypes.c_uint8 * (before + images.nbytes)).from_address(start)
        shared.file = whole  # keeps the file mapped as long as there is a tensor
        rows = np.frombuffer(shared, images.dtype).reshape(-1, *images.shape[1:])
        self.tensor = tf.experimental.dlpack.from_dlpack(rows.__dlpack__())
        self._map = whole.base if isinstance(whole.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM") else None
        self._begin = whole.offset % mmap.ALLOCATIONGRANULARITY + before
        if self._map is not None and len(self._map) <= SHARE * memory.available():
            self._map = None
        if self._map is not None:
            # Around each page that is needed, the system would read up to a hundred others, for which there is no room.
            self._map.madvise(mmap.MADV_RANDOM)

    def will_need(self, indices: np.ndarray) -> None:
        """Begins to read images, `[n]`, if their file is so large that the system may have dropped them."""
        if self._map is not None:
            begins = self._begin + np.asarray(indices) * self._size
            pages = begins // mmap.PAGESIZE * mmap.PAGESIZE
            for page, length in zip(pages.tolist(), (begins - pages + self._size).tolist(), strict=True):
                self._map.madvise(mmap.MADV_WILLNEED, page, length)


def can_map(images: Any) -> bool:
    """Whether a tensor can share the memory of an array of a mapped file.

    The images must follow one another, and their numbers must be those of this machine.
    """
    if not isinstance(images, np.memmap) or not images.flags.c_contiguous or not images.size:
        return False
    whole = _whole(images)
    usable = images.dtype.isnative and images.dtype.kind in "uif"
    whole_rows = (_address(images) - _address(whole)) % (images.nbytes // len(images)) == 0
    return bool(usable and whole_rows and _address(whole) % ALIGNMENT == 0)


def _whole(images: np.memmap) -> np.memmap:
    """The array of the whole file."""
    while isinstance(images.base, np.memmap):
        images = images.base
    return images


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
